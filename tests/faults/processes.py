"""Servers that can be killed, stopped and started again, each on a port that it keeps."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from maskwire.cli.free_ports import free_port
from maskwire.cli.health import answers_ping, health
from maskwire.cli.local_store import store_program
from maskwire.cli.supervisor import with_parent_death_signal

from testing.paths import ROOT
from testing.processes import Process, resident_bytes, wait_until
from testing.servers import ready
from testing.warm import Warm


class Server:
    """A server process.

    Args:
        command: Program and arguments.
        port: TCP port that it listens on.
        ready: Returns whether it serves.
        log: File for its output.
        environment: Variables that are added to this process's own.
        warm: Whether a Python module is forked from a process that has imported torch (testing/warm.py), which spares
            seconds at each start; not where memory or the start itself is measured.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        ready: Callable[[], bool],
        log: Path,
        environment: Mapping[str, str] | None = None,
        warm: bool = False,
    ) -> None:
        self.command = list(command)
        self._warm = warm
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.log = log
        self._ready = ready
        self.environment = environment or {}
        self.process: Process | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def rss(self) -> int:
        """Resident memory in bytes."""
        return resident_bytes(self.pid)

    @property
    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def start(self) -> "Server":
        if self._warm and self.command[1] == "-m":
            module, *words = self.command[2:]
            self.process = Warm(module, words, dict(self.environment), files=(None, self.log, self.log))
            return self
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                with_parent_death_signal(self.command),
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
            )
        return self

    def wait(self) -> "Server":
        """Waits until it serves."""
        wait_until(self._ready, 150, self.process)
        return self

    def ready(self) -> bool:
        return self._ready()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Sends SIGTERM, and returns the exit code when it has ended."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGCONT)
        self.process.terminate()
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def store(folder: Path, *options: str, port: int = 0, program: str | None = None) -> Server:
    """A Valkey, or another program, that keeps nothing on disk unless the options say so."""
    port = port or free_port()
    command = [program or store_program(), "--port", str(port), "--save", "", "--appendonly", "no"]
    command += ["--dir", str(folder), *options]
    return Server(command, port, lambda: answers_ping(port), folder / f"store-{port}.log")


def encoder(folder: Path, redis_url: str, **environment: str) -> Server:
    """An encoder of a small model that can be held up, as testing/failing_encoder.py describes."""
    port = free_port()
    own = folder / f"encoder-{port}"
    own.mkdir()
    command = [sys.executable, "-m", "testing.failing_encoder", str(own), str(port), redis_url]
    log = folder / f"encoder-{port}.log"
    return Server(command, port, lambda: _serves(port), log, environment, warm=True)


def switches(server: Server) -> Path:
    """Returns the folder of an encoder's switches."""
    return Path(server.command[3])


def decoder(folder: Path, redis_url: str, *options: str, warm: bool = True, health_port: int | None = None) -> Server:
    """A decoder.

    Args:
        folder: For its log.
        redis_url: Its store.
        options: Further options.
        warm: See `Server`.
        health_port: Where it is asked for its health, if not at its own port.
    """
    port = free_port()
    command = [sys.executable, "-m", "maskwire_decoder", "--port", str(port), "--redis-url", redis_url, *options]
    log = folder / f"decoder-{port}.log"
    return Server(command, port, lambda: _serves(health_port or port), log, warm=warm)


def tracker(folder: Path, redis_url: str, encoders: Sequence[Server]) -> Server:
    """A tracker that writes its tracks to the store after every second frame."""
    port = free_port()
    command = [sys.executable, "-m", "maskwire_tracker", "--port", str(port), "--redis-url", redis_url]
    command += ["--encoder", ",".join(server.address for server in encoders), "--save-every", "2"]
    return Server(command, port, lambda: _serves(port), folder / f"tracker-{port}.log", warm=True)


def gateway(folder: Path, encoders: Sequence[Server], decoders: Sequence[Server], warm: bool = True) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "maskwire_gateway", "--port", str(port)]
    command += ["--encoder", ",".join(server.address for server in encoders)]
    command += ["--decoder", ",".join(server.address for server in decoders)]
    log = folder / f"gateway-{port}.log"
    return Server(command, port, lambda: ready(f"http://127.0.0.1:{port}/"), log, warm=warm)


def _serves(port: int) -> bool:
    return health(f"127.0.0.1:{port}") == "SERVING"
