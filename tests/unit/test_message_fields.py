"""Messages of more fields than any request needs are refused before they are parsed."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import encoder_pb2, types_pb2
from maskwire_core.rpc.message_fields import MOST_FIELDS, count_fields

SEGMENT, STREAM = pb.SegmentRequest.DESCRIPTOR, pb.SegmentStreamRequest.DESCRIPTOR


def has_few(data: bytes, kind: Any) -> bool:
    return count_fields(data, kind) < MOST_FIELDS


def test_the_largest_requests_that_are_answered_pass() -> None:
    point = types_pb2.Point(x_px=300.5, y_px=200.5, label=0)
    clicks = pb.SegmentRequest(prompts=128 * [types_pb2.Prompt(prompt_id="object", points=256 * [point])])
    steps = pb.SegmentRequest(prompts=10 * [types_pb2.Prompt(steps=1000 * [types_pb2.Step(add_point=point)])])
    logits = types_pb2.Logits(height=256, width=256, data_type=types_pb2.DATA_TYPE_FP32, data=bytes(1 << 18))
    masks = pb.SegmentRequest(prompts=128 * [types_pb2.Prompt(mask=logits)])
    for request in (clicks, steps, masks):
        assert has_few(request.SerializeToString(), SEGMENT)
        within = pb.SegmentStreamRequest(segment=pb.StreamPrompts(prompts=request.prompts))
        assert has_few(within.SerializeToString(), STREAM)
    grid = pb.GenerateMasksRequest(grid=pb.PointGrid(points=[0.5] * 524_288))
    assert has_few(grid.SerializeToString(), pb.GenerateMasksRequest.DESCRIPTOR)
    chunk = encoder_pb2.EncodeImageRequest(chunk=b"\x1a\x00" * (1 << 20))
    assert has_few(chunk.SerializeToString(), encoder_pb2.EncodeImageRequest.DESCRIPTOR)


@pytest.mark.parametrize(
    ("start", "field"),
    [
        (b"", b"\x1a\x00"),  # prompts
        (b"", b"\xf8\x7f\x01"),  # numbers that are not known
        (b"\x1a\x80\x80\x80\x04", b"\x12\x00"),  # points of one prompt
        (b"\x1a\x80\x80\x80\x04", b"\x32\x00"),  # steps
        (b"", b"\x1b\x1b"),  # groups
    ],
)
def test_many_small_fields_are_noticed_at_once(start: bytes, field: bytes) -> None:
    """No more are looked at than may be, however many follow: 42 times as many are 42 times the work otherwise."""

    def seconds(count: int) -> float:
        data = start + field * count
        started = time.thread_time()
        assert count_fields(data, SEGMENT) == MOST_FIELDS
        return time.thread_time() - started

    few, many = (min(seconds(count) for _ in range(3)) for count in (MOST_FIELDS, 1 << 22))
    assert many < 10 * few


@given(st.binary(min_size=1, max_size=200))
def test_damaged_messages_are_left_to_the_parser(data: bytes) -> None:
    count_fields(data * (70_000 // len(data)), SEGMENT)
