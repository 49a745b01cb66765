"""The contract over real sockets, by the generated stubs."""

import hashlib
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import redis
from conftest import Stack, server, store_server
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from maskwire import Client, ImageNotFound
from maskwire.cli.up import _store_program
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc
from maskwire.v1 import types_pb2 as pb
from maskwire_core.models import add
from PIL import Image
from reference import TINY


def picture(seed: int, width: int = 60, height: int = 40) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def header(data: bytes, **fields: Any) -> encoder_pb2.EncodeImageHeader:
    digest = hashlib.sha256(data).digest()
    return encoder_pb2.EncodeImageHeader(**{"sha256": digest, "size_bytes": len(data), **fields})


def frames(data: bytes, chunk: int = 1000, **fields: Any) -> Iterator[encoder_pb2.EncodeImageRequest]:
    yield encoder_pb2.EncodeImageRequest(header=header(data, **fields))
    for start in range(0, len(data), chunk):
        yield encoder_pb2.EncodeImageRequest(chunk=data[start : start + chunk])


@pytest.fixture(scope="module")
def encoder(stack: Stack) -> Iterator[Any]:
    with grpc.insecure_channel(stack.encoder) as channel:
        yield encoder_pb2_grpc.EncoderServiceStub(channel)


@pytest.fixture(scope="module")
def decoder(stack: Stack) -> Iterator[Any]:
    with grpc.insecure_channel(stack.decoder) as channel:
        yield decoder_pb2_grpc.DecoderServiceStub(channel)


def details(error: grpc.RpcError) -> tuple[str, str, str]:
    """Status code, reason and field of a failed call."""
    trailers = dict(error.trailing_metadata())  # type: ignore[attr-defined]
    return (error.code().name, *described(Status.FromString(trailers["grpc-status-details-bin"])))  # type: ignore[attr-defined]


def described(status: Status) -> tuple[str, str]:
    info, bad = ErrorInfo(), BadRequest()
    for detail in status.details:
        if not detail.Unpack(info):
            detail.Unpack(bad)
    assert info.domain == "maskwire"
    return info.reason, bad.field_violations[0].field if bad.field_violations else ""


def failing(call: Any) -> tuple[str, str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return details(caught.value)


def test_an_image_is_encoded_once_under_any_name(encoder: Any) -> None:
    data = picture(1)
    first = encoder.EncodeImage(frames(data, image_id="one"))
    assert (first.cached, first.image.image_id, first.image.namespace) == (False, "one", "default")
    assert (first.image.width_px, first.image.height_px, first.image.model) == (60, 40, "demo")
    assert first.timings.encode_ms > 0
    second = encoder.EncodeImage(frames(data))
    assert second.cached
    assert second.image.content_key == first.image.content_key
    assert second.image.image_id not in ("", "one")
    assert second.timings.encode_ms == 0
    assert not encoder.EncodeImage(frames(data, namespace="other")).cached


def test_the_server_answers_without_the_chunks_when_it_has_the_image(encoder: Any) -> None:
    data = picture(2)
    encoder.EncodeImage(frames(data))
    answered = threading.Event()

    def only_the_header() -> Iterator[encoder_pb2.EncodeImageRequest]:
        yield encoder_pb2.EncodeImageRequest(header=header(data, image_id="two"))
        assert answered.wait(30)  # the stream stays open, no byte of the image is sent

    response = encoder.EncodeImage(only_the_header())
    answered.set()
    assert response.cached
    assert response.image.image_id == "two"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"sha256": b"short"}, ("INVALID_ARGUMENT", "BAD_DIGEST", "header.sha256")),
        ({"size_bytes": 0}, ("INVALID_ARGUMENT", "EMPTY_IMAGE", "header.size_bytes")),
        ({"size_bytes": 1 << 40}, ("RESOURCE_EXHAUSTED", "IMAGE_TOO_LARGE", "header.size_bytes")),
        ({"sha256": b"x" * 32}, ("INVALID_ARGUMENT", "DIGEST_MISMATCH", "chunk")),
        ({"size_bytes": 10}, ("INVALID_ARGUMENT", "TOO_MANY_BYTES", "chunk")),
        ({"namespace": "a/b"}, ("INVALID_ARGUMENT", "BAD_NAMESPACE", "namespace")),
        ({"image_id": "a\nb"}, ("INVALID_ARGUMENT", "BAD_IMAGE_ID", "image_id")),
        ({"image_id": "a" * 300}, ("INVALID_ARGUMENT", "BAD_IMAGE_ID", "image_id")),
        ({"model": "sam2.1_hiera_large"}, ("NOT_FOUND", "MODEL_NOT_FOUND", "model")),
    ],
)
def test_bad_headers_are_refused(encoder: Any, fields: dict[str, Any], expected: tuple[str, str, str]) -> None:
    data = picture(3)
    assert failing(lambda: encoder.EncodeImage(frames(data, **fields))) == expected


