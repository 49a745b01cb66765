"""A small cluster of a store, encoders and decoders, and the masks that it must give."""

import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import redis
from maskwire import Client, Result
from maskwire.v1 import decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc

from testing.processes import wait_until
from testing.wire import MANY_CALLS, picture

from . import processes
from .processes import Server
from .proxy import Proxy


class World:
    """A running cluster. Tests kill and restart its parts, each of which keeps its port.

    Args:
        folder: For logs and switches.
        count: Number of encoders, and of decoders.
        proxied: Whether clients reach the servers, and the servers the store, through proxies that inject faults.
        keep_sources_s: How long encoders keep files, for regions; 0: not at all.

    Attributes:
        url: URL of the store.
        raw: A connection to the store that bypasses the proxy.
        ways: The proxies by the port of the server behind them.
    """

    def __init__(self, folder: Path, count: int = 2, proxied: bool = False, keep_sources_s: int = 0) -> None:
        self.folder = folder
        self.store = processes.store(folder)
        self.ways: dict[int, Proxy] = {}
        self._stack = contextlib.ExitStack()
        self._proxied = proxied
        self.url = f"redis://{self._way(self.store)}/0"
        keep = {"MASKWIRE_KEEP_SOURCES_S": str(keep_sources_s)}
        self.encoders = [processes.encoder(folder, self.url, **keep) for _ in range(count)]
        self.decoders = [processes.decoder(folder, self.url) for _ in range(count)]
        self.raw = redis.Redis(port=self.store.port)
        self._right: dict[tuple[int, tuple[int, int]], str] = {}

    @property
    def servers(self) -> list[Server]:
        return [*self.encoders, *self.decoders]

    def __enter__(self) -> "World":
        self.store.start().wait()
        for server in self.servers:
            server.start()
        for server in self.servers:
            server.wait()
        return self

    def _way(self, server: Server) -> str:
        """Returns the address at which others reach a server."""
        if not self._proxied:
            return server.address
        if server.port not in self.ways:
            self.ways[server.port] = self._stack.enter_context(Proxy(server.port).running())
        return self.ways[server.port].address

    def __exit__(self, *_: object) -> None:
        for server in [*self.servers, self.store]:
            if server.lives:
                server.end()
        self.raw.close()
        self._stack.close()

    def mend(self) -> None:
        """Restarts and repairs all parts, and waits until they serve."""
        for server in [self.store, *self.servers]:
            if server.lives:
                server.send(signal.SIGCONT)
            else:
                server.start()
        for encoder in self.encoders:
            for switch in processes.switches(encoder).iterdir():
                if switch.name in ("hold", "slow", "memory", "stored"):
                    switch.unlink()
        for server in [self.store, *self.servers]:
            server.wait()

    def client(self, **arguments: Any) -> Client:
        """Returns a client of all encoders and decoders, or of those given as arguments."""
        wanted = {"encoder": self.encoders, "decoder": self.decoders} | arguments
        for kind in ("encoder", "decoder"):
            if not isinstance(wanted[kind], str):
                wanted[kind] = ",".join(map(self._way, wanted[kind]))
        return Client(**wanted)

    # Right answers

    @functools.cached_property
    def calm(self) -> Client:
        """A client with a namespace of its own, for the correct masks."""
        return self.client(namespace="calm")

    def right(self, number: int, point: tuple[int, int] = (30, 20)) -> str:
        """Returns the correct RLE of a click on a picture, computed on first use, when nothing is broken."""
        if (number, point) not in self._right:
            self._right[number, point] = counts(self.calm.segment(picture(number), points=[point]))
        return self._right[number, point]

    def check(self, client: Client, number: int, point: tuple[int, int] = (30, 20)) -> None:
        """Clicks with a client, and compares the mask with the correct one."""
        assert counts(client.segment(picture(number), points=[point])) == self.right(number, point)

    # Encoders

    @contextlib.contextmanager
    def stub(self, server: Server) -> Iterator[Any]:
        encodes = any("encoder" in Path(word).name for word in server.command)
        kind = encoder_pb2_grpc.EncoderServiceStub if encodes else decoder_pb2_grpc.DecoderServiceStub
        with grpc.insecure_channel(server.address, MANY_CALLS) as channel:
            yield kind(channel)

    def load(self, server: Server) -> encoder_pb2.GetLoadResponse:
        with self.stub(server) as stub:
            return stub.GetLoad(encoder_pb2.GetLoadRequest(), timeout=10)

    @contextlib.contextmanager
    def switched(self, switch: str, *servers: Server) -> Iterator[None]:
        files = [processes.switches(server) / switch for server in servers or self.encoders]
        for file in files:
            file.touch()
        try:
            yield
        finally:
            for file in files:
                file.unlink(missing_ok=True)

    def busy(self, *servers: Server) -> Server:
        """Waits until the model of an encoder has an image, and returns that encoder."""
        found: list[Server] = []

        def look() -> bool:
            found.extend(server for server in servers or self.encoders if self.load(server).encoding)
            return bool(found)

        wait_until(look, 20)
        return found[0]


def counts(result: Result) -> str:
    return str(result.rle["counts"])


class Doing(threading.Thread):
    """A call on a thread of its own, which can be waited for."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self._call()
        except BaseException as error:  # re-raised by `result`
            self.outcome = error

    def result(self, seconds: float = 60) -> Any:
        self.join(seconds)
        assert not self.is_alive(), "no answer in time"
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome
