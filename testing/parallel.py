"""Tests in several processes at a time (pytest -n 3): what stays together, and what must run alone."""

import contextlib
import fcntl
import os
from collections.abc import Generator, Sequence

import pytest
from xdist.scheduler import LoadScopeScheduling

from testing.paths import ROOT

_ALONE = "tests of time bounds"
_FAULTS = "tests/faults/"
_QUIET = ("tests/unit/", "tests/project/")
"""Their tests take one core, so that one of them may run beside those of time bounds."""


def scopes(collection: Sequence[str]) -> dict[str, str]:
    """Returns for each test the name of what it belongs to, given the tests' ids in the order of a process of tests.

    A file's tests share servers, and those of tests/faults a cluster. The tests of time bounds, of whatever file, go to
    one process: those before the unit tier and tests/project, or if there is none of them, those from where a file
    comes again.
    """
    files = [nodeid.partition("::")[0] for nodeid in collection]
    first_quiet = next((index for index, file in enumerate(files) if file.startswith(_QUIET)), None)
    found: dict[str, str] = {}
    seen, last, alone = set[str](), "", False
    for index, (nodeid, file) in enumerate(zip(collection, files, strict=True)):
        if first_quiet is not None:
            alone = index < first_quiet
        else:
            alone = alone or (file != last and file in seen)
        seen.add(file)
        last = file
        found[nodeid] = _ALONE if alone else _FAULTS if file.startswith(_FAULTS) else file
    return found


class _Together(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives tests that belong together to one process, in order."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        super().__init__(config, log)
        self._scopes: dict[str, str] = {}

    def add_node_collection(self, node: object, collection: Sequence[str]) -> None:
        self._scopes = self._scopes or scopes(collection)
        super().add_node_collection(node, collection)

    def _split_scope(self, nodeid: str) -> str:
        return self._scopes[nodeid]


class Parallel:
    """Schedules the tests of several processes, as a plugin of pytest."""

    def __init__(self) -> None:
        self._room: _Room | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Puts tests/faults first, which is more than any file for one process.

        Tests of time bounds come before all, while another process runs the unit tier and tests/project; where there is
        none of them, they come last. Between others, all processes would wait for each, and it for their tests.
        """
        if "PYTEST_XDIST_WORKER" not in os.environ:
            return
        any_quiet = any(item.nodeid.startswith(_QUIET) for item in items)

        def rank(item: pytest.Item) -> int:
            if item.get_closest_marker("time_bound") is not None:
                return 0 if any_quiet else 4
            return 1 if item.nodeid.startswith(_QUIET) else 2 if item.nodeid.startswith(_FAULTS) else 3

        items.sort(key=rank)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: object) -> _Together:
        config.option.loadscopereorder = False  # it would put the files with few tests last, which are the long ones
        return _Together(config, log)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Lets a test whose subject is a time run while no other does but one of the unit tier and tests/project. Its
        fixtures are made while others run."""
        if "PYTEST_XDIST_WORKER" not in os.environ:
            return (yield)
        with contextlib.closing(_Room()) as self._room:
            if not item.nodeid.startswith(_QUIET) or not self._room.stay_beside():
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
        names = ("tests.door", "tests.room", "tests.beside")
        self._door, self._room, self._beside = (open(folder / name, "w") for name in names)  # noqa: SIM115

    def enter(self, alone: bool = False) -> None:
        """Leaves, if this process is there, and waits until it may enter again."""
        fcntl.flock(self._room, fcntl.LOCK_UN)
        fcntl.flock(self._door, fcntl.LOCK_EX)  # who waits to be alone keeps others from entering
        fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._door, fcntl.LOCK_UN)

    def stay_beside(self) -> bool:
        """Has this process run beside whoever is alone, unless another does. Returns whether it may."""
        try:
            fcntl.flock(self._beside, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        for file in (self._room, self._door, self._beside):
            file.close()
