"""DecoderService over real sockets, by the generated stubs."""

import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis
from maskwire.cli.local_store import store_program
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2_grpc
from maskwire.v1 import types_pb2 as pb

from testing.servers import Stack, server, store_server
from testing.wire import described, failing, frames, picture

POINT = pb.Point(x_px=30, y_px=20)
NAN = float("nan")


@pytest.mark.parametrize(
    ("prompt", "reason", "field"),
    [
        (pb.Prompt(points=[POINT, pb.Point(x_px=NAN, y_px=1)]), "OUT_OF_IMAGE", "prompts[1].points[1].x_px"),
        (pb.Prompt(points=[pb.Point(x_px=1, y_px=float("inf"))]), "OUT_OF_IMAGE", "prompts[1].points[0].y_px"),
        (pb.Prompt(points=[pb.Point(x_px=61, y_px=1)]), "OUT_OF_IMAGE", "prompts[1].points[0].x_px"),
        (pb.Prompt(points=[pb.Point(x_px=-0.1, y_px=1)]), "OUT_OF_IMAGE", "prompts[1].points[0].x_px"),
        (pb.Prompt(points=[pb.Point(x_px=1, y_px=1, label=2)]), "BAD_LABEL", "prompts[1].points[0].label"),
        (pb.Prompt(points=[POINT] * 10_000), "TOO_MANY_POINTS", "prompts[1].points"),
        (pb.Prompt(box=pb.Box(x_min_px=9, x_max_px=3, y_max_px=9)), "EMPTY_BOX", "prompts[1].box"),
        (pb.Prompt(box=pb.Box(x_max_px=3, y_max_px=41)), "OUT_OF_IMAGE", "prompts[1].box.y_max_px"),
        (pb.Prompt(box=pb.Box(x_max_px=NAN, y_max_px=4)), "OUT_OF_IMAGE", "prompts[1].box.x_max_px"),
        (pb.Prompt(mask=pb.Logits(height=4, width=4)), "BAD_MASK_SIZE", "prompts[1].mask"),
        (pb.Prompt(mask=pb.Logits(height=128, width=128)), "BAD_DATA_TYPE", "prompts[1].mask.data_type"),
        (
            pb.Prompt(mask=pb.Logits(height=128, width=128, data_type=pb.DATA_TYPE_FP16, data=b"xx")),
            "BAD_MASK_DATA",
            "prompts[1].mask.data",
        ),
        (
            pb.Prompt(mask=pb.Logits(height=128, width=128, data_type=pb.DATA_TYPE_FP16, data=b"\x00\x7c" * 128 * 128)),
            "NOT_FINITE",
            "prompts[1].mask.data",
        ),
    ],
)
def test_bad_prompts_are_refused_and_the_stream_lives_on(
    encoder: Any, decoder: Any, prompt: pb.Prompt, reason: str, field: str
) -> None:
    encoder.EncodeImage(frames(picture(11), image_id="eleven"))
    good = pb.Prompt(points=[POINT])
    request = decoder_pb2.SegmentRequest(image_id="eleven", prompts=[good, prompt])
    assert failing(lambda: decoder.Segment(request)) == ("INVALID_ARGUMENT", reason, field)

    stream = [
        decoder_pb2.SegmentStreamRequest(request_id="0", set_image=decoder_pb2.SetImage(image_id="eleven")),
        decoder_pb2.SegmentStreamRequest(request_id="1", segment=decoder_pb2.StreamPrompts(prompts=[good, prompt])),
        decoder_pb2.SegmentStreamRequest(request_id="2", segment=decoder_pb2.StreamPrompts(prompts=[good])),
    ]
    ready, refused, answered = decoder.SegmentStream(iter(stream))
    assert (ready.request_id, ready.image_ready.image.width_px) == ("0", 60)
    assert refused.request_id == "1"
    assert described(refused.error) == (reason, field)
    assert answered.request_id == "2"
    assert answered.result.results[0].masks[0].rle.counts


def test_bad_requests_are_refused(encoder: Any, decoder: Any) -> None:
    encoder.EncodeImage(frames(picture(11), image_id="eleven"))
    cases = [
        ({"image_id": ""}, "BAD_IMAGE_ID", "image_id"),
        ({"namespace": "ü"}, "BAD_NAMESPACE", "namespace"),
        ({"wait_ms": 100_000}, "BAD_WAIT", "wait_ms"),
        ({"content_key": "../x"}, "BAD_CONTENT_KEY", "content_key"),
        ({"output": pb.OutputOptions(mask_threshold=NAN)}, "NOT_FINITE", "output.mask_threshold"),
        ({"prompts": [pb.Prompt()] * 1000}, "TOO_MANY_PROMPTS", "prompts"),
        ({"output": pb.OutputOptions(formats=[77])}, "UNKNOWN_VALUE", "output.formats[0]"),
        ({"output": pb.OutputOptions(candidates=9)}, "UNKNOWN_VALUE", "output.candidates"),
    ]
    for fields, reason, field in cases:
        request = decoder_pb2.SegmentRequest(**{"image_id": "eleven", **fields})
        assert failing(lambda request=request: decoder.Segment(request)) == ("INVALID_ARGUMENT", reason, field)


def test_an_answer_that_would_be_too_large_is_refused_before_work(encoder: Any, decoder: Any) -> None:
    encoder.EncodeImage(frames(picture(63, 2000, 2000), image_id="large"))
    output = pb.OutputOptions(formats=[pb.MASK_FORMAT_PACKED_BITS], candidates=pb.CANDIDATES_ALL)
    request = decoder_pb2.SegmentRequest(image_id="large", prompts=[pb.Prompt()] * 40, output=output)
    expected = ("RESOURCE_EXHAUSTED", "ANSWER_TOO_LARGE", "output.formats")
    assert failing(lambda: decoder.Segment(request)) == expected