def test_bad_uploads_are_refused(encoder: Any) -> None:
    assert failing(lambda: encoder.EncodeImage(iter(()))) == ("INVALID_ARGUMENT", "HEADER_MISSING", "header")
    chunk_first = [encoder_pb2.EncodeImageRequest(chunk=b"x")]
    assert failing(lambda: encoder.EncodeImage(iter(chunk_first))) == ("INVALID_ARGUMENT", "HEADER_MISSING", "header")
    text = b"this is no image"
    assert failing(lambda: encoder.EncodeImage(frames(text))) == ("INVALID_ARGUMENT", "IMAGE_UNREADABLE", "chunk")
    half = picture(4)[:-300]
    assert failing(lambda: encoder.EncodeImage(frames(half))) == ("INVALID_ARGUMENT", "IMAGE_UNREADABLE", "chunk")


def test_a_false_claim_of_a_digest_harms_nobody(encoder: Any) -> None:
    """Somebody uploads other bytes under an image's digest while its owner embeds it."""
    data = picture(5)
    claim = header(data)

    def slowly() -> Iterator[encoder_pb2.EncodeImageRequest]:
        yield encoder_pb2.EncodeImageRequest(header=claim)
        time.sleep(0.1)
        yield encoder_pb2.EncodeImageRequest(chunk=bytes(len(data)))

    thief = encoder.EncodeImage.future(slowly())
    assert not encoder.EncodeImage(frames(data)).cached
    assert details(thief.exception())[1] == "DIGEST_MISMATCH"


def test_concurrent_uploads_of_one_image_are_one_encode(encoder: Any) -> None:
    data = picture(6, 700, 500)
    calls = [encoder.EncodeImage.future(frames(data, image_id=f"same-{index}")) for index in range(12)]
    assert sorted(call.result().cached for call in calls) == [False] + [True] * 11


def test_bytes_that_come_late_are_not_encoded_again(encoder: Any) -> None:
    data = picture(61, 300, 200)
    stored = threading.Event()

    def late() -> Iterator[encoder_pb2.EncodeImageRequest]:
        for frame in frames(data, image_id="late"):
            yield frame
            assert frame.WhichOneof("frame") == "chunk" or stored.wait(30)

    waiting = encoder.EncodeImage.future(late())
    waiting.initial_metadata()  # it has been told that its bytes are needed
    assert not encoder.EncodeImage(frames(data)).cached
    stored.set()
    assert waiting.result().cached


def test_an_upload_that_breaks_off_is_answered(encoder: Any) -> None:
    data = picture(62)
    needed = threading.Event()

    def requests() -> Iterator[encoder_pb2.EncodeImagesRequest]:
        yield encoder_pb2.EncodeImagesRequest(request_id="half", header=header(data))
        yield encoder_pb2.EncodeImagesRequest(request_id="half", header=header(data))
        assert needed.wait(30)
        yield encoder_pb2.EncodeImagesRequest(request_id="half", chunk=data[:100])

    outcomes = []
    for response in encoder.EncodeImages(requests(), timeout=60):
        if response.WhichOneof("outcome") == "content_needed":
            needed.set()
        else:
            outcomes.append(described(response.error))
    assert outcomes == [("REQUEST_ID_IN_USE", "request_id"), ("INCOMPLETE", "chunk")]


def test_many_images_on_one_stream(encoder: Any) -> None:
    """Frames are mixed, one file is bad, one is known; the stream answers all and lives on."""
    known = picture(7)
    encoder.EncodeImage(frames(known))
    files = {"a": picture(8), "b": picture(9), "bad": b"no image at all", "known": known}
    wanted: dict[str, Any] = {}
    needed = {name: threading.Event() for name in files}

    def requests() -> Iterator[encoder_pb2.EncodeImagesRequest]:
        yield encoder_pb2.EncodeImagesRequest(request_id="early", chunk=b"x")
        for name, data in files.items():
            yield encoder_pb2.EncodeImagesRequest(request_id=name, header=header(data, image_id=f"many-{name}"))
        yield encoder_pb2.EncodeImagesRequest(request_id="wrong", header=header(b"x", sha256=b""))
        parts = {name: [data[i : i + 500] for i in range(0, len(data), 500)] for name, data in files.items()}
        del parts["known"]
        for name in parts:
            assert needed[name].wait(30)
        while any(parts.values()):
            for name, rest in parts.items():
                if rest:
                    yield encoder_pb2.EncodeImagesRequest(request_id=name, chunk=rest.pop(0))

    for response in encoder.EncodeImages(requests(), timeout=60):
        if response.WhichOneof("outcome") == "content_needed":
            needed[response.request_id].set()
        else:
            assert response.request_id not in wanted
            wanted[response.request_id] = response
    assert set(wanted) == {"early", "a", "b", "bad", "known", "wrong"}
    assert not wanted["a"].result.cached
    assert wanted["b"].result.image.image_id == "many-b"
    assert wanted["known"].result.cached
    assert described(wanted["bad"].error) == ("IMAGE_UNREADABLE", "chunk")
    assert described(wanted["early"].error) == ("UNEXPECTED_CHUNK", "chunk")
    assert described(wanted["wrong"].error) == ("BAD_DIGEST", "header.sha256")


