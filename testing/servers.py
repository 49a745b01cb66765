"""Real stores, encoders, decoders and gateways, each a process on a port of its own."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
from maskwire import Client
from maskwire.cli.free_ports import free_port
from maskwire.cli.health import answers_http, answers_ping, health
from maskwire.cli.supervisor import with_parent_death_signal

from testing.processes import Process, running, wait_until
from testing.warm import running_module

EXACT = ("--store-codec", "fp32", "--backend", "torch")
"""Options of an encoder whose masks are compared with sam2's to the last digits."""


@contextlib.contextmanager
def store_server(
    program: str, *options: str, port: int = 0, started: list[subprocess.Popen[bytes]] | None = None
) -> Iterator[str]:
    """Runs a Valkey or Redis that keeps nothing on disk. Yields its URL.

    Args:
        program: Path of the server program.
        options: Further arguments of the program.
        port: Where it listens; 0 chooses a free port.
        started: The process is appended to this list.
    """
    port = port or free_port()
    with running([program, "--port", str(port), "--save", "", "--appendonly", "no", *options]) as process:
        wait_until(lambda: answers_ping(port), process=process)
        if started is not None:
            started.append(process)
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def server(package: str, redis_url: str, *options: str, cold: bool = False) -> Iterator[str]:
    """Runs an encoder or a decoder. Yields its address.

    Args:
        package: "maskwire_encoder" or "maskwire_decoder".
        redis_url: URL of the store.
        options: Further arguments of the program.
        cold: Whether its process is begun anew, as users begin it, instead of being forked: to be measured.
    """
    with running_server(package, redis_url, *options, cold=cold) as (address, _):
        yield address


@contextlib.contextmanager
def running_server(
    package: str, redis_url: str, *options: str, cold: bool = False, stderr: Path | None = None
) -> Iterator[tuple[str, int]]:
    """Runs an encoder, a decoder or a tracker as `server` does. Yields its address and process id.

    Args:
        package: As for `server`, or "maskwire_tracker".
        redis_url: URL of the store.
        options: Further arguments of the program.
        cold: As for `server`; its messages then go where this process's go.
        stderr: A file for its messages; by default they go where this process's go.
    """
    port = free_port()
    words = ["--port", str(port), "--redis-url", redis_url, *options]
    started: AbstractContextManager[Process] = (
        running([sys.executable, "-m", package, *words]) if cold else running_module(package, *words, stderr=stderr)
    )
    with started as process:
        wait_until(lambda: health(f"127.0.0.1:{port}") == "SERVING", process=process)
        yield f"127.0.0.1:{port}", process.pid


@dataclass
class Stack:
    """An encoder, a decoder and their store.

    Attributes:
        encoder: Address of the encoder.
        decoder: Address of the decoder.
        redis_url: URL of the store.
        pids: The servers' processes by name.
    """

    encoder: str
    decoder: str
    redis_url: str
    pids: dict[str, int]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point clients to these servers."""
        return {"MASKWIRE_ENCODER": self.encoder, "MASKWIRE_DECODER": self.decoder}

    def client(self, **arguments: object) -> Client:
        return Client(self.encoder, self.decoder, **arguments)  # type: ignore[arg-type]


@contextlib.contextmanager
def encoder_and_decoder(redis_url: str, *options: str) -> Iterator[Stack]:
    """Runs an encoder and a decoder, which start beside each other.

    Args:
        redis_url: URL of the store.
        options: Further arguments of the encoder.
    """
    with contextlib.ExitStack() as running_both:
        servers = {}
        for package, more in (("maskwire_encoder", options), ("maskwire_decoder", ())):
            address = f"127.0.0.1:{free_port()}"
            words = ("--port", address.split(":")[1], "--redis-url", redis_url, *more)
            servers[address] = running_both.enter_context(running_module(package, *words))
        for address, process in servers.items():
            wait_until(lambda address=address: health(address) == "SERVING", process=process)  # type: ignore[misc]
        encoder, decoder = servers
        pids = {"encoder": servers[encoder].pid, "decoder": servers[decoder].pid}
        yield Stack(encoder, decoder, redis_url, pids)


class Servers(Protocol):
    """The addresses of an encoder and a decoder."""

    encoder: str
    decoder: str


@dataclass
class Up(Stack):
    """The servers that `maskwire up` started, as its `--json` line describes them, and its process."""

    gateway: str | None
    model: str
    tracker: str
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def up(*options: str, gateway: bool = False) -> Iterator[Up]:
    """Runs `maskwire up` on free ports; it must end with code 0.

    Args:
        options: Further arguments of the command.
        gateway: Whether to start a gateway as well.
    """
    command = [
        sys.executable,
        "-m",
        "maskwire.cli",
        "up",
        "--json",
        "--encoder-port",
        "0",
        "--decoder-port",
        "0",
        *(() if "--trackers" in options else ("--trackers", "0")),
        *(("--gateway-port", "0") if gateway else ("--no-gateway",)),
        *options,
    ]
    process = subprocess.Popen(with_parent_death_signal(command), stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "maskwire up ended before it was ready"
        yield Up(**json.loads(line), process=process)
    finally:
        if process.poll() is None:
            process.terminate()
        assert process.wait(60) == 0
        process.stdout.close()


def ready(gateway: str) -> bool:
    """Tells whether a gateway and the servers behind it answer.

    Args:
        gateway: The gateway's address, with a slash at its end.
    """
    try:
        return httpx.get(f"{gateway}readyz").is_success
    except httpx.TransportError:
        return False


@contextlib.contextmanager
def running_gateway(stack: Servers, *options: str, decoder: str = "", port: int = 0) -> Iterator[tuple[str, int]]:
    """Runs a gateway in front of an encoder and a decoder. Yields its address, http://..., and process id.

    Args:
        stack: The servers.
        options: Further arguments of the program.
        decoder: Address of another decoder than the stack's.
        port: Where it listens; 0 chooses a free port.
    """
    port = port or free_port()
    servers = ("--encoder", stack.encoder, "--decoder", decoder or stack.decoder)
    with running_module("maskwire_gateway", "--port", str(port), *servers, *options) as process:
        wait_until(lambda: answers_http("127.0.0.1", port), process=process)
        yield f"http://127.0.0.1:{port}", process.pid
