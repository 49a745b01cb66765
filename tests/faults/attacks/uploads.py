"""Attacks on the encoder: uploads that do not end, files that are more than they seem, and a full queue."""

import asyncio
import hashlib
import itertools
import os
from collections.abc import AsyncIterator

from maskwire.v1 import encoder_pb2 as pb
from maskwire.v1 import encoder_pb2_grpc

from testing.wire import frames, picture

from . import pictures
from .kinds import Outcomes, Target, again_and_again, attack, connected, crowd, until_the_end

MIB = 1 << 20
_unique = itertools.count(int.from_bytes(os.urandom(4), "big"))


@attack(
    "uploads held open",
    "two streams with 16 uploads of 64 MiB each, which lack a byte",
    token=True,
    before="+2.1 GiB while they stay",
)
async def held(target: Target) -> Outcomes:
    outcomes = Outcomes()
    for one in await asyncio.gather(*(_held(target) for _ in range(2))):
        outcomes += one
    return outcomes


async def _held(target: Target) -> Outcomes:
    outcomes = Outcomes()
    size, piece = 64 * MIB, bytes(4 * MIB)
    wanted: asyncio.Queue[str] = asyncio.Queue()

    async def sent() -> AsyncIterator[pb.EncodeImagesRequest]:
        for number in range(16):
            header = pb.EncodeImageHeader(sha256=os.urandom(32), size_bytes=size)
            yield pb.EncodeImagesRequest(request_id=str(number), header=header)
        while True:
            name = await wanted.get()
            for _ in range(15):
                yield pb.EncodeImagesRequest(request_id=name, chunk=piece)
                outcomes["MiB taken"] += 4
            yield pb.EncodeImagesRequest(request_id=name, chunk=piece[:-1])

    async def stream() -> None:
        async with connected(target.encoder) as channel:
            stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(channel)
            async for answer in stub.EncodeImages(sent(), metadata=target.metadata):
                if answer.HasField("content_needed"):
                    wanted.put_nowait(answer.request_id)
                else:
                    outcomes[f"refused {answer.error.message[:40]}"] += 1

    return await until_the_end(stream(), target.seconds, outcomes)


@attack("many uploads begun", "200 EncodeImage calls that send the first 8 MiB of 64 and then nothing", token=True)
async def begun(target: Target) -> Outcomes:
    async with connected(target.encoder) as channel:
        stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(channel)

        async def sent() -> AsyncIterator[pb.EncodeImageRequest]:
            yield pb.EncodeImageRequest(header=pb.EncodeImageHeader(sha256=os.urandom(32), size_bytes=64 * MIB))
            for _ in range(8):
                yield pb.EncodeImageRequest(chunk=bytes(MIB))
            await asyncio.sleep(target.seconds)

        return await crowd((stub.EncodeImage(sent(), metadata=target.metadata) for _ in range(200)), target.seconds)


@attack(
    "rates by bytes with a lie",
    "a token of 1,000 bytes a second declares a byte and sends 60 MiB, four times",
    token=True,
    before="taken in 0.4 s each",
)
async def lies(target: Target) -> Outcomes:
    outcomes = Outcomes()
    metadata = (("authorization", f"Bearer {target.slow_token}"),)
    async with connected(target.encoder) as channel:
        stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(channel)

        async def sent() -> AsyncIterator[pb.EncodeImageRequest]:
            yield pb.EncodeImageRequest(header=pb.EncodeImageHeader(sha256=os.urandom(32), size_bytes=1))
            for _ in range(60):
                yield pb.EncodeImageRequest(chunk=bytes(MIB))
                outcomes["MiB taken"] += 1

        outcomes += await crowd((stub.EncodeImage(sent(), metadata=metadata) for _ in range(4)), target.seconds)
    return outcomes


async def _send(target: Target, files: list[bytes]) -> Outcomes:
    async with connected(target.encoder) as channel:
        stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(channel)
        return await crowd(
            (stub.EncodeImage(frames(data, MIB), metadata=target.metadata) for data in files), target.seconds
        )


@attack("run lengths in a BMP", "two files of a kilobyte that say 120 MP", token=True, before="others wait 31 s")
async def run_lengths(target: Target) -> Outcomes:
    return await _send(target, [pictures.bmp(120_000_000, next(_unique)) for _ in range(2)])


@attack("scans in a JPEG", "two files of 1 MB with 5,000 scans of 119 MP", token=True, before="others wait 46 s")
async def scans(target: Target) -> Outcomes:
    return await _send(target, [pictures.jpeg(10_900, 5000 + next(_unique) % 50) for _ in range(2)])


@attack("pixels in a WebP", "four files of 30 bytes that hold 119 MP", token=True, before="+3.4 GiB, 8.5 s")
async def pixels(target: Target) -> Outcomes:
    return await _send(target, [pictures.webp(10_900 - next(_unique) % 100) for _ in range(4)])


@attack("transparent pixels in a PNG", "three files that hold 36 MP of four bytes", token=True, before="+2.5 GiB")
async def transparent(target: Target) -> Outcomes:
    return await _send(target, [pictures.png(6000, next(_unique)) for _ in range(3)])


@attack(
    "queue of the encoder",
    "90 callers with new images, one after another",
    token=True,
    before="another tenant refused 54 of 58",
)
async def encoder_queue(target: Target) -> Outcomes:
    async with connected(target.encoder) as channel:
        stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(channel)

        async def call() -> None:
            await stub.EncodeImage(frames(picture(next(_unique)), MIB), timeout=30, metadata=target.metadata)

        return await again_and_again(call, 90, target.seconds)


@attack("digests that do not fit", "8 callers whose 16 MiB are not what their digest says", token=True)
async def digests(target: Target) -> Outcomes:
    data = bytes(16 * MIB)
    async with connected(target.encoder) as channel:
        stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(channel)

        async def call() -> None:
            wrong = hashlib.sha256(str(next(_unique)).encode()).digest()
            await stub.EncodeImage(frames(data, 4 * MIB, sha256=wrong), timeout=30, metadata=target.metadata)

        return await again_and_again(call, 8, target.seconds)
