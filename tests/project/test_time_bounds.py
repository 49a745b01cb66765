"""Tests of time bounds are tried once more, all others never, and the report says which were."""

import os
import subprocess
import sys
from pathlib import Path

from testing.parallel import scopes
from testing.paths import ROOT

TESTS = """
import pytest
from testing.time_bounds import TRIES, assert_within

@pytest.fixture
def tries(request):
    yield request.node.stash[TRIES]

@pytest.mark.time_bound
def test_late_once(tries, tmp_path):
    assert not list(tmp_path.iterdir())  # fixtures are made anew
    (tmp_path / "file").touch()
    assert_within({1: 3.0, 2: 1.0}[tries], 2)

@pytest.mark.time_bound
def test_late_twice(tries):
    assert tries <= 2
    assert_within(3, 2)

@pytest.mark.time_bound
def test_wrong_mask(tries):
    assert tries == 2, "a wrong mask"

def test_unmarked(tries):
    assert_within(5, 2)
"""


def test_only_a_missed_bound_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "from testing.time_bounds import SecondTries\n"
        "def pytest_configure(config):\n"
        "    config.addinivalue_line('markers', 'time_bound')\n"
        "    config.pluginmanager.register(SecondTries())\n"
    )
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", str(tmp_path / "test_it.py")]
    command += ["--rootdir", str(tmp_path)]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # of plugins none is needed
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert "3 failed, 1 passed" in ran.stdout, ran.stdout + ran.stderr
    assert "test_it.py::test_late_once: first 3 s, of at most 2; then it passed" in ran.stdout
    assert "test_it.py::test_late_twice: first 3 s, of at most 2; then it failed" in ran.stdout
    assert "test_wrong_mask: first" not in ran.stdout
    assert "test_unmarked: first" not in ran.stdout


def test_they_run_in_one_process() -> None:
    """First, beside the unit tier and tests/project; without them, last."""
    store, waiting = "tests/services/core/test_store.py", "tests/services/decoder/test_waiting.py"
    failing, killed = "tests/faults/test_store_fails.py", "tests/faults/test_decoders_fail.py"
    others = [f"{killed}::test_a", f"{failing}::test_a", f"{store}::test_a", f"{store}::test_b", f"{waiting}::test_a"]
    bounds = [f"{killed}::test_c", f"{failing}::test_c", f"{store}::test_c"]
    quiet = [f"tests/{name}.py::test_a" for name in ("project/test_training", "unit/test_a")]
    for collection in ([*others, *bounds], [*bounds, *quiet, *others]):
        found = scopes(collection)
        assert [found[test] for test in others] == ["tests/faults/", "tests/faults/", store, store, waiting]
        assert {found[test] for test in bounds} == {"tests of time bounds"}
    assert [found[test] for test in quiet] == ["tests/project/test_training.py", "tests/unit/test_a.py"]
