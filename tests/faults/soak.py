"""All attacks together, while a tenant works: python -m tests.faults.soak --minutes 10 --seed 1

Two tenants and nobody attack a lab in all ways of `tests.faults.attacks`, in random order, each always with one. A
third tenant clicks and embeds; each of its masks is compared with that of calm. Prints a report; the exit code is 1 if
a server ended, a mask was wrong, a call of the third was refused, or a server took more memory than
docs/explanation/security.md allows.
"""

import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from . import command_line
from .attacks import attacker  # noqa: F401 - it imports all attacks
from .attacks.kinds import ATTACKS
from .attacks.lab import Lab, Memory, Partner, Work, settled
from .attacks.table import SUMS

_ATTACKERS = ("attacks", "attacks-too", "")
_LOOK_S = 10


def run(minutes: float, seed: int) -> tuple[list[str], list[str]]:
    """Returns the lines of the report, and descriptions of what went wrong."""
    pick, wrong, stop = random.Random(seed), list[str](), threading.Event()
    made, ends = Counter[str](), Counter[str]()

    def attack(tenant: str, numbers: random.Random) -> None:
        ways = [way for way in ATTACKS if way.needs_token == bool(tenant) and not way.tls]
        with Partner("attacker") as partner:
            while not stop.is_set():
                way = numbers.choice(ways)
                partner.ask({"names": [way.name], "target": lab.target(tenant, numbers.uniform(2, 10))})
                made[way.name] += 1

    with (
        tempfile.TemporaryDirectory() as folder,
        Lab(Path(folder)) as lab,
        Memory(lab.servers) as memory,
        lab.person() as person,
    ):
        settled(lab, person, 2)
        calm = settled(lab, person, 10)
        begun = memory.restart()
        attackers = [
            threading.Thread(target=attack, args=(tenant, random.Random(pick.getrandbits(32))), daemon=True)
            for tenant in _ATTACKERS
        ]
        for one in attackers:
            one.start()
        noticed, end = Work([], [], Counter(), 0), time.monotonic() + minutes * 60
        while time.monotonic() < end:
            time.sleep(min(_LOOK_S, max(0, end - time.monotonic())))
            noticed += person.since()
            for name in lab.dead():
                ends[name] += 1
                lab.servers[name].start().wait()
        most = dict(memory.most)
        stop.set()
        for one in attackers:
            one.join(60)
        settled(lab, person, 2)
        after = settled(lab, person, 10)
        now = memory.restart()
        exits = [server.end() for server in lab.servers.values()]
    lines = [
        f"seed {seed}, {minutes:g} minutes: {made.total()} attacks of {len(made)} kinds by two tenants and by nobody"
    ]
    lines.append(
        f"the third tenant: {len(noticed.clicks)} clicks and {len(noticed.others)} other calls, {noticed.wrong} wrong "
        f"masks, {noticed.failed.total()} refused or failed"
    )
    lines += [f"  {what}: {count}" for what, count in noticed.failed.most_common(8)]
    for name, work in (("calm", calm), ("under attack", noticed), ("afterwards", after)):
        half = statistics.median(work.clicks) * 1e3
        lines.append(
            f"clicks {name}: half within {half:.0f} ms, 99 of 100 within {work.p99() * 1e3:.0f} ms; slowest call of "
            f"any kind {work.slowest_s:.2f} s"
        )
    for name in most:
        lines.append(
            f"{name}: {begun[name] >> 20} MiB before, at most {most[name] >> 20} MiB, {now[name] >> 20} MiB "
            f"afterwards, of {SUMS[name] >> 20} allowed; ended {ends[name]} times"
        )
        if most[name] > SUMS[name]:
            wrong.append(f"{name} took more than the {SUMS[name] >> 20} MiB that it should at most")
    wrong += [f"{name} ended" for name in ends]
    wrong += [f"wrong masks: {noticed.wrong}"] if noticed.wrong else []
    wrong += [f"{what}: {count}" for what, count in noticed.failed.items()]
    wrong += [f"exit code {code}" for code in exits if code]
    return lines, wrong


def _reported(minutes: float, seed: int) -> tuple[list[str], list[str], bool]:
    lines, wrong = run(minutes, seed)
    return lines, wrong[-20:], not wrong


if __name__ == "__main__":
    command_line.report(__doc__, "--minutes", 10.0, _reported)
