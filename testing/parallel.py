"""Tests in two processes at a time (pytest -n 2): what stays together, and what must run alone."""

import contextlib
import fcntl
import os
from collections.abc import Generator, Iterator

import pytest
from xdist.scheduler import LoadScopeScheduling

from testing.paths import ROOT


class _ByFile(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """A file's tests go to one process, in order, because they share servers; those of tests/faults share a cluster."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/faults" if nodeid.startswith("tests/faults/") else nodeid.partition("::")[0]


class Parallel:
    """Schedules the tests of several processes, as a plugin of pytest."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: object) -> _ByFile:
        config.option.loadscopereorder = False  # it would put the files with few tests last, which are the long ones
        return _ByFile(config, log)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Lets a test whose subject is a time run while no other does."""
        if "PYTEST_XDIST_WORKER" not in os.environ:
            return (yield)
        alone = item.get_closest_marker("time_bound") is not None
        with _room(fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
            return (yield)


@contextlib.contextmanager
def _room(kind: int) -> Iterator[None]:
    folder = ROOT / "out"
    folder.mkdir(exist_ok=True)
    with open(folder / "tests.door", "w") as door, open(folder / "tests.room", "w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)  # who waits to be alone keeps others from entering
        fcntl.flock(room, kind)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield
