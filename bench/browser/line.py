"""A line of some megabits a second between a browser and a server."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from maskwire.cli.free_ports import free_port

_PIECE_BYTES = 1 << 14


class Line(threading.Thread):
    """A proxy that passes on so many bits a second of what a server answers.

    Args:
        port: The server's port.
        mbit: Megabits a second; 0 for as many as there are.

    Attributes:
        nbytes: Bytes of answers that were passed on.
    """

    def __init__(self, port: int, mbit: float) -> None:
        super().__init__(daemon=True)
        self.port, self.nbytes = free_port(), 0
        self._server, self._bytes_per_s = port, mbit * 1e6 / 8
        self._free_at = 0.0
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()

    def run(self) -> None:
        """Serves until `stop`."""
        self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", self.port))
        self._ready.set()
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks))

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Yields the address of the page through this line."""
        self.start()
        self._ready.wait()
        try:
            yield f"http://127.0.0.1:{self.port}/"
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self.join()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):  # asyncio would log the latter
            await asyncio.gather(self._pass_on(reader, to_server, False), self._pass_on(from_server, writer, True))

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_answer: bool) -> None:
        while piece := await source.read(_PIECE_BYTES):
            if is_answer:
                self.nbytes += len(piece)
                if self._bytes_per_s:
                    now = self._loop.time()
                    self._free_at = max(self._free_at, now) + len(piece) / self._bytes_per_s
                    await asyncio.sleep(self._free_at - now)
            sink.write(piece)
            await sink.drain()
        sink.close()
