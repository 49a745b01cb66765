"""Attacks on TLS handshakes with a gRPC server."""

import asyncio
import functools
import ssl
import time
from collections.abc import Awaitable, Callable

from .kinds import Outcomes, Target, attack

_AT_ONCE = 8
_ANOTHER_ADDRESS = "127.0.0.2"


@attack(
    "handshakes begun", "1,000 connections that send half of a TLS handshake's first message", token=False, tls=True
)
async def begun(target: Target) -> Outcomes:
    return await _crowd(target, 1000, _stall, again=False)


@attack(
    "handshakes without end",
    "9,000 such connections, more than the server may have files, from another address than the other tenant's, who "
    "opens new ones, too",
    token=False,
    tls=True,
)
async def without_end(target: Target) -> Outcomes:
    return await _crowd(target, 9000, _stall, again=True, source=_ANOTHER_ADDRESS)


@attack(
    "handshakes not finished",
    f"{_AT_ONCE} connections that have a TLS handshake answered, close, and begin another",
    token=False,
    tls=True,
)
async def not_finished(target: Target) -> Outcomes:
    hello = _hello()

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left_s: float) -> str:
        writer.write(hello)
        return "answered" if await reader.read(1 << 14) else "closed by the server"

    return await _crowd(target, _AT_ONCE, leave, again=True)


async def _stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left_s: float) -> str:
    """Sends half of the first message of a handshake, and nothing more."""
    hello = _hello()
    writer.write(hello[: len(hello) // 2])
    try:
        await asyncio.wait_for(reader.read(), left_s)
    except TimeoutError:
        return "held until the end"
    return "closed by the server"


@functools.cache
def _hello() -> bytes:
    """The first message of a handshake."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(received, sent, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()
    raise AssertionError("a handshake needs an answer")


async def _crowd(
    target: Target,
    count: int,
    act: Callable[[asyncio.StreamReader, asyncio.StreamWriter, float], Awaitable[str]],
    again: bool,
    source: str | None = None,
) -> Outcomes:
    """Has so many connections do something in the seconds that are left.

    Args:
        target: What is attacked.
        count: How many.
        act: What each does.
        again: Whether another takes the place of each until the end.
        source: The address that they come from, if it is to be another.
    """
    outcomes, end = Outcomes(), time.monotonic() + target.seconds
    host, _, port = target.decoder.rpartition(":")

    async def one() -> None:
        try:
            opening = asyncio.open_connection(host, int(port), local_addr=source and (source, 0))
            try:
                reader, writer = await asyncio.wait_for(opening, end - time.monotonic())
            except TimeoutError:
                outcomes["kept waiting"] += 1
                return
            try:
                outcomes[await act(reader, writer, end - time.monotonic())] += 1
            finally:
                writer.close()
        except OSError as error:
            outcomes[type(error).__name__] += 1

    async def one_after_another() -> None:
        await one()
        while again and time.monotonic() < end:
            await one()

    await asyncio.gather(*(one_after_another() for _ in range(count)))
    return outcomes
