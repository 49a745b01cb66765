"""Bounds on times, which a busy machine can miss: one more try for tests that say so, and a report of such tries."""

from collections.abc import Generator
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

TRIES = pytest.StashKey[int]()
"""Which try of a test runs, from 1."""
_MISSED = pytest.StashKey[str]()
_FIRST = "missed at the first try"


class TooSlow(AssertionError):
    """A bound on a time was missed. Nothing else lets a test be tried again."""


def assert_within(took: float, limit: float, what: str = "s") -> None:
    """Holds a test to a bound on a time.

    Args:
        took: What was measured.
        limit: The bound.
        what: What is measured: seconds, unless it says otherwise.

    Raises:
        TooSlow: If it took longer. A test that is marked `time_bound` is then tried once more.
    """
    if took > limit:
        raise TooSlow(f"{took:.3g} {what}, of at most {limit:g}")


class SecondTries:
    """The mark `time_bound`, as a plugin of pytest."""

    def __init__(self) -> None:
        self._seconds: list[str] = []

    def pytest_runtest_protocol(self, item: Any, nextitem: pytest.Item | None) -> bool | None:
        """Runs a marked test, and runs it anew, with its fixtures, if it missed a bound."""
        item.stash[TRIES] = 1
        if item.get_closest_marker("time_bound") is None:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        missed = item.stash.get(_MISSED, "")
        if missed:
            item.stash[TRIES] = 2
            item._initrequest()  # as pytest-rerunfailures does
            item.user_properties.append((_FIRST, missed))  # which reports carry, also from another process
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        if call.when == "call" and call.excinfo is not None and call.excinfo.errisinstance(TooSlow):
            item.stash[_MISSED] = str(call.excinfo.value)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        missed = dict(report.user_properties).get(_FIRST)
        if report.when == "call" and missed is not None:
            self._seconds.append(f"{report.nodeid}: first {missed}; then it {report.outcome}")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says of each second try what it was for."""
        if self._seconds:
            terminalreporter.section("second tries of tests of time bounds")
        for line in self._seconds:
            terminalreporter.line(line)
