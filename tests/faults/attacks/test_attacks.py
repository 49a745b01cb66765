"""Attacks in one lab, together and each by itself: memory stays within bounds, and another tenant goes on working."""

import contextlib
import os
import signal
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from maskwire.cli.health import health

from testing.deaf_client import deaf_call
from testing.processes import wait_until
from testing.time_bounds import TRIES, assert_within

from . import attacker  # noqa: F401 - it imports all attacks
from .conftest import SETTLED_S, Field
from .kinds import ATTACKS, NOBODY, Attack
from .lab import Work
from .table import CALM_MS, SLOWER, SUMS, Seen, save

GROWTH_MIB = 640
"""By how much a server may grow under one attack: the 512 MiB that calls may hold together, and a quarter of that which
was freed and is not given back yet. A tracker may have 2 GiB for open tracks, so only its sum holds."""
_QUICK_S = 3.0
_LONG_S = float(os.environ.get("MASKWIRE_TEST_ATTACK_S", "8"))


def groups() -> dict[str, list[Attack]]:
    """Returns attacks that are made together: those of one module, by the same attacker."""
    found: dict[str, list[Attack]] = {}
    for attack in ATTACKS:
        if attack.tls:
            continue
        module = attack.run.__module__.rpartition(".")[2]
        found.setdefault(f"{module} of {attack.by}", []).append(attack)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("group", groups())
@pytest.mark.time_bound
def test_others_go_on_under_attacks_together(field: Field, group: str) -> None:
    attacks = groups()[group]
    seen = attacked(field, attacks, _QUICK_S)
    hold(seen, attacks)
    calm_ms, clicks_ms = (statistics.median(work.clicks) * 1e3 for work in (seen.calm, seen.work))
    assert_within(clicks_ms, SLOWER * max(calm_ms, CALM_MS), "ms for half of the clicks")


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
@pytest.mark.time_bound
def test_others_go_on(field: Field, results: Path, request: pytest.FixtureRequest, attack: Attack) -> None:
    with field.with_tls() if attack.tls else contextlib.nullcontext(field) as attacked_field:
        seen = attacked(attacked_field, [attack], _LONG_S)
    row = seen.row(attack.name, attack.how, attack.by, attack.before, request.node.stash[TRIES])
    row.outcomes = seen.outcomes[attack.name]
    save(row, results)  # also of an attack that succeeds: the table says what is seen
    hold(seen, [attack])
    assert_within(row.clicks_ms, row.most_clicks_ms, "ms for 99 of 100 clicks")
    assert_within(row.settled_s, SETTLED_S, "s until clicks are as before the attack")


@pytest.mark.slow
@pytest.mark.time_bound
def test_a_watched_server_stops(field: Field, results: Path, request: pytest.FixtureRequest) -> None:
    """A decoder that is told to stop does so, whoever watches its health without reading."""
    calm, service = field.calm(), "maskwire.v1.DecoderService"
    watched = [health_pb2.HealthCheckRequest(service=name).SerializeToString() for name in ("", service)]
    doomed = field.lab.another.start().wait()
    before = field.memory.restart()
    with contextlib.ExitStack() as calls:
        for message in watched:
            calls.enter_context(deaf_call(doomed.address, "/grpc.health.v1.Health/Watch", message))
        channel = calls.enter_context(grpc.insecure_channel(doomed.address))
        states = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service))
        assert next(states).status == health_pb2.HealthCheckResponse.SERVING
        started = time.monotonic()
        doomed.send(signal.SIGTERM)
        assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
        told_s = time.monotonic() - started
        assert doomed.end() == 0
        ended_s = time.monotonic() - started
    assert health(doomed.address) != "SERVING"
    seen = Noticed(field.person.since(), calm, 0, *field.memory.grown(before), {})
    row = seen.row(
        "watches that are not read",
        "two Watch calls of health with a window of 0 bytes, while a decoder is told to stop",
        NOBODY,
        "SERVING for 60 s after SIGTERM",
        request.node.stash[TRIES],
    )
    row.outcomes = {f"NOT_SERVING after {told_s:.2f} s, ended after {ended_s:.1f} s": 1}
    save(row, results)
    hold(seen, [])
    assert_within(ended_s, 8, "s until the decoder ended")


@dataclass
class Noticed:
    """What attacks did.

    Attributes:
        work: What the tenant who works noticed under them.
        calm: And before and after them.
        settled_s: How long after them clicks were still slow, in seconds.
        peak_mib: The most memory that each server took, in MiB.
        grown_mib: By how much that is more than before.
        outcomes: What attackers were answered, by attack.
    """

    work: Work
    calm: Work
    settled_s: float
    peak_mib: dict[str, int]
    grown_mib: dict[str, int]
    outcomes: dict[str, dict[str, int]]

    def row(self, name: str, how: str, by: str, before: str, tries: int) -> Seen:
        """A row of the table, without outcomes."""
        return Seen(
            name,
            how,
            by,
            before,
            self.peak_mib,
            self.grown_mib,
            round(self.calm.p99() * 1e3, 1),
            round(self.work.p99() * 1e3, 1),
            len(self.work.clicks),
            round(self.work.slowest_s, 3),
            self.work.failed.total(),
            round(self.settled_s, 1),
            {},
            tries,
        )


def attacked(field: Field, attacks: list[Attack], seconds: float) -> Noticed:
    """Attacks for so long, and waits until all servers answer as before."""
    before = field.calm()
    lab, begun = field.lab, field.memory.restart()
    tenant = "attacks" if attacks[0].needs_token else ""
    names = [attack.name for attack in attacks]
    outcomes = field.attacker.ask({"names": names, "target": lab.target(tenant, seconds)})
    work = field.person.since()
    most = field.memory.grown(begun)
    assert not lab.dead()
    wait_until(lambda: all(server.ready() for server in lab.servers.values()), 10)
    late, settled_s, after = field.calm_again(before)
    return Noticed(work + late, before + after, settled_s, *most, outcomes)


def hold(seen: Noticed, attacks: list[Attack]) -> None:
    """Holds the servers to all but times: nothing grows without bounds, and nobody else is refused or told wrong."""
    assert seen.work.wrong == 0
    assert not seen.work.failed
    assert all(seen.peak_mib[name] <= SUMS[name] >> 20 for name in seen.peak_mib), seen.peak_mib
    if len(attacks) <= 1:  # several take what they may have of several budgets, such as arriving files and decoding
        grown = {name: mib for name, mib in seen.grown_mib.items() if name != "tracker"}
        assert max(grown.values()) < GROWTH_MIB, grown
    for attack in attacks:
        if attack.refused:
            answered = [what for what in seen.outcomes[attack.name] if what.startswith(("OK", "2"))]
            assert not answered, seen.outcomes
