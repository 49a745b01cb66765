"""Real servers for the tests: stores, encoders, decoders, each its own process on its own port."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import grpc
import httpx
import numpy as np
import pytest
import redis
import torch
from maskwire import Client
from maskwire.cli.status import health
from maskwire.cli.supervisor import leashed
from maskwire.cli.up import _answers_http, _store_program
from maskwire.v1 import decoder_pb2_grpc, encoder_pb2_grpc
from maskwire_core.storage.store import Store
from PIL import Image
from reference import build_tiny
from web import Web, serving
from wire import as_base64

if TYPE_CHECKING:
    from chromium import Tab
    from playwright.sync_api import Browser

ROOT = Path(__file__).parent.parent
EXACT = ("--store-codec", "fp32", "--backend", "torch")
"""Options of an encoder whose masks are compared with sam2's to the last digits."""
COFFEE = ROOT / "examples" / "coffee.jpg"


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def wait_until(
    condition: Callable[[], bool], seconds: float = 200, process: subprocess.Popen[bytes] | None = None
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the process ended with {process.returncode}")
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


@contextlib.contextmanager
def running(
    command: Sequence[str], environment: dict[str, str] | None = None, stderr: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(leashed(command), env={**os.environ, **(environment or {})}, stderr=stderr)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def store_server(
    program: str, *options: str, port: int = 0, started: list[subprocess.Popen[bytes]] | None = None
) -> Iterator[str]:
    """A Valkey or Redis. Yields its URL, and puts its process into `started`."""
    port = port or free_port()
    with running([program, "--port", str(port), "--save", "", "--appendonly", "no", *options]) as process:

        def answers() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
            return False

        wait_until(answers, process=process)
        if started is not None:
            started.append(process)
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def server(package: str, redis_url: str, *options: str) -> Iterator[str]:
    """An encoder or a decoder. Yields its address."""
    with running_server(package, redis_url, *options) as (address, _):
        yield address


@contextlib.contextmanager
def running_server(package: str, redis_url: str, *options: str) -> Iterator[tuple[str, int]]:
    """The same. Yields its address and process id."""
    port = free_port()
    command = [sys.executable, "-m", package, "--port", str(port), "--redis-url", redis_url, *options]
    with running(command) as process:
        wait_until(lambda: health(f"127.0.0.1:{port}") == "SERVING", process=process)
        yield f"127.0.0.1:{port}", process.pid


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    with store_server(_store_program()) as url:
        yield url


@pytest.fixture(scope="session", params=["valkey", "redis"])
def store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The store's tests run over both."""
    if request.param == "valkey":
        yield request.getfixturevalue("valkey")
        return
    program = shutil.which("redis-server")
    if program is None:
        message = "no redis-server on PATH; scripts/test installs it where it can"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with store_server(program) as url:
        yield url


class Servers(Protocol):
    """An encoder and a decoder, by their addresses."""

    encoder: str
    decoder: str


@dataclass
class Stack:
    """What `maskwire up` started."""

    encoder: str
    decoder: str
    gateway: str | None
    redis_url: str
    model: str
    pids: dict[str, int]
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        return {"MASKWIRE_ENCODER": self.encoder, "MASKWIRE_DECODER": self.decoder}

    def client(self, **arguments: object) -> Client:
        return Client(self.encoder, self.decoder, **arguments)  # type: ignore[arg-type]


@contextlib.contextmanager
def up(*options: str, gateway: bool = False) -> Iterator[Stack]:
    """`maskwire up` on free ports."""
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
        *(("--gateway-port", "0") if gateway else ("--no-gateway",)),
        *options,
    ]
    process = subprocess.Popen(leashed(command), stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "maskwire up ended before it was ready"
        yield Stack(**json.loads(line), process=process)
    finally:
        if process.poll() is None:
            process.terminate()
        assert process.wait(60) == 0
        process.stdout.close()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Store, encoder with the demo model, decoder; shared by the tests that leave them running."""
    with up() as started:
        yield started


def ready(gateway: str) -> bool:
    """Whether a gateway answers, and the servers behind it. Its address ends with /."""
    try:
        return httpx.get(f"{gateway}readyz").is_success
    except httpx.TransportError:
        return False


def resident_bytes(pid: int | str) -> int:
    """Resident memory of a process, by its id or "self"."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def running_gateway(stack: "Servers", *options: str, decoder: str = "", port: int = 0) -> Iterator[tuple[str, int]]:
    """A gateway in front of an encoder and a decoder, on a free port if none is given. Yields its address, http://...,
    and process id.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "maskwire_gateway", "--port", str(port), "--encoder", stack.encoder]
    with running([*command, "--decoder", decoder or stack.decoder, *options]) as process:
        wait_until(lambda: _answers_http("127.0.0.1", port), process=process)
        yield f"http://127.0.0.1:{port}", process.pid


@pytest.fixture(scope="session")
def gateway(stack: Stack) -> Iterator[str]:
    with running_gateway(stack) as (address, _):
        yield address


@pytest.fixture(scope="module")
def http(gateway: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with stack.client() as client:
        yield client


@pytest.fixture
def raw(store_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(store_url) as connection:
        connection.flushall()
        yield connection


@pytest.fixture
def store(store_url: str, raw: redis.Redis) -> Iterator[Store]:
    with contextlib.closing(Store(store_url)) as opened:
        yield opened


@pytest.fixture(scope="session")
def photo() -> Path:
    return COFFEE


@pytest.fixture(scope="session")
def encoded(photo: Path) -> dict[str, str]:
    """The photograph as /sam2 takes it."""
    return as_base64(photo.read_bytes())


@pytest.fixture(scope="session")
def cutout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tall PNG with transparency, made of noise at several scales."""
    random = np.random.default_rng(5)
    layers = [np.kron(random.uniform(0, 255 / 3, (720 // s, 480 // s, 3)), np.ones((s, s, 1))) for s in (6, 48, 240)]
    alpha = np.full((720, 480, 1), 255.0)
    alpha[:, :60] = random.uniform(0, 255, (720, 60, 1))
    path = tmp_path_factory.mktemp("images") / "cutout.png"
    Image.fromarray(np.concatenate([sum(layers), alpha], axis=2).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sam2.1_hiera_tiny with seeded random weights, as a real checkpoint file."""
    path = tmp_path_factory.mktemp("models") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": build_tiny().state_dict()}, path)
    return path


@pytest.fixture(scope="session")
def encoder(stack: Stack) -> Iterator[Any]:
    with grpc.insecure_channel(stack.encoder) as channel:
        yield encoder_pb2_grpc.EncoderServiceStub(channel)


@pytest.fixture(scope="session")
def decoder(stack: Stack) -> Iterator[Any]:
    with grpc.insecure_channel(stack.decoder) as channel:
        yield decoder_pb2_grpc.DecoderServiceStub(channel)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from chromium import chromium  # playwright's event loop stays this module's

    with chromium() as started:
        yield started


@pytest.fixture
def open_tab(browser: "Browser", gateway: str) -> Iterator[Callable[..., "Tab"]]:
    """Opens the page; arguments as Tab's."""
    from chromium import Tab

    tabs: list[Tab] = []

    def make(url: str = gateway, **options: Any) -> Tab:
        tabs.append(Tab(browser, url, **options))
        return tabs[-1]

    yield make
    for tab in tabs:
        tab.close()
