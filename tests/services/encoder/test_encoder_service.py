"""EncoderService over real sockets, by the generated stubs."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2
from maskwire import Client, ImageNotFound
from maskwire.v1 import decoder_pb2, encoder_pb2, encoder_pb2_grpc, types_pb2
from maskwire_core.models.registry import add, describe
from maskwire_core.storage.embedding import unpack
from maskwire_core.storage.store import Store

from testing import small_model
from testing.servers import Stack, server
from testing.wire import described, details, failing, frames, header, picture


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


def test_frames_of_videos_are_embeddings_of_their_own_that_may_expire_soon(encoder: Any) -> None:
    data = picture(6)
    resize, fp32 = encoder_pb2.RESIZE_VIDEO_FRAME, types_pb2.DATA_TYPE_FP32
    found = [
        encoder.EncodeImage(frames(data, **fields)).image
        for fields in ({}, {"resize": resize}, {"resize": resize, "stored_as": fp32, "ttl_s": 60})
    ]
    assert len({image.content_key for image in found}) == 3
    assert found[2].stored_bytes > 1.9 * found[1].stored_bytes
    lives_s = [image.expires_at.ToSeconds() - time.time() for image in found]
    assert lives_s[2] < 61 < 80_000 < min(lives_s[:2])


def test_an_embedding_may_be_returned_instead_of_stored(encoder: Any, stack: Stack) -> None:
    data = picture(7)
    how = {"resize": encoder_pb2.RESIZE_VIDEO_FRAME, "stored_as": types_pb2.DATA_TYPE_FP32, "namespace": "returned"}
    with contextlib.closing(Store(stack.redis_url)) as store, store.connections.commands() as client:
        returned = unpack(b"".join(part.chunk for part in encoder.EmbedImage(frames(data, **how))))
        assert not list(client.scan_iter("maskwire:*returned*"))
        key = encoder.EncodeImage(frames(data, **how)).image.content_key
        stored = store.get_embedding("returned", key)
    assert stored is not None
    for name, tensor in stored.tensors.items():
        np.testing.assert_array_equal(returned.tensors[name], tensor)
    assert replace(returned.header, created_at=0) == replace(stored.header, created_at=0)
    for field, value in (("image_id", "seven"), ("ttl_s", 5), ("region_of", "b" * 64)):
        refused = failing(lambda field=field, value=value: list(encoder.EmbedImage(frames(data, **{field: value}))))
        assert refused == ("INVALID_ARGUMENT", "NOT_STORED", f"header.{field}")
    wrong = frames(data, sha256=b"x" * 32)
    assert failing(lambda: list(encoder.EmbedImage(wrong))) == ("INVALID_ARGUMENT", "DIGEST_MISMATCH", "chunk")


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
        ({"size_bytes": 0}, ("INVALID_ARGUMENT", "EMPTY_IMAGE", "image")),
        ({"size_bytes": 1 << 40}, ("RESOURCE_EXHAUSTED", "IMAGE_TOO_LARGE", "image")),
        ({"resize": 9}, ("INVALID_ARGUMENT", "BAD_RESIZE", "header.resize")),
        ({"stored_as": 9}, ("INVALID_ARGUMENT", "BAD_DATA_TYPE", "header.stored_as")),
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
    assert failing(lambda: encoder.EncodeImage(frames(text))) == ("INVALID_ARGUMENT", "IMAGE_UNREADABLE", "image")
    half = picture(4)[:-300]
    assert failing(lambda: encoder.EncodeImage(frames(half))) == ("INVALID_ARGUMENT", "IMAGE_UNREADABLE", "image")


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
    seed = random.getrandbits(40)  # of images that no other test has embedded
    known = picture(seed)
    encoder.EncodeImage(frames(known))
    files = {"a": picture(seed + 1), "b": picture(seed + 2), "bad": b"no image at all", "known": known}
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
            assert needed[name].wait(30), wanted
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
    assert described(wanted["bad"].error) == ("IMAGE_UNREADABLE", "image")
    assert described(wanted["early"].error) == ("UNEXPECTED_CHUNK", "chunk")
    assert described(wanted["wrong"].error) == ("BAD_DIGEST", "header.sha256")


async def _write_until_it_is_held_up(stack: Stack) -> tuple[int, int]:
    """Requests without sense to somebody who reads no answer. Returns how many were taken, and answers to them."""
    async with grpc.aio.insecure_channel(stack.encoder) as channel:
        stream = encoder_pb2_grpc.EncoderServiceStub(channel).EncodeImages()
        written = 0
        with contextlib.suppress(TimeoutError):
            while written < 100_000:
                request = encoder_pb2.EncodeImagesRequest(request_id=str(written), chunk=bytes(1000))
                await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(stream.write(request))), 3)
                written += 1
        answers = [await stream.read() for _ in range(written)]
        stream.cancel()
        return written, len({answer.request_id for answer in answers})


def test_who_does_not_read_answers_is_not_read_either(stack: Stack) -> None:
    written, answered = asyncio.run(_write_until_it_is_held_up(stack))
    assert written < 20_000
    assert answered == written


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
            for version in ("v1", "v1alpha"):
                ask = reflecting(channel, version)
                listed = ask(reflection_pb2.ServerReflectionRequest(list_services="")).list_services_response
                names = {entry.name for entry in listed.service}
                known = {"grpc.health.v1.Health", *(f"grpc.reflection.{v}.ServerReflection" for v in ("v1", "v1alpha"))}
                assert names == {f"maskwire.v1.{service}", *known}
                for name in names:  # as grpcurl does for "describe"
                    answer = ask(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
                    files = answer.file_descriptor_response.file_descriptor_proto
                    (file, *_) = (FileDescriptorProto.FromString(one) for one in files)
                    assert name.startswith(file.package)
                    assert name.removeprefix(f"{file.package}.") in [one.name for one in file.service]


def reflecting(
    channel: grpc.Channel, version: str
) -> Callable[[reflection_pb2.ServerReflectionRequest], reflection_pb2.ServerReflectionResponse]:
    """A call of a version of the reflection service; the versions' messages have the same bytes."""
    call: Any = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return lambda request: next(iter(call(iter([request]))))


def test_one_encoder_serves_several_models(valkey: str, tmp_path: Path) -> None:
    small = small_model.options(tmp_path)
    add(tmp_path, describe("mine", small["config"], Path(small["checkpoint"])))
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
        assert client.segment("by-name", outputs=("logits",)).logits.shape == (32, 32)
        with pytest.raises(ImageNotFound, match="no model 'hiera_tiny'; choose from demo, mine"):
            client.embed(data, model="hiera_tiny")
