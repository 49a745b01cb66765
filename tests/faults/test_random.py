"""Short runs of the crasher and of the fuzzer, and the page that they are quoted on."""

import math
import os
import subprocess
import sys

import pytest
from maskwire.token_bucket import TokenBucket

from . import crasher, fuzz, report
from .growth import Growth
from .results import COMMITTED, load


def test_random_faults() -> None:
    seen = crasher.run(minutes=0.12, seed=2)
    assert (seen.wrong, seen.lost, seen.leaked_processes) == ([], [], 0)
    assert seen.faults.total() >= 3
    assert seen.operations.total() >= 50
    assert seen.open_files[1] <= seen.open_files[0] + 10


def test_damaged_input() -> None:
    lines, wrong = fuzz.run(600, seed=1)
    assert wrong == []
    assert lines[0].startswith("600 inputs")


def test_memory_of_processes_and_their_children_is_noticed() -> None:
    growth = Growth()
    with growth.during("nothing", 16, python=os.getpid()):
        pass
    assert growth.wrong == []
    with growth.during("itself", 16, python=os.getpid()):
        bytearray(b"x") * (64 << 20)
    held = "x = b'x' * (64 << 20); print(flush=True); input()"
    with growth.during("a child", 16, python=os.getpid()):
        child = subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
    child.communicate(b"\n")
    assert [said.partition(":")[0] for said in growth.wrong] == ["itself", "a child"]


def test_the_page_is_what_was_observed() -> None:
    """docs/reliability.md changes by `python -m tests.faults.report` alone."""
    assert report._DOC.read_text() == report.document(load(COMMITTED))


def test_a_budget_of_retries() -> None:
    now = [0.0]
    budget = TokenBucket(rate=2, capacity=3, clock=lambda: now[0])
    assert [budget.reserve(10) for _ in range(5)] == [0, 0, 0, 0.5, 1]
    assert budget.reserve(1) == math.inf  # would be 1.5 s, and takes nothing
    assert budget.reserve(1.5) == 1.5
    assert budget.reserve(0) == math.inf
    now[0] = 2.0
    assert budget.reserve(0) == 0
    assert budget.reserve(0) == math.inf
    budget.give()
    assert budget.reserve(0) == 0
    now[0] = 100.0
    assert [budget.reserve(0) for _ in range(4)] == [0, 0, 0, math.inf]


@pytest.mark.slow
def test_random_faults_for_longer() -> None:
    seen = crasher.run(minutes=3, seed=5)
    assert (seen.wrong, seen.lost, seen.leaked_processes) == ([], [], 0)
