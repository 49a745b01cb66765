"""Fixtures of the attacks: one lab for all of them, and a file of what was seen."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import Lab, Memory, Partner, Person, Work, settled
from .table import RESULTS


class Field:
    """The lab under way: who works in it, who attacks, and what is measured.

    Attributes:
        calm: What the tenant who works noticed while nobody attacked, all such times together.
    """

    def __init__(self, lab: Lab, memory: Memory, person: Person, attacker: Partner) -> None:
        self.lab = lab
        self.memory = memory
        self.person = person
        self.attacker = attacker
        settled(lab, person, 1)  # what is slow only once
        self.calm = settled(lab, person, 2)
        self.begun = memory.restart()

    def rest(self, seconds: float) -> Work:
        """Lets the lab rest."""
        noticed = settled(self.lab, self.person, seconds)
        self.calm += noticed
        return noticed


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
