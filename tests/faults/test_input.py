"""Rows 31 to 35, over the wire: images, prompts, sizes and names that are wrong."""

import functools
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from maskwire import ImageNotFound, MaskwireError
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc, types_pb2
from maskwire_core.config import EncoderSettings
from PIL import Image, ImageOps

from testing.guarded import bearer, guarded_servers
from testing.processes import resident_bytes_with_children
from testing.wire import described, details, failing, frames, header, picture

from .results import Observation
from .world import World, counts

PIXELS = np.random.default_rng(31).integers(0, 256, (40, 60, 3), np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, body: bytes, *more: bytes) -> bytes:
    declared = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", declared) + b"".join(more) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@functools.cache
def zeros() -> bytes:
    """300 MB in 300 kB."""
    return zlib.compress(bytes(300_000_000), 9)


def refused_images() -> dict[str, bytes | Callable[[], bytes]]:
    """Files, or what makes them, by name."""
    rgb = Image.fromarray(PIXELS)
    jpeg = saved(rgb, "JPEG")
    return {
        "pixel bomb: 144 MP in 18 kB": lambda: png(12_000, 12_000, zlib.compress(bytes(18_000_000), 9)),
        "pixel bomb: 100,000 x 100,000": png(100_000, 100_000, b""),
        "text bomb": lambda: png(60, 40, zlib.compress(b""), chunk(b"zTXt", b"k\0\0" + zeros())),
        "empty": b"",
        "truncated JPEG": jpeg[: len(jpeg) // 2],
        "truncated PNG": saved(rgb, "PNG")[:1000],
        "HTML with a JPEG behind": b"<html><script>" + jpeg,
        "PDF": b"%PDF-1.7\n" + bytes(1000),
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }


@pytest.mark.fault(31)
@pytest.mark.parametrize("kind", refused_images())
def test_files_that_are_no_images(world: World, note: Observation, kind: str) -> None:
    server, data = world.encoders[0], refused_images()[kind]
    data = data if isinstance(data, bytes) else data()
    note.injected = f"{len(data):,} bytes"
    before, most = resident_bytes_with_children(server.pid), 0  # its readers' memory, too
    with world.stub(server) as stub:
        if data:
            call = stub.EncodeImage.future(frames(data, 60_000), timeout=30)
            while not call.done():
                most = max(most, resident_bytes_with_children(server.pid))
            error = call.exception()
            assert error is not None
            code, reason, _ = details(error)
        else:
            code, reason, _ = failing(lambda: stub.EncodeImage(iter([upload_header(data)])))
    grown = max(0, most - before) >> 20
    assert code == "INVALID_ARGUMENT"
    assert reason == {"empty": "EMPTY_IMAGE"}.get(
        kind, "IMAGE_TOO_LARGE" if "pixel bomb" in kind else "IMAGE_UNREADABLE"
    )
    assert grown < 100
    note.observed = f"INVALID_ARGUMENT ({reason}); memory at most {grown} MiB higher meanwhile"


def upload_header(data: bytes) -> encoder_pb2.EncodeImageRequest:
    return encoder_pb2.EncodeImageRequest(header=header(data))


def shown_images() -> dict[str, tuple[bytes | Callable[[], bytes], Image.Image]]:
    """Files, or what makes them, and the picture that they must be equal to."""
    rgb = Image.fromarray(PIXELS)
    turned = Image.fromarray(PIXELS[::-1].copy())
    grey = rgb.convert("L")
    levels = np.asarray(grey).astype(np.uint16)
    alpha = Image.fromarray(np.dstack([PIXELS, np.full((40, 60), 77, np.uint8)]))
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    cmyk = saved(rgb.convert("CMYK"), "JPEG", quality=95)
    kinds: dict[str, tuple[bytes | Callable[[], bytes], Image.Image]] = {
        "300 MB behind the pixels": (lambda: png(60, 40, zeros()), Image.new("RGB", (60, 40))),
        "CMYK": (cmyk, Image.open(io.BytesIO(cmyk)).convert("RGB")),
        "16-bit": (saved(Image.fromarray(levels * 256 + 200), "PNG"), grey.convert("RGB")),
        "grey": (saved(grey, "PNG"), grey.convert("RGB")),
        "palette": (saved(palette, "PNG"), palette.convert("RGB")),
        "alpha": (saved(alpha, "PNG"), Image.alpha_composite(Image.new("RGBA", alpha.size, "white"), alpha)),
        "animated WebP": (saved(rgb, "WEBP", lossless=True, save_all=True, append_images=[turned], duration=9), rgb),
        "animated PNG": (saved(rgb, "PNG", save_all=True, append_images=[turned]), rgb),
        "multi-page TIFF": (saved(rgb, "TIFF", save_all=True, append_images=[turned]), rgb),
        "JPEG with HTML behind": (saved(rgb, "JPEG") + b"<html>", Image.open(io.BytesIO(saved(rgb, "JPEG")))),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x112] = orientation
        data = saved(rgb, "PNG", exif=exif)
        shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        kinds[f"EXIF {orientation}"] = (data, shown)
    return kinds


@pytest.mark.fault(32)
@pytest.mark.parametrize("kind", shown_images())
def test_odd_images_are_what_a_viewer_shows(world: World, note: Observation, kind: str) -> None:
    note.injected = "a file of this kind, and the plain RGB PNG of what a viewer shows"
    data, shown = shown_images()[kind]
    with world.client() as client:
        odd = client.segment(data if isinstance(data, bytes) else data(), points=[(30, 20)])
        plain = client.segment(saved(shown.convert("RGB"), "PNG"), points=[(30, 20)])
    assert counts(odd) == counts(plain)
    assert odd.mask.shape == (shown.height, shown.width)
    note.observed = "equal masks"


Change = Callable[[types_pb2.Prompt], Any]
NAN, INF = float("nan"), float("inf")
PROMPTS: dict[str, tuple[types_pb2.Prompt, str]] = {
    "NaN": (types_pb2.Prompt(points=[types_pb2.Point(x_px=NAN, y_px=1)]), "points[0].x_px"),
    "infinity": (types_pb2.Prompt(points=[types_pb2.Point(x_px=1, y_px=-INF)]), "points[0].y_px"),
    "out of range": (types_pb2.Prompt(points=[types_pb2.Point(x_px=61, y_px=1)]), "points[0].x_px"),
    "bad label": (types_pb2.Prompt(points=[types_pb2.Point(x_px=1, y_px=1, label=7)]), "points[0].label"),
    "10,000 points": (types_pb2.Prompt(points=[types_pb2.Point(x_px=1, y_px=1)] * 10_000), "points"),
    "empty box": (types_pb2.Prompt(box=types_pb2.Box(x_min_px=9, x_max_px=3, y_max_px=9)), "box"),
}


@pytest.mark.fault(33)
@pytest.mark.parametrize("kind", PROMPTS)
def test_prompts_are_wrong(world: World, note: Observation, kind: str) -> None:
    note.injected = "alone, and between right prompts on a stream"
    prompt, path = PROMPTS[kind]
    stored = world.calm.embed(picture(330))
    named = {"image_id": "x", "namespace": "calm", "content_key": stored.content_key}
    right = types_pb2.Prompt(points=[types_pb2.Point(x_px=30, y_px=20)])
    with world.stub(world.decoders[0]) as stub:
        code, reason, field = failing(
            lambda: stub.Segment(decoder_pb2.SegmentRequest(**named, prompts=[right, prompt]))
        )
        messages = [decoder_pb2.SegmentStreamRequest(request_id="0", set_image=decoder_pb2.SetImage(**named))]
        for index, asked in enumerate((right, prompt, right), 1):
            segment = decoder_pb2.StreamPrompts(prompts=[asked])
            messages.append(decoder_pb2.SegmentStreamRequest(request_id=str(index), segment=segment))
        _, first, wrong, last = list(stub.SegmentStream(iter(messages)))
    assert (code, field) == ("INVALID_ARGUMENT", f"prompts[1].{path}")
    assert described(wrong.error) == (reason, f"prompts[0].{path}")
    assert wrong.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    for answer in (first, last):
        assert answer.result.results[0].masks[0].rle.counts == world.right(330)
    note.observed = f"INVALID_ARGUMENT ({reason}) at {field}; the stream answered the next prompt rightly"


@pytest.mark.fault(33, variant="no message")
def test_bytes_that_are_no_message(world: World, note: Observation) -> None:
    note.injected = "bytes that are no protobuf, to a unary call and to a stream"
    with grpc.insecure_channel(world.decoders[0].address) as channel:
        segment, stream = "/maskwire.v1.DecoderService/Segment", "/maskwire.v1.DecoderService/SegmentStream"
        unary = failing(lambda: channel.unary_unary(segment)(b"\xff\xff\xff"))
        streamed = failing(lambda: list(channel.stream_stream(stream)(iter([b"\xff\xff\xff"]))))
    assert unary == streamed == ("INVALID_ARGUMENT", "UNREADABLE_MESSAGE", "")
    note.observed = "INVALID_ARGUMENT (UNREADABLE_MESSAGE), where grpc alone says UNKNOWN or INTERNAL"


@pytest.mark.fault(34)
def test_messages_are_too_large(world: World, note: Observation) -> None:
    note.injected = "a message of 65 MiB to each server, and an image declared larger than the limit"
    settings = EncoderSettings(_cli_parse_args=False)  # type: ignore[call-arg]
    limit = settings.max_image_bytes
    told = []
    for server, method, message in (
        (world.decoders[0], "DecoderService/Segment", decoder_pb2.SegmentRequest(image_id="x" * (65 << 20))),
        (world.encoders[0], "EncoderService/GetImage", encoder_pb2.GetImageRequest(image_id="x" * (65 << 20))),
    ):
        with grpc.insecure_channel(server.address, options=[("grpc.max_send_message_length", -1)]) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/maskwire.v1.{method}")(message.SerializeToString(), timeout=30)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
            told.append(caught.value.details())  # type: ignore[attr-defined]
            assert str(settings.max_request_bytes) in told[-1]
    with world.stub(world.encoders[0]) as stub:
        large = encoder_pb2.EncodeImageRequest(header=header(b"x"))
        large.header.size_bytes = limit + 1
        with pytest.raises(grpc.RpcError) as caught:
            stub.EncodeImage(iter([large]))
        assert details(caught.value)[:2] == ("RESOURCE_EXHAUSTED", "IMAGE_TOO_LARGE")
        assert str(limit) in str(caught.value.details())  # type: ignore[attr-defined]
    world.check(world.calm, 340)
    note.observed = f'RESOURCE_EXHAUSTED, "{told[0]}"; for the image IMAGE_TOO_LARGE with the limit of {limit} bytes'


@pytest.mark.fault(35, variant="namespaces")
def test_names_of_others_and_forged_ones(world: World, note: Observation) -> None:
    note.injected = "another namespace's name, its content key, and made-up ones, to both servers"
    with world.client(namespace="owner") as owner, world.client(namespace="thief", retry_s=0) as thief:
        stored = owner.embed(picture(350), image_id="secret")
        for server in world.decoders:  # both have it in memory
            with world.client(namespace="owner", decoder=[server]) as person:
                person.segment(image_id="secret", points=[(30, 20)])
        messages = set()
        for name in ("secret", "no such name"):
            with pytest.raises(ImageNotFound) as caught:
                thief.segment(image_id=name)
            messages.add((caught.value.reason, caught.value.message.replace(name, "")))
            with pytest.raises(ImageNotFound) as caught:
                thief.get(name)
            assert not thief.delete(name, embedding=True)
        assert len(messages) == 1
        point = types_pb2.Prompt(points=[types_pb2.Point(x_px=30, y_px=20)])
        answers = set()
        with world.stub(world.decoders[0]) as stub:
            for key in (stored.content_key, "0" * 64):
                request = decoder_pb2.SegmentRequest(
                    image_id="secret", namespace="thief", content_key=key, prompts=[point]
                )
                answers.add(failing(lambda request=request: stub.Segment(request)))
        assert answers == {("NOT_FOUND", "EMBEDDING_EXPIRED", "image_id")}
        assert owner.segment(image_id="secret", points=[(30, 20)]).rle
        with pytest.raises(MaskwireError):
            thief.segment(image_id="../owner/secret")
    note.observed = "NOT_FOUND, in the same words for what exists elsewhere and for what does not; the owner's stayed"


@pytest.mark.fault(35, variant="tokens")
def test_a_token_opens_no_image_of_others(tmp_path: Path, note: Observation) -> None:
    note.injected = "another tenant's name, content key and namespace, with a valid token of one's own"
    point = types_pb2.Prompt(points=[types_pb2.Point(x_px=30, y_px=20)])
    with (
        guarded_servers(tmp_path) as guarded,
        grpc.insecure_channel(guarded.encoder) as to_encoder,
        grpc.insecure_channel(guarded.decoder) as to_decoder,
    ):
        encoder = encoder_pb2_grpc.EncoderServiceStub(to_encoder)
        decoder = decoder_pb2_grpc.DecoderServiceStub(to_decoder)
        owner, thief = bearer(guarded.token("owner")), bearer(guarded.token("thief"))
        sent = frames(picture(351), image_id="secret")
        stored = encoder.EncodeImage(sent, metadata=owner).image
        for namespace in ("", "owner"):
            answers = set()
            for name in ("secret", "no such name"):
                segment = decoder_pb2.SegmentRequest(image_id=name, namespace=namespace, prompts=[point])
                generate = decoder_pb2.GenerateMasksRequest(image_id=name, namespace=namespace)
                get = encoder_pb2.GetImageRequest(image_id=name, namespace=namespace)
                answers |= {
                    failing(lambda segment=segment: decoder.Segment(segment, metadata=thief)),
                    failing(lambda generate=generate: next(decoder.GenerateMasks(generate, metadata=thief))),
                    failing(lambda get=get: encoder.GetImage(get, metadata=thief)),
                }
            assert answers == {("NOT_FOUND", "IMAGE_NOT_FOUND", "image_id")}
            keys = set()
            for key in (stored.content_key, "0" * 64):
                by_key = decoder_pb2.SegmentRequest(
                    image_id="secret", namespace=namespace, content_key=key, prompts=[point]
                )
                keys.add(failing(lambda by_key=by_key: decoder.Segment(by_key, metadata=thief)))
            assert keys == {("NOT_FOUND", "EMBEDDING_EXPIRED", "image_id")}
            delete = encoder_pb2.DeleteImageRequest(image_id="secret", namespace=namespace, delete_embedding=True)
            assert not encoder.DeleteImage(delete, metadata=thief).deleted
            listed = encoder_pb2.ListImagesRequest(namespace=namespace)
            assert not encoder.ListImages(listed, metadata=thief).images
        upload = frames(picture(352), image_id="secret", namespace="owner")
        assert failing(lambda: encoder.EncodeImage(upload, metadata=thief))[:2] == (
            "PERMISSION_DENIED",
            "NAMESPACE_DENIED",
        )
        request = decoder_pb2.SegmentRequest(image_id="secret", prompts=[point])
        assert decoder.Segment(request, metadata=owner).results
    note.observed = (
        "NOT_FOUND, alike for what exists and what does not; an upload PERMISSION_DENIED; the owner's stayed"
    )
