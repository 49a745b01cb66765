"""Holds the tests of this folder to logic alone: one that starts a process, opens a socket or imports torch fails.

So this tier stays quick, and runs where nothing else does. The store that its tests use is a twin in memory.
"""

import contextlib
import sys
from collections.abc import Generator, Iterator
from typing import Any

import grpc
import pytest
from maskwire_core.storage.store import Store

from testing.store_twin import twin_store

_ELSEWHERE = "A test that needs it belongs into tests/services, or tests/exactness if it compares with sam2."
_FORBIDDEN = {
    "socket.connect": "opened a connection",
    "socket.bind": "bound a socket",
    "socket.sendto": "sent a datagram",
    "socket.getaddrinfo": "opened a connection",
    "subprocess.Popen": "started a process",
    "os.fork": "forked",
    "os.forkpty": "forked",
    "os.posix_spawn": "started a process",
    "os.system": "started a process",
}
_HEAVY = {"torch", "sam2", "openvino"}
_said: list[str] | None = None
"""What the test that runs did; None while another tier's tests run."""


def _forbid(what: str) -> None:
    if _said is not None:
        _said.append(f"A test in tests/unit {what}. {_ELSEWHERE}")
        pytest.fail(_said[-1], pytrace=False)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _said is None:
        return
    if event == "import" and arguments[0] in _HEAVY:
        _forbid(f"imported {arguments[0]}")
    elif event in _FORBIDDEN:
        _forbid(_FORBIDDEN[event])


def _grpc_forbidden(name: str, made: Any) -> Any:
    def guarded(*arguments: Any, **named: Any) -> Any:
        _forbid(f"called {name}")
        return made(*arguments, **named)

    return guarded


def pytest_configure() -> None:
    sys.addaudithook(_watch)  # which nothing removes; it looks on while tests of this folder run
    # gRPC opens its sockets where Python does not see them.
    for module in (grpc, grpc.aio):
        for name in ("insecure_channel", "secure_channel", "server"):
            setattr(module, name, _grpc_forbidden(f"{module.__name__}.{name}", getattr(module, name)))


@contextlib.contextmanager
def _watched() -> Iterator[list[str]]:
    """Watches. Yields the list to which is added what was done."""
    global _said
    said = _said = []
    try:
        yield said
    finally:
        _said = None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    with _watched() as said:
        report = yield
    if said:
        report.outcome, report.longrepr = "failed", said[0]
    return report


def _watched_phase() -> Generator[None, object, object]:
    """Watches a phase of a test. What product code caught on its way is said all the same."""
    with _watched() as said:
        try:
            result = yield
        except BaseException:
            if not said:
                raise
    if said:
        raise pytest.fail.Exception(said[0], pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    return (yield from _watched_phase())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    return (yield from _watched_phase())


@pytest.fixture
def store() -> Iterator[Store]:
    """The store's twin in memory."""
    with contextlib.closing(twin_store()) as opened:
        yield opened
