"""Damaged and random input to everything that parses: python -m tests.faults.fuzz --inputs 100000 --seed 1

Image files, stored embeddings and exported decoders go to their parsers; protobuf messages to running servers, as raw
bytes. Each must end in a value or in the error that is meant for it. Prints a report; the exit code is 1 if not.
"""

import argparse
import asyncio
import io
import json
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2
from maskwire_core.bundle import GRAPHS, DecoderBundle, DecoderConfig, DecoderGraph
from maskwire_core.codecs import CODECS
from maskwire_core.embedding import Header, pack, unpack
from maskwire_core.errors import CorruptValue, InvalidArgument
from maskwire_encoder.images import read_image
from PIL import Image
from wire import header, picture

from .world import World, counts

MAX_PIXELS = 100_000
Outcome = str
_CUT_SHORT = "answered while being written"
FINE = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "OK", _CUT_SHORT}
_SPECIAL_FLOATS = [0.0, -0.0, 1.0, -1.0, 1e30, -1e30, 1e-30, float("nan"), float("inf"), float("-inf"), 0.5, 31.5]
_SPECIAL_INTS = [0, 1, 2, 3, 127, 128, 255, 256, 65_535, 2**31 - 1]
_NAMES = ["", "fuzz", "another", "a" * 300, "\0", "é}{", "../../x", "object-1"]


# Bytes


def mutated(pick: random.Random, data: bytes) -> bytes:
    """Bytes with a few changes: flipped, overwritten, cut, repeated, or lengths made extreme."""
    changed = bytearray(data)
    for _ in range(pick.choice((1, 1, 2, 4, 16))):
        if not changed:
            break
        at = pick.randrange(len(changed))
        match pick.randrange(7):
            case 0:
                changed[at] ^= 1 << pick.randrange(8)
            case 1:
                changed[at] = pick.randrange(256)
            case 2:
                del changed[at : at + pick.choice((1, 4, 100, len(changed)))]
            case 3:
                piece = changed[at : at + pick.choice((1, 4, 100))]
                changed[at:at] = piece * pick.choice((1, 2, 20))
            case 4:
                extreme = pick.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 65_535))
                changed[at : at + 4] = struct.pack(pick.choice((">I", "<I")), extreme)
            case 5:
                changed[at : at + pick.choice((1, 8, 64))] = pick.randbytes(pick.choice((1, 8, 64)))
            case 6:
                at = pick.randrange(min(len(changed), 128))  # where formats say what they are
                changed[at] = pick.randrange(256)
    return bytes(changed)


def image_files(pick: random.Random) -> list[bytes]:
    """Real files of every format, with their rarer kinds."""
    pixels = np.random.default_rng(pick.getrandbits(32)).integers(0, 256, (37, 53, 3), np.uint8)
    rgb = Image.fromarray(pixels)
    rgba = Image.fromarray(np.dstack([pixels, pixels[:, :, :1]]))
    exif = Image.Exif()
    exif[0x112] = 6
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, "JPEG", {}),
        (rgb, "JPEG", {"exif": exif, "progressive": True}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb.convert("L"), "JPEG", {"quality": 30}),
        (rgb, "PNG", {"exif": exif}),
        (rgba, "PNG", {}),
        (rgb.convert("P"), "PNG", {"transparency": 3}),
        (Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257), "PNG", {}),
        (rgb, "PNG", {"save_all": True, "append_images": [rgb.rotate(90, expand=False)]}),
        (rgba, "WEBP", {}),
        (rgb, "WEBP", {"lossless": True}),
        (rgb, "WEBP", {"save_all": True, "append_images": [rgb], "duration": 10}),
        (rgb, "BMP", {}),
        (rgb.convert("P"), "BMP", {}),
        (rgb.convert("1"), "BMP", {}),
        *((rgb, "TIFF", {"compression": how}) for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        (rgb.convert("CMYK"), "TIFF", {}),
        (rgb, "GIF", {}),
    ]
    files = []
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def read_file(data: bytes) -> Outcome:
    try:
        pixels = read_image(data, MAX_PIXELS)
    except InvalidArgument as error:
        return error.reason
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.dtype == np.uint8
    assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
    return "pixels"


