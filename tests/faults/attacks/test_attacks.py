"""Attacks in one lab, together and each by itself: memory stays within bounds, and another tenant goes on working."""

import os
import statistics
from dataclasses import dataclass
from pathlib import Path

import pytest

from testing.processes import wait_until
from testing.time_bounds import assert_within

from . import attacker  # noqa: F401 - it imports all attacks
from .conftest import Field
from .kinds import ATTACKS, Attack
from .lab import SUMS, Work
from .table import Seen, save

GROWTH_MIB = 512
"""By how much a server may grow under one attack: the bytes that calls may hold together, and some garbage."""
_QUICK_S = 3.0
_LONG_S = float(os.environ.get("MASKWIRE_TEST_ATTACK_S", "8"))
_SLOWER = 3
_CALM_MS = 10
"""Calm clicks that take less count as this: a few ms more are not what people notice."""


def groups() -> dict[str, list[Attack]]:
    """Returns attacks that are made together: those of one module, by a tenant or by nobody."""
    found: dict[str, list[Attack]] = {}
    for attack in ATTACKS:
        module = attack.run.__module__.rpartition(".")[2]
        found.setdefault(f"{module} of {_who(attack)}", []).append(attack)
    return found


def _who(attack: Attack) -> str:
    return "a tenant" if attack.needs_token else "nobody"


@pytest.mark.slow
@pytest.mark.parametrize("group", groups())
@pytest.mark.time_bound
def test_others_go_on_under_attacks_together(field: Field, group: str) -> None:
    attacks = groups()[group]
    seen = attacked(field, attacks, _QUICK_S)
    hold(seen, attacks)
    calm = statistics.median(field.calm.clicks) * 1e3
    assert_within(statistics.median(seen.work.clicks) * 1e3, _SLOWER * max(calm, _CALM_MS), "ms for half of the clicks")


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
@pytest.mark.time_bound
def test_others_go_on(field: Field, results: Path, attack: Attack) -> None:
    seen = attacked(field, [attack], _LONG_S)
    calm_ms, clicks_ms = (round(work.p99() * 1e3, 1) for work in (field.calm, seen.work))
    save(
        Seen(
            attack.name,
            attack.how,
            _who(attack),
            attack.before,
            seen.peak_mib,
            seen.grown_mib,
            calm_ms,
            clicks_ms,
            round(seen.work.slowest_s, 3),
            seen.work.failed.total(),
            seen.outcomes[attack.name],
        ),
        results,
    )  # also of an attack that succeeds: the table says what is seen
    hold(seen, [attack])
    assert_within(clicks_ms, _SLOWER * max(calm_ms, _CALM_MS), "ms for 99 of 100 clicks")


@dataclass
class Noticed:
    """What attacks did: what the tenant who works noticed, what servers took, and what attackers were answered."""

    work: Work
    peak_mib: dict[str, int]
    grown_mib: dict[str, int]
    outcomes: dict[str, dict[str, int]]


def attacked(field: Field, attacks: list[Attack], seconds: float) -> Noticed:
    """Attacks for so long, and waits until all servers answer."""
    lab = field.lab
    for name in lab.dead():  # of an attack before, whose test has failed
        lab.servers[name].start().wait()
    field.rest(0.5)
    before = field.memory.restart()
    tenant = "attacks" if attacks[0].needs_token else ""
    names = [attack.name for attack in attacks]
    outcomes = field.attacker.ask({"names": names, "target": lab.target(tenant, seconds)})
    work = field.person.since()
    most = dict(field.memory.most)
    assert not lab.dead()
    wait_until(lambda: all(server.ready() for server in lab.servers.values()), 10)
    work += field.person.since()  # calls that began under the attack
    grown = {name: (most[name] - before[name]) >> 20 for name in most}
    return Noticed(work, {name: count >> 20 for name, count in most.items()}, grown, outcomes)


def hold(seen: Noticed, attacks: list[Attack]) -> None:
    """Holds the servers to all but times: nothing grows without bounds, and nobody else is refused or told wrong."""
    assert seen.work.wrong == 0
    assert not seen.work.failed
    assert all(seen.peak_mib[name] <= SUMS[name] >> 20 for name in seen.peak_mib), seen.peak_mib
    assert max(seen.grown_mib.values()) < GROWTH_MIB, seen.grown_mib
    for attack in attacks:
        if attack.refused:
            answered = [what for what in seen.outcomes[attack.name] if what.startswith(("OK", "2"))]
            assert not answered, seen.outcomes
