"""Messages of more fields than any request needs are refused before they are parsed."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import encoder_pb2, types_pb2
from maskwire_core.rpc.message_fields import has_too_many_fields

SEGMENT, STREAM = pb.SegmentRequest.DESCRIPTOR, pb.SegmentStreamRequest.DESCRIPTOR


def test_the_largest_requests_that_are_answered_pass() -> None:
    point = types_pb2.Point(x_px=300.5, y_px=200.5, label=0)
    clicks = pb.SegmentRequest(prompts=128 * [types_pb2.Prompt(prompt_id="object", points=256 * [point])])
    steps = pb.SegmentRequest(prompts=10 * [types_pb2.Prompt(steps=1000 * [types_pb2.Step(add_point=point)])])
    logits = types_pb2.Logits(height=256, width=256, data_type=types_pb2.DATA_TYPE_FP32, data=bytes(1 << 18))
    masks = pb.SegmentRequest(prompts=128 * [types_pb2.Prompt(mask=logits)])
    for request in (clicks, steps, masks):
        assert not has_too_many_fields(request.SerializeToString(), SEGMENT)
        within = pb.SegmentStreamRequest(segment=pb.StreamPrompts(prompts=request.prompts))
        assert not has_too_many_fields(within.SerializeToString(), STREAM)
    grid = pb.GenerateMasksRequest(grid=pb.PointGrid(points=[0.5] * 524_288))
    assert not has_too_many_fields(grid.SerializeToString(), pb.GenerateMasksRequest.DESCRIPTOR)
    chunk = encoder_pb2.EncodeImageRequest(chunk=b"\x1a\x00" * (1 << 20))
    assert not has_too_many_fields(chunk.SerializeToString(), encoder_pb2.EncodeImageRequest.DESCRIPTOR)


@pytest.mark.parametrize(
    "data",
    [
        b"\x1a\x00" * (1 << 22),  # prompts
        b"\xf8\x7f\x01" * (1 << 22),  # numbers that are not known
        b"\x1a\x80\x80\x80\x04" + b"\x12\x00" * (1 << 22),  # points of one prompt
        b"\x1a\x80\x80\x80\x04" + b"\x32\x00" * (1 << 22),  # steps
        b"\x1b" * (1 << 23),  # groups
    ],
)
def test_many_small_fields_are_noticed_at_once(data: bytes) -> None:
    started = time.process_time()
    assert has_too_many_fields(data, SEGMENT)
    assert time.process_time() - started < 0.5


@given(st.binary(min_size=1, max_size=200))
def test_damaged_messages_are_left_to_the_parser(data: bytes) -> None:
    has_too_many_fields(data * (70_000 // len(data)), SEGMENT)