def embeddings(pick: random.Random) -> list[bytes]:
    values = np.random.default_rng(pick.getrandbits(32))
    tensors = {
        name: values.standard_normal(shape, np.float32)
        for name, shape in (("image_embed", (64, 256)), ("high_res_1", (64, 4, 64)), ("high_res_0", (64, 16, 32)))
    }
    return [pack(Header("default", "a" * 64, "m", "f", "d", 10, 20, codec, 0), tensors) for codec in CODECS]


def read_embedding(value: bytes, originals: list[bytes]) -> Outcome:
    try:
        embedding = unpack(value)
    except CorruptValue:
        return "CorruptValue"
    # The checksums let nothing through that is not what was stored; padding after the header is no part of it.
    assert any(embedding.header == unpack(original).header for original in originals)
    return "embedding"


def bundle() -> DecoderBundle:
    config = DecoderConfig("demo", "f", 512, 128, True, 0.05, 0.98)
    graphs = {name: DecoderGraph(name.encode() * 20, ("weight",)) for name in GRAPHS}
    return DecoderBundle(config, graphs, {"weight": np.ones((4, 4), np.float32)})


def read_bundle(value: bytes, digest: str) -> Outcome:
    try:
        DecoderBundle.unpack(value, digest)
    except CorruptValue:
        return "CorruptValue"
    return "decoder"


# Messages


def random_message(pick: random.Random, message: Message, depth: int = 0) -> None:
    """Fills a message in: some fields, with ordinary and extreme values."""
    chosen: set[str] = set()
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is not None and field.containing_oneof.name in chosen:
            continue
        if pick.random() < (0.4 if depth < 4 else 0.9):
            continue
        if field.containing_oneof is not None:
            chosen.add(field.containing_oneof.name)
        if field.is_repeated:
            for _ in range(pick.choice((1, 1, 2, 3, 12))):
                if field.type == FieldDescriptor.TYPE_MESSAGE:
                    random_message(pick, getattr(message, field.name).add(), depth + 1)
                else:
                    getattr(message, field.name).append(_value(pick, field))
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(message, field.name).SetInParent()
            random_message(pick, getattr(message, field.name), depth + 1)
        else:
            setattr(message, field.name, _value(pick, field))


def _value(pick: random.Random, field: Any) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return pick.choice((b"", pick.randbytes(32), pick.randbytes(2048)))
            return pick.choice(_NAMES)
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return pick.choice((*_SPECIAL_FLOATS, pick.uniform(-10, 70), pick.uniform(0, 30)))
        case FieldDescriptor.CPPTYPE_BOOL:
            return pick.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return pick.randrange(8)
    value = pick.choice((*_SPECIAL_INTS, pick.randrange(100)))
    if field.name in ("wait_ms", "points_per_side", "points_per_batch", "crop_n_layers"):
        return pick.choice((0, 1, 2, 2**31 - 1))  # what is allowed may take long, which is no mistake
    return value