def test_a_content_key_means_its_image_whatever_the_name_means(encoder: Any, decoder: Any) -> None:
    first = encoder.EncodeImage(frames(picture(64, 60, 40), image_id="moving")).image
    encoder.EncodeImage(frames(picture(65, 30, 30), image_id="moving"))
    by_key = decoder_pb2.SegmentRequest(image_id="moving", content_key=first.content_key)
    assert decoder.Segment(by_key).image.width_px == 60
    assert decoder.Segment(decoder_pb2.SegmentRequest(image_id="moving")).image.width_px == 30
    foreign = decoder_pb2.SegmentRequest(image_id="moving", content_key=first.content_key, namespace="other")
    assert failing(lambda: decoder.Segment(foreign))[:2] == ("NOT_FOUND", "EMBEDDING_EXPIRED")


def test_a_stream_changes_images_and_never_answers_on_the_wrong_one(encoder: Any, decoder: Any) -> None:
    encoder.EncodeImage(frames(picture(12, 60, 40), image_id="wide"))
    encoder.EncodeImage(frames(picture(13, 30, 70), image_id="tall"))
    prompts = decoder_pb2.StreamPrompts(prompts=[pb.Prompt(points=[pb.Point(x_px=5, y_px=5)])])

    def image(name: str) -> decoder_pb2.SetImage:
        return decoder_pb2.SetImage(image_id=name)

    sequence = [
        decoder_pb2.SegmentStreamRequest(segment=prompts),
        decoder_pb2.SegmentStreamRequest(set_image=image("wide")),
        decoder_pb2.SegmentStreamRequest(segment=prompts),
        decoder_pb2.SegmentStreamRequest(set_image=image("tall")),
        decoder_pb2.SegmentStreamRequest(segment=prompts),
        decoder_pb2.SegmentStreamRequest(set_image=image("missing")),
        decoder_pb2.SegmentStreamRequest(segment=prompts),
        decoder_pb2.SegmentStreamRequest(),
    ]
    replies = list(decoder.SegmentStream(iter(sequence)))
    assert described(replies[0].error) == ("NO_IMAGE", "segment")
    assert replies[2].result.image.width_px == 60
    assert replies[4].result.image.width_px == 30
    assert described(replies[5].error)[0] == "IMAGE_NOT_FOUND"
    assert described(replies[6].error)[0] == "NO_IMAGE"
    assert described(replies[7].error)[0] == "EMPTY_REQUEST"


def test_waiting_for_an_encode_in_flight(encoder: Any, decoder: Any) -> None:
    data = picture(14, 300, 200)
    impatient = decoder_pb2.SegmentRequest(image_id="later", wait_ms=150)
    started = time.monotonic()
    assert failing(lambda: decoder.Segment(impatient))[1] == "IMAGE_NOT_FOUND"
    assert 0.1 < time.monotonic() - started < 10
    waiting = decoder.Segment.future(decoder_pb2.SegmentRequest(image_id="later", wait_ms=30_000))
    time.sleep(0.2)
    encoder.EncodeImage(frames(data, image_id="later"))
    assert waiting.result(30).image.width_px == 300


def test_the_least_recently_used_embedding_leaves_memory(encoder: Any, stack: Stack) -> None:
    for seed in (15, 16, 17):
        encoder.EncodeImage(frames(picture(seed), image_id=f"lru-{seed}"))
    # The demo model's embedding has 1,048,576 values, the projections of its 1,024 tokens 3 * 128 each; all in fp32.
    two = 2 * 4 * (1_048_576 + 1_024 * 3 * 128) + 1000
    cache = ("--cache-bytes", str(two))
    with server("maskwire_decoder", stack.redis_url, *cache) as address, grpc.insecure_channel(address) as channel:
        decoder = decoder_pb2_grpc.DecoderServiceStub(channel)

        def in_memory(seed: int) -> bool:
            return bool(decoder.Segment(decoder_pb2.SegmentRequest(image_id=f"lru-{seed}")).timings.in_memory)

        assert [in_memory(seed) for seed in (15, 16, 15, 16)] == [False, False, True, True]
        assert not in_memory(17)  # drops 15
        assert [in_memory(seed) for seed in (16, 17, 15)] == [True, True, False]


def test_cached_images_still_answer_while_the_store_is_away(photo: Path) -> None:
    """And what is not cached is UNAVAILABLE soon, with a reason."""
    with store_server(store_program()) as url, server("maskwire_decoder", url, "--redis-timeout-s", "1") as address:
        with server("maskwire_encoder", url) as encoder_address, grpc.insecure_channel(encoder_address) as channel:
            stub = encoder_pb2_grpc.EncoderServiceStub(channel)
            stub.EncodeImage(frames(photo.read_bytes(), image_id="photo"))
        with grpc.insecure_channel(address) as channel:
            decoder = decoder_pb2_grpc.DecoderServiceStub(channel)
            request = decoder_pb2.SegmentRequest(image_id="photo")
            before = decoder.Segment(request).results[0].masks[0].rle.counts
            redis.Redis.from_url(url).shutdown(nosave=True)
            assert decoder.Segment(request).results[0].masks[0].rle.counts == before
            unknown = decoder_pb2.SegmentRequest(image_id="other")
            assert failing(lambda: decoder.Segment(unknown))[:2] == ("UNAVAILABLE", "STORE_UNAVAILABLE")
