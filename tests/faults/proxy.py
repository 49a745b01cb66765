"""A TCP proxy in front of a server, whose connections can be slowed down, silenced, cut and corrupted."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

_CHUNK = 65_536
_RST = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close() sends RST


@dataclass(eq=False)
class _Pair:
    """A caller's connection to the proxy and the proxy's connection to the server for it."""

    caller: asyncio.StreamWriter
    server: asyncio.StreamWriter
    replied: int = 0  # bytes towards the caller


class Proxy:
    """Forwards TCP connections to a server, with the faults that its attributes describe.

    Attributes:
        target: Port of the server; a change takes effect for new connections.
        latency_s: Delay in each direction, in seconds.
        bytes_per_s: Throughput limit in each direction of each connection; 0 for no limit.
        silent: Whether nothing is forwarded and nothing closed, as when the other machine has lost its power.
        cut_after: Number of bytes of replies after which a connection is reset, `cuts` times.
        flip_after: Number of bytes of replies after which a bit of the next byte is flipped, `cuts` times.
        accepted: Number of connections so far.
        carried: Number of bytes forwarded so far, in both directions.
        ended: Number of connections that the server has ended.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.latency_s = 0.0
        self.bytes_per_s = 0
        self.silent = False
        self.cut_after: int | None = None
        self.flip_after: int | None = None
        self.cuts = 0
        self.accepted = 0
        self.carried = 0
        self.ended = 0
        self.port = 0
        self._pairs: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def open_files(self) -> int:
        """Files of this process that connections through the proxy have open."""
        return 2 * len(self._pairs)

    def cut(self) -> int:
        """Resets all connections on both sides. Returns their number."""
        return self._run(self._cut(list(self._pairs)))

    @contextlib.contextmanager
    def running(self) -> Iterator["Proxy"]:
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(server.close)
            self.cut()
            self._run(self._finish())
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            back, server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(writer)
            return
        pair = _Pair(writer, server)
        self._pairs.add(pair)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self._carry(pair, reader, server, "caller"), self._carry(pair, back, writer, "server"))
        self._pairs.discard(pair)
        writer.close()
        server.close()

    async def _carry(self, pair: _Pair, source: asyncio.StreamReader, target: asyncio.StreamWriter, whose: str) -> None:
        """Forwards one direction: bytes arrive in order, `latency_s` after they came, at most `bytes_per_s`."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)

        async def receive() -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(_CHUNK):
                    await queue.put((self._loop.time(), data))
            self.ended += whose == "server"
            await queue.put((self._loop.time(), b""))

        receiver = asyncio.create_task(receive())
        try:
            while True:
                came, data = await queue.get()
                while self.silent:  # noqa: ASYNC110 - set from another thread
                    await asyncio.sleep(0.02)
                await asyncio.sleep(max(0, came + self.latency_s - self._loop.time()))
                if not data:
                    target.write_eof()
                    return
                if self.bytes_per_s:
                    for start in range(0, len(data), 1500):
                        piece = data[start : start + 1500]
                        await asyncio.sleep(len(piece) / self.bytes_per_s)
                        target.write(piece)
                    data = b""
                if whose == "server":
                    data = await self._damaged(pair, data)
                self.carried += len(data)
                target.write(data)
                await target.drain()
        except OSError:
            return
        finally:
            receiver.cancel()

    async def _damaged(self, pair: _Pair, data: bytes) -> bytes:
        before, pair.replied = pair.replied, pair.replied + len(data)
        if self.cuts <= 0:
            return data
        if self.flip_after is not None and before <= self.flip_after < pair.replied:
            self.cuts -= 1
            at = self.flip_after - before
            return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]
        if self.cut_after is not None and pair.replied > self.cut_after:
            self.cuts -= 1
            pair.caller.write(data[: max(0, self.cut_after - before)])
            await pair.caller.drain()
            await self._cut([pair])
            raise ConnectionResetError
        return data

    async def _cut(self, pairs: list[_Pair]) -> int:
        for pair in pairs:
            _reset(pair.caller)
            _reset(pair.server)
        return len(pairs)


def _reset(writer: asyncio.StreamWriter) -> None:
    link: socket.socket | None = writer.get_extra_info("socket")
    if link is not None:
        with contextlib.suppress(OSError):
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
    writer.transport.abort()
