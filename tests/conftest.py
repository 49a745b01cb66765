"""Fixtures: real servers that tests share, each a process on a port of its own, and the pictures they are sent."""

import contextlib
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import numpy as np
import pytest
import redis
from maskwire import Client
from maskwire.cli.local_store import store_program
from maskwire.v1 import decoder_pb2_grpc, encoder_pb2_grpc
from maskwire_core.storage.store import Store
from PIL import Image

from testing.parallel import Parallel
from testing.paths import COFFEE, ROOT
from testing.servers import EXACT, Stack, encoder_and_decoder, running_gateway, store_server
from testing.shared_browser import SharedBrowser
from testing.time_bounds import SecondTries
from testing.web_server import Web, serving
from testing.wire import MANY_CALLS, as_base64

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from testing.chromium import Tab

# Threads of torch that wait for one another let others have the processor, of which tests in three processes and their
# servers want more than there is; else they spin, for several times the time that the work takes. As many threads work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Those of ONNX Runtime spin all the same: where others want the cores, a decode takes twice the processor time on two
# threads. Servers that tests start have one; some tests in tests/exactness decode on two.
os.environ.setdefault("MASKWIRE_THREADS", "1")
# A process that reads pictures takes a quarter of a second of a core to start; an encoder has one more for large ones.
os.environ.setdefault("MASKWIRE_READERS", "1")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The unit tier goes first: it tells soonest, and libraries that others load (which flush denormal numbers to zero,
    for one) do not reach it."""
    items.sort(key=lambda item: "tests/unit/" not in item.nodeid)


def pytest_collection_finish() -> None:
    """Garbage is looked for in what tests make, not each time in all that they have imported and in the tests
    themselves, which takes half a second."""
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SecondTries())
    config.pluginmanager.register(Parallel())
    config.pluginmanager.register(SharedBrowser(), "shared browser")


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    with store_server(store_program()) as url:
        yield url


@pytest.fixture(scope="session", params=["valkey", "redis"])
def store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a Valkey and of a Redis: a test with this fixture runs over both."""
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


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A store, an encoder with the demo model, which keeps files, and a decoder, for the tests that leave them
    running."""
    limits = ("--maxmemory", "1gb", "--maxmemory-policy", "volatile-lru")
    with store_server(store_program(), *limits) as url, encoder_and_decoder(url, "--keep-sources-s", "3600") as started:
        yield started


@pytest.fixture(scope="session")
def exact() -> Iterator[Stack]:
    """An encoder with the demo model whose masks can be compared with sam2's, a decoder, and a store of their own."""
    with store_server(store_program()) as url, encoder_and_decoder(url, *EXACT) as servers:
        yield servers


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
    """The photograph in the form in which the /sam2 routes take it."""
    return as_base64(photo.read_bytes())


@pytest.fixture(scope="session")
def cutout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a PNG of 480x720 pixels: noise at several scales, with transparency."""
    random = np.random.default_rng(5)
    layers = [np.kron(random.uniform(0, 255 / 3, (720 // s, 480 // s, 3)), np.ones((s, s, 1))) for s in (6, 48, 240)]
    alpha = np.full((720, 480, 1), 255.0)
    alpha[:, :60] = random.uniform(0, 255, (720, 60, 1))
    path = tmp_path_factory.mktemp("images") / "cutout.png"
    Image.fromarray(np.concatenate([sum(layers), alpha], axis=2).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a checkpoint of sam2.1_hiera_tiny with seeded random weights."""
    import torch  # not by all who import this file: tests/unit does without

    from testing.reference.predictor import build_tiny

    path = tmp_path_factory.mktemp("models") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": build_tiny().state_dict()}, path)
    return path


@pytest.fixture(scope="session")
def encoder(stack: Stack) -> Iterator[Any]:
    with grpc.insecure_channel(stack.encoder, MANY_CALLS) as channel:
        yield encoder_pb2_grpc.EncoderServiceStub(channel)


@pytest.fixture(scope="session")
def decoder(stack: Stack) -> Iterator[Any]:
    with grpc.insecure_channel(stack.decoder, MANY_CALLS) as channel:
        yield decoder_pb2_grpc.DecoderServiceStub(channel)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as served:
        yield served


@pytest.fixture(scope="session")
def browser_runtime() -> None:
    """Skips tests that decode in the browser where that has not been fetched, or fails them where CI is set."""
    if not (ROOT / "clients/web/maskwire_web/decoder/onnxruntime").exists():
        message = "scripts/browser-decoder has not fetched the runtime; it needs npm"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="module")
def browser(pytestconfig: pytest.Config) -> Iterator["Browser"]:
    shared = pytestconfig.pluginmanager.getplugin("shared browser")
    assert shared is not None
    yield shared.get()
    shared.leave()


@pytest.fixture
def open_tab(browser: "Browser", gateway: str) -> Iterator[Callable[..., "Tab"]]:
    """A function that opens the page in a tab; it takes the arguments of Tab after the first."""
    from testing.chromium import Tab

    tabs: list[Tab] = []

    def make(url: str = gateway, **options: Any) -> Tab:
        tabs.append(Tab(browser, url, **options))
        return tabs[-1]

    yield make
    for tab in tabs:
        tab.close()
