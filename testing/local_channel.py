"""gRPC channels that call services in this process: what the client sends reaches a service without a socket.

A server here can be killed, and comes back when another one takes its address.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
from maskwire.transport.credentials import Credentials
from maskwire.v1 import encoder_pb2, types_pb2
from maskwire_core import call_context
from maskwire_core.rpc.error_status import status_of
from maskwire_core.storage.store import Store
from maskwire_core.tenancy.tenant import EVERYBODY
from numpy.typing import NDArray

from testing.plain_decoder import HEIGHT, MASK_SIZE, WIDTH, Context, PlainDecoder, put_image


class LocalServer:
    """A service behind an address.

    Args:
        service: Has a method for each method of the gRPC service.

    Attributes:
        calls: The names of the methods that were called.
        sent: The messages that streams brought.
        stands_still: Whether nothing comes of messages on streams, although they arrive.
    """

    def __init__(self, service: Any) -> None:
        self.service = service
        self.calls: list[str] = []
        self.sent: list[Any] = []
        self.stands_still = False
        self._broken = asyncio.Event()

    def kill(self) -> None:
        """Breaks all calls, and refuses those that come."""
        self._broken.set()

    async def run(self, work: Any) -> Any:
        """Awaits work of the service, as a call of its own. What it raises becomes an error of gRPC's."""
        if self._broken.is_set():
            work.close()
            raise _error(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses")
        task = asyncio.create_task(_in_a_call(work))
        broken = asyncio.create_task(self._broken.wait())
        try:
            await asyncio.wait({task, broken}, return_when=asyncio.FIRST_COMPLETED)
            if self._broken.is_set():
                raise _error(grpc.StatusCode.UNAVAILABLE, "the server died")
            return task.result()
        finally:
            task.cancel()
            broken.cancel()


class LocalChannel:
    """The channel to a local server, as generated stubs use one.

    Args:
        servers: Servers by address.
        address: The server's.
    """

    def __init__(self, servers: dict[str, LocalServer], address: str) -> None:
        self._servers = servers
        self._address = address

    async def close(self) -> None:
        """Does nothing: there is no connection."""

    def unary_unary(self, path: str, **_: Any) -> Any:
        async def call(request: Any, **_: Any) -> Any:
            server, name = self._called(path)
            return await server.run(getattr(server.service, name)(request, Context()))

        return call

    def stream_unary(self, path: str, **_: Any) -> Any:
        def call(**_: Any) -> _Upload:
            return _Upload(*self._called(path))

        return call

    def stream_stream(self, path: str, **_: Any) -> Any:
        def call(**_: Any) -> _StreamCall:
            return _StreamCall(*self._called(path))

        return call

    def unary_stream(self, path: str, **_: Any) -> Any:
        def call(request: Any, **_: Any) -> _StreamCall:
            return _StreamCall(*self._called(path), request)

        return call

    def _called(self, path: str) -> tuple[LocalServer, str]:
        server, name = self._servers[self._address], path.rpartition("/")[2]
        server.calls.append(name)
        return server, name


class _StreamCall:
    """A call whose answers are read one by one."""

    def __init__(self, server: LocalServer, name: str, request: Any = None) -> None:
        self._server = server
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        method = getattr(server.service, name)
        self._answers: AsyncIterator[Any] = method(self._sent() if request is None else request, Context())
        self._pumped: asyncio.Queue[Any] = asyncio.Queue(1)
        self._pump = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async def answers() -> None:
            async for answer in self._answers:
                await self._pumped.put(answer)

        try:
            await self._server.run(answers())
        except grpc.aio.AioRpcError as error:
            while not self._pumped.empty():
                self._pumped.get_nowait()
            self._pumped.put_nowait(error)
        else:
            await self._pumped.put(grpc.aio.EOF)

    async def _sent(self) -> AsyncIterator[Any]:
        while (request := await self._requests.get()) is not None:
            self._server.sent.append(request)
            if not self._server.stands_still:
                yield request

    async def write(self, message: Any) -> None:
        self._requests.put_nowait(type(message).FromString(message.SerializeToString()))

    async def done_writing(self) -> None:
        self._requests.put_nowait(None)

    async def read(self) -> Any:
        answer = await self._pumped.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self) -> bool:
        return self._pump.cancel()


class _Upload:
    """A call that sends several messages and gets one answer."""

    def __init__(self, server: LocalServer, name: str) -> None:
        self._method = getattr(server.service, name)
        self._server = server
        self._messages: list[Any] = []

    async def write(self, message: Any) -> None:
        self._messages.append(message)

    async def initial_metadata(self) -> Any:
        return (("maskwire-content", "needed"),)

    async def done_writing(self) -> None:
        pass

    def cancel(self) -> bool:
        return True

    def __await__(self) -> Any:
        return self._server.run(self._method(self._messages, Context())).__await__()


class PlainEncoder:
    """Embeds images for a `PlainDecoder`: the embedding is noise that the file's digest seeds."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def EncodeImage(self, messages: list[Any], _: Context) -> encoder_pb2.EncodeImageResponse:
        header = messages[0].header
        data = b"".join(message.chunk for message in messages[1:])
        assert hashlib.sha256(data).digest() == header.sha256
        image_id = header.image_id or f"issued-{header.sha256.hex()[:8]}"
        key = put_image(self._store, image_id, embedding(header.sha256), WIDTH, HEIGHT, header.namespace or "default")
        info = types_pb2.ImageInfo(image_id=image_id, content_key=key, width_px=WIDTH, height_px=HEIGHT, model="plain")
        return encoder_pb2.EncodeImageResponse(image=info)


def embedding(sha256: bytes) -> NDArray[np.float32]:
    """The embedding that `PlainEncoder` stores for a file of this digest."""
    return np.random.default_rng(list(sha256)).normal(0, 0.5, (MASK_SIZE, MASK_SIZE)).astype(np.float32)


def connect_locally(monkeypatch: pytest.MonkeyPatch, servers: dict[str, Any]) -> dict[str, LocalServer]:
    """Has clients reach services in this process at addresses. Returns the servers; put in another to restart one."""
    local = {
        address: LocalServer(service.service if isinstance(service, PlainDecoder) else service)
        for address, service in servers.items()
    }
    monkeypatch.setattr(Credentials, "connect", lambda _, address, options: LocalChannel(local, address))
    return local


async def _in_a_call(work: Any) -> Any:
    call_context.begin("").caller = EVERYBODY
    try:
        return await work
    except (asyncio.CancelledError, grpc.aio.AioRpcError):
        raise
    except Exception as error:
        status = status_of(error)
        code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
        raise _error(code, status.message, status.SerializeToString()) from error


def _error(code: grpc.StatusCode, details: str, status: bytes = b"") -> grpc.aio.AioRpcError:
    trailers = grpc.aio.Metadata(*([("grpc-status-details-bin", status)] if status else []))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details)