class Senders:
    """Sends raw bytes to running servers.

    Args:
        world: With an image named "fuzz".
    """

    def __init__(self, world: World, pick: random.Random) -> None:
        self._pick = pick
        self._encoder = grpc.aio.insecure_channel(world.encoders[0].address)
        self._decoder = grpc.aio.insecure_channel(world.decoders[0].address)
        data = picture(400)
        upload = encoder_pb2.EncodeImageRequest(header=header(data, image_id="fuzz"))
        everything = decoder_pb2.GenerateMasksRequest(image_id="fuzz", grid=decoder_pb2.PointGrid(points_per_side=2))
        self._kinds: list[tuple[str, type[Message], list[Message], bool]] = [
            ("Segment", decoder_pb2.SegmentRequest, [_segment()], False),
            ("SegmentStream", decoder_pb2.SegmentStreamRequest, _conversation(), True),
            (
                "GenerateMasks",
                decoder_pb2.GenerateMasksRequest,
                [everything],
                False,
            ),
            ("EncodeImage", encoder_pb2.EncodeImageRequest, [upload, encoder_pb2.EncodeImageRequest(chunk=data)], True),
            (
                "EncodeImages",
                encoder_pb2.EncodeImagesRequest,
                [encoder_pb2.EncodeImagesRequest(request_id="1", header=upload.header)],
                True,
            ),
            ("GetImage", encoder_pb2.GetImageRequest, [encoder_pb2.GetImageRequest(image_id="fuzz")], False),
            ("DeleteImage", encoder_pb2.DeleteImageRequest, [encoder_pb2.DeleteImageRequest(image_id="x")], False),
        ]

    async def close(self) -> None:
        await self._encoder.close()
        await self._decoder.close()

    async def send(self) -> tuple[str, Outcome]:
        """One call. Returns its method and how it ended."""
        name, kind, real, streams = self._pick.choice(self._kinds)
        raw = [self._bytes(kind, message) for message in real]
        more = self._pick.choice((0, 0, 1, 3)) if streams else 0
        raw += [self._bytes(kind, self._pick.choice(real)) for _ in range(more)]
        service = "EncoderService" if kind.DESCRIPTOR.file.name.endswith("encoder.proto") else "DecoderService"
        channel = self._encoder if service == "EncoderService" else self._decoder
        path = f"/maskwire.v1.{service}/{name}"
        timeout = 20
        outcome = "OK"

        async def requests() -> AsyncIterator[bytes]:
            for message in raw:
                yield message

        try:
            if name in ("SegmentStream", "EncodeImages"):
                async for response in channel.stream_stream(path)(requests(), timeout=timeout):
                    outcome = _worse(outcome, _told(name, response))
            elif name == "GenerateMasks":
                async for _ in channel.unary_stream(path)(raw[0], timeout=timeout):
                    pass
            elif streams:
                await channel.stream_unary(path)(requests(), timeout=timeout)
            else:
                await channel.unary_unary(path)(raw[0], timeout=timeout)
        except grpc.aio.AioRpcError as error:
            outcome = error.code().name
            if error.details() == "Internal error from Core":  # what grpc says of a write after the server's answer
                outcome = _CUT_SHORT
        return name, outcome

    def _bytes(self, kind: type[Message], real: Message) -> bytes:
        way = self._pick.random()
        if way < 0.4:
            return mutated(self._pick, real.SerializeToString())
        if way < 0.5:
            return self._pick.randbytes(self._pick.randrange(200))
        message = kind()
        if way < 0.75:
            message.CopyFrom(real)
        random_message(self._pick, message)
        return message.SerializeToString()


def _segment() -> decoder_pb2.SegmentRequest:
    prompt = types_pb2.Prompt(
        points=[types_pb2.Point(x_px=30, y_px=20, label=1)], box=types_pb2.Box(x_max_px=50, y_max_px=35)
    )
    return decoder_pb2.SegmentRequest(image_id="fuzz", prompts=[prompt])


def _conversation() -> list[Message]:
    edit = decoder_pb2.EditObject(object_id="object-1", add_point=types_pb2.Point(x_px=30, y_px=20))
    return [
        decoder_pb2.SegmentStreamRequest(request_id="1", set_image=decoder_pb2.SetImage(image_id="fuzz")),
        decoder_pb2.SegmentStreamRequest(request_id="2", edit=edit),
        decoder_pb2.SegmentStreamRequest(
            request_id="3", segment=decoder_pb2.StreamPrompts(prompts=_segment().prompts), speculative=True
        ),
    ]


