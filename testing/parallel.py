"""Tests in two processes at a time (pytest -n 2): what stays together, and what must run alone."""

import contextlib
import fcntl
import os
from collections.abc import Generator

import pytest
from xdist.scheduler import LoadScopeScheduling

from testing.paths import ROOT


class _ByFile(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """A file's tests go to one process, in order, because they share servers; those of tests/faults share a cluster."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/faults" if nodeid.startswith("tests/faults/") else nodeid.partition("::")[0]


class Parallel:
    """Schedules the tests of several processes, as a plugin of pytest."""

    def __init__(self) -> None:
        self._room: _Room | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: object) -> _ByFile:
        config.option.loadscopereorder = False  # it would put the files with few tests last, which are the long ones
        return _ByFile(config, log)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Lets a test whose subject is a time run while no other does. Its fixtures are made while others run."""
        if "PYTEST_XDIST_WORKER" not in os.environ:
            return (yield)
        with contextlib.closing(_Room()) as self._room:
            self._room.enter()
            try:
                return (yield)
            finally:
                self._room = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        if self._room is not None and item.get_closest_marker("time_bound") is not None:
            self._room.enter(alone=call.when == "setup" and call.excinfo is None)


class _Room:
    """Where processes are while they run tests, together or one alone."""

    def __init__(self) -> None:
        folder = ROOT / "out"
        folder.mkdir(exist_ok=True)
        self._door, self._room = (open(folder / name, "w") for name in ("tests.door", "tests.room"))  # noqa: SIM115

    def enter(self, alone: bool = False) -> None:
        """Leaves, if this process is there, and waits until it may enter again."""
        fcntl.flock(self._room, fcntl.LOCK_UN)
        fcntl.flock(self._door, fcntl.LOCK_EX)  # who waits to be alone keeps others from entering
        fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._door, fcntl.LOCK_UN)

    def close(self) -> None:
        self._room.close()
        self._door.close()