def test_get_and_delete(encoder: Any, decoder: Any) -> None:
    data = picture(10)
    stored = encoder.EncodeImage(frames(data, image_id="ten")).image
    got = encoder.GetImage(encoder_pb2.GetImageRequest(image_id="ten")).image
    assert (got.content_key, got.stored_bytes, got.model) == (stored.content_key, stored.stored_bytes, "demo")
    assert 0 < got.expires_at.ToSeconds() - time.time() <= 86_400
    foreign = encoder_pb2.GetImageRequest(image_id="ten", namespace="other")
    missing = ("NOT_FOUND", "IMAGE_NOT_FOUND", "image_id")
    assert failing(lambda: encoder.GetImage(foreign)) == missing
    encoder.EncodeImage(frames(data, image_id="alias"))
    delete = encoder_pb2.DeleteImageRequest(image_id="ten", delete_embedding=True)
    assert encoder.DeleteImage(delete).deleted
    assert not encoder.DeleteImage(delete).deleted
    assert failing(lambda: encoder.GetImage(encoder_pb2.GetImageRequest(image_id="ten"))) == missing
    assert failing(lambda: decoder.Segment(decoder_pb2.SegmentRequest(image_id="ten"))) == missing
    gone = ("NOT_FOUND", "EMBEDDING_EXPIRED", "image_id")
    assert failing(lambda: encoder.GetImage(encoder_pb2.GetImageRequest(image_id="alias"))) == gone
    assert failing(lambda: decoder.Segment(decoder_pb2.SegmentRequest(image_id="alias"))) == gone


def test_models_health_and_reflection(encoder: Any, stack: Stack) -> None:
    (model,) = encoder.ListModels(encoder_pb2.ListModelsRequest()).models
    assert (model.name, model.image_size_px, model.is_default) == ("demo", 512, True)
    assert "demonstration" in model.note
    for address, service in ((stack.encoder, "EncoderService"), (stack.decoder, "DecoderService")):
        with grpc.insecure_channel(address) as channel:
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            (response,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
            names = {entry.name for entry in response.list_services_response.service}
            assert {f"maskwire.v1.{service}", "grpc.health.v1.Health"} <= names


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
    two = 2 * 4_194_304 + 1000  # an embedding of the demo model has 1,048,576 fp32 values
    cache = ("--cache-bytes", str(two))
    with server("maskwire_decoder", stack.redis_url, *cache) as address, grpc.insecure_channel(address) as channel:
        decoder = decoder_pb2_grpc.DecoderServiceStub(channel)

        def in_memory(seed: int) -> bool:
            return bool(decoder.Segment(decoder_pb2.SegmentRequest(image_id=f"lru-{seed}")).timings.in_memory)

        assert [in_memory(seed) for seed in (15, 16, 15, 16)] == [False, False, True, True]
        assert not in_memory(17)  # drops 15
        assert [in_memory(seed) for seed in (16, 17, 15)] == [True, True, False]


def test_one_encoder_serves_several_models(valkey: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    add(tmp_path, "mine", TINY, tiny_checkpoint)
    options = ("--models", str(tmp_path), "--model", "demo", "--model", "mine")
    with (
        server("maskwire_decoder", valkey) as decoder,
        server("maskwire_encoder", valkey, *options) as encoder,
        Client(encoder, decoder) as client,
    ):
        assert [(model.name, model.is_default) for model in client.models()] == [("demo", True), ("mine", False)]
        data = picture(70)
        assert client.embed(data, "by-default").model == "demo"
        own = client.embed(data, "by-name", model="mine")
        assert (own.model, own.cached) == ("mine", False)
        assert client.segment("by-default", outputs=("logits",)).logits.shape == (128, 128)
        assert client.segment("by-name", outputs=("logits",)).logits.shape == (256, 256)
        with pytest.raises(ImageNotFound, match="serves demo, mine, not 'hiera_tiny'"):
            client.embed(data, model="hiera_tiny")


def test_cached_images_still_answer_while_the_store_is_away(photo: Path) -> None:
    """And what is not cached is UNAVAILABLE soon, with a reason."""
    with store_server(_store_program()) as url, server("maskwire_decoder", url, "--redis-timeout-s", "1") as address:
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