def _told(name: str, response: bytes) -> Outcome:
    kind = decoder_pb2.SegmentStreamResponse if name == "SegmentStream" else encoder_pb2.EncodeImagesResponse
    answer = kind.FromString(response)
    if not answer.HasField("error"):
        return "OK"
    return next(code.name for code in grpc.StatusCode if code.value[0] == answer.error.code)


def _worse(one: Outcome, other: Outcome) -> Outcome:
    return other if one in FINE else one


# All of it


def run(inputs: int, seed: int) -> tuple[list[str], list[str]]:
    """Returns the report's lines, and what went wrong."""
    pick = random.Random(seed)
    files, values, whole = image_files(pick), embeddings(pick), bundle()
    packed, digest = whole.packed, whole.digest
    parsers: dict[str, tuple[float, Callable[[], Outcome]]] = {
        "image files": (0.6, lambda: read_file(mutated(pick, pick.choice(files)))),
        "embeddings": (0.2, lambda: read_embedding(mutated(pick, pick.choice(values)), values)),
        "exported decoders": (0.05, lambda: read_bundle(mutated(pick, packed), digest)),
    }
    told: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    started = time.monotonic()
    for name, (share, parse) in parsers.items():
        outcomes = told.setdefault(name, Counter())
        for index in range(int(inputs * share)):
            try:
                outcomes[parse()] += 1
            except Exception as error:  # whatever it is, it was not meant
                wrong.append(f"{name} {index} (seed {seed}): {type(error).__name__}: {error}"[:300])
    calls = inputs - sum(outcomes.total() for outcomes in told.values()) - len(wrong)
    with tempfile.TemporaryDirectory() as folder, World(Path(folder), count=1) as world:
        world.calm.embed(picture(400), image_id="fuzz")
        with world.client() as client:
            client.embed(picture(400), image_id="fuzz")
        right = world.right(400)
        before = {server.address: server.rss for server in world.servers}
        told["messages"], more = asyncio.run(_messages(world, pick, calls))
        wrong += more
        with world.client() as client:
            if counts(client.segment(picture(400), points=[(30, 20)])) != right:
                wrong.append("the mask after all messages is another one")
        grown = {server.address: (server.rss - before[server.address]) >> 20 for server in world.servers}
        if not all(server.ready() for server in world.servers):
            wrong.append("a server does not serve any more")
        for server in world.servers:
            if b"unexpected error" in (text := server.log.read_bytes()):
                wrong.append(f"{server.log.name}: {text[text.index(b'unexpected error') :][:1500].decode()}")
    took_s = time.monotonic() - started
    total = sum(outcomes.total() for outcomes in told.values())
    lines = [f"{total} inputs, seed {seed}, {took_s:.0f} s: {len(wrong)} went wrong"]
    for name, outcomes in told.items():
        ways = ", ".join(f"{way} {count}" for way, count in outcomes.most_common())
        lines.append(f"{name} {outcomes.total()}: {ways}")
    lines.append(f"memory of encoder and decoder grew by {' and '.join(map(str, grown.values()))} MiB; both serve")
    return lines, wrong


async def _messages(world: World, pick: random.Random, calls: int) -> tuple[Counter[str], list[str]]:
    senders = Senders(world, pick)
    outcomes, wrong = Counter[str](), list[str]()

    async def sender(number: int) -> None:
        for _ in range(number, calls, 8):
            name, outcome = await senders.send()
            outcomes[outcome] += 1
            if outcome not in FINE:
                wrong.append(f"{name} answered {outcome}")

    await asyncio.gather(*(sender(number) for number in range(8)))
    await senders.close()
    return outcomes, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the report's lines, which docs/reliability.md quotes")
    arguments = parser.parse_args()
    lines, wrong = run(arguments.inputs, arguments.seed)
    print("\n".join([*lines, *wrong[-20:]]))
    if arguments.json:
        arguments.json.write_text(json.dumps(lines, indent=1) + "\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
