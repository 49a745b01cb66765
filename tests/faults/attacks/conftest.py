"""Fixtures of the attacks: one lab for all of them, and a file of what was seen."""

import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import Lab, Memory, Partner, Person, Work, settled
from .table import RESULTS

CALM_S = 3.0
SETTLED_S = 10.0
"""Longest time until nobody notices an attack any more that has ended, in seconds."""
_LOOK_S = 0.5
_AS_BEFORE = 2


class Field:
    """The lab under way: who works in it, who attacks, and what is measured."""

    def __init__(self, lab: Lab, memory: Memory, person: Person, attacker: Partner) -> None:
        self.lab = lab
        self.memory = memory
        self.person = person
        self.attacker = attacker
        self._calm: Work | None = None
        settled(lab, person, 1)  # what is slow only once
        memory.restart()

    @contextlib.contextmanager
    def with_tls(self) -> Iterator["Field"]:
        """The same with a decoder that has TLS, in which somebody else works meanwhile."""
        lab = self.lab
        with lab.with_tls(), Memory(lab.servers) as memory, lab.person() as person:
            yield Field(lab, memory, person, self.attacker)

    def calm(self) -> Work:
        """What the tenant who works notices while nobody attacks: for some seconds, from now or until now."""
        dead = self.lab.dead()
        for name in dead:  # of an attack before, whose test has failed
            self.lab.servers[name].start().wait()
        if self._calm is None or dead:
            self._calm = settled(self.lab, self.person, CALM_S)
        return self._calm

    def calm_again(self, before: Work) -> tuple[Work, float, Work]:
        """Waits until the tenant who works notices no more of an attack: half of the clicks take at most twice what
        half of them took before it.

        Returns:
            What was noticed until then, how long it took in seconds, and what was noticed afterwards.
        """
        started, most = time.monotonic(), _AS_BEFORE * statistics.median(before.clicks)
        self._calm = None
        noticed = latest = settled(self.lab, self.person, _LOOK_S)
        while statistics.median(latest.clicks) > most and time.monotonic() - started < 2 * SETTLED_S:
            latest = settled(self.lab, self.person, _LOOK_S)
            noticed += latest
        took_s = time.monotonic() - started - _LOOK_S
        self._calm = settled(self.lab, self.person, CALM_S)
        return noticed, took_s, self._calm


@pytest.fixture(scope="session")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with (
        Lab(tmp_path_factory.mktemp("attacks")) as lab,
        Memory(lab.servers) as memory,
        lab.person() as person,
        Partner("attacker") as attacker,
    ):
        yield Field(lab, memory, person, attacker)


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.rootpath / os.environ.get("MASKWIRE_ATTACK_RESULTS", RESULTS)
