"""Fixtures of the rows: a small cluster whose parts fail, and a note of what was observed."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.processes import wait_until
from testing.time_bounds import TRIES

from .results import Observation, save
from .world import World

RESULTS = Path(os.environ.get("MASKWIRE_FAULT_RESULTS", "out/faults.json"))
"""Observations are added to this file, from which `python -m tests.faults.report` writes docs/reliability.md."""


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Iterator[Observation]:
    """An observation for the test to fill in, which is stored if the test passes."""
    marker = request.node.get_closest_marker("fault")
    row = marker.args[0]
    variant = request.node.callspec.id if hasattr(request.node, "callspec") else marker.kwargs.get("variant", "")
    noted = Observation(row, variant, tries=request.node.stash[TRIES])
    request.node.stash[_FAILED] = False  # of an earlier try
    yield noted
    if not request.node.stash.get(_FAILED, False):
        assert noted.injected
        assert noted.observed
        save(noted, request.config.rootpath / RESULTS)


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    if outcome.get_result().failed:
        item.stash[_FAILED] = True


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two encoders, two decoders and a store for all rows; tests use it through `world`."""
    with World(tmp_path_factory.mktemp("faults")) as started:
        yield started


@pytest.fixture
def world(cluster: World) -> World:
    """The cluster with all its parts working, idle encoders and an empty store."""
    cluster.mend()
    # One that stood still has an image of the test before, which this test would take for its own.
    wait_until(lambda: not any(load.waiting or load.encoding for load in map(cluster.load, cluster.encoders)), 60)
    cluster.raw.flushall()
    return cluster
