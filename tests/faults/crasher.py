"""Injects random faults under a mixed load: python -m tests.faults.crasher --minutes 10 --seed 1

Encoders, decoders and the store are killed, stopped and asked to end, connections cut, values damaged, leases dropped.
Meanwhile people embed, click and hold sessions; every mask is compared with the right one. One encoder and one decoder
at least are left alone at a time. Prints a report; the exit code is 1 if an answer was wrong or lost.
"""

import contextlib
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from maskwire import Client

from testing.processes import resident_bytes
from testing.wire import picture

from . import command_line
from .processes import Server
from .world import Doing, World, counts

_PICTURES = range(300, 340)
_POINTS = [(30, 20), (10, 10), (50, 35)]
_RETRY_S = 90


@dataclass
class Report:
    """The outcome of a run."""

    seed: int
    minutes: float
    faults: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    slowest_s: float = 0
    took_s: list[float] = field(default_factory=list)
    leaked_processes: int = 0
    open_files: tuple[int, int] = (0, 0)
    rss_mib: tuple[float, float] = (0, 0)
    servers: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        def told(counter: Counter[str]) -> str:
            return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))

        took = sorted(self.took_s)
        return [
            f"seed {self.seed}, {self.minutes:g} minutes",
            f"{self.faults.total()} faults: {told(self.faults)}",
            f"{self.operations.total()} operations: {told(self.operations)}",
            f"{len(self.wrong)} wrong masks, {len(self.lost)} lost requests",
            f"half of the operations within {took[len(took) // 2]:.2f} s, 99 of 100 within "
            f"{took[len(took) * 99 // 100]:.1f} s, the slowest {took[-1]:.1f} s",
            f"processes left behind: {self.leaked_processes}; this process's open files: {self.open_files[0]} before, "
            f"{self.open_files[1]} after; memory: {self.rss_mib[0]:.0f} MiB before, {self.rss_mib[1]:.0f} MiB after",
            *(f"{name}: {state}" for name, state in self.servers.items()),
            *self.wrong[:10],
            *self.lost[:10],
        ]


class Crasher:
    """Injects faults into a cluster. Each kind is a method; after all of them the cluster can recover.

    Args:
        world: The cluster, with proxies.
        pick: Source of random choices.
        report: Where faults are counted.
    """

    def __init__(self, world: World, pick: random.Random, report: Report) -> None:
        self._world = world
        self._pick = pick
        self._report = report
        self._kinds: list[tuple[float, Callable[[], str | None]]] = [
            (2, self._kill),
            (1, self._end),
            (2, self._stop),
            (3, self._cut),
            (1, self._cut_store),
            (0.5, self._kill_store),
            (1, self._stop_store),
            (1, self._damage),
            (1, self._drop_leases),
            (1, self._forget),
            (1, self._slow),
        ]

    def run(self, until: float, pause_s: float) -> None:
        """Injects faults until a time of time.monotonic()."""
        while time.monotonic() < until:
            (kind,) = self._pick.choices([kind for _, kind in self._kinds], [weight for weight, _ in self._kinds])
            self._restart_dead()
            with contextlib.suppress(ConnectionError, OSError):  # the store is away for the damage, too
                if (name := kind()) is not None:
                    self._report.faults[name] += 1
            time.sleep(self._pick.uniform(0.3, 1.7) * pause_s)
        self._restart_dead()

    def _restart_dead(self) -> None:
        for server in [self._world.store, *self._world.servers]:
            if not server.lives:
                server.start()

    def _victim(self) -> Server | None:
        """Returns a running server that another one can stand in for, or None."""
        group = self._pick.choice([self._world.encoders, self._world.decoders])
        victim = self._pick.choice(group)
        return victim if victim.lives and all(server.ready() for server in group if server is not victim) else None

    def _kill(self) -> str | None:
        if (victim := self._victim()) is None:
            return None
        victim.kill()
        victim.start()
        return f"SIGKILL {self._kind(victim)}"

    def _end(self) -> str | None:
        if (victim := self._victim()) is None:
            return None
        victim.send(signal.SIGTERM)  # started again when it has ended
        return f"SIGTERM {self._kind(victim)}"

    def _stop(self) -> str | None:
        if (victim := self._victim()) is None:
            return None
        victim.send(signal.SIGSTOP)
        time.sleep(self._pick.uniform(0.1, 4))
        victim.send(signal.SIGCONT)
        return f"SIGSTOP {self._kind(victim)}"

    def _cut(self) -> str | None:
        server = self._pick.choice(self._world.servers)
        return "connections of clients cut" if self._world.ways[server.port].cut() else None

    def _cut_store(self) -> str | None:
        return "connections to the store cut" if self._world.ways[self._world.store.port].cut() else None

    def _kill_store(self) -> str:
        self._world.store.kill()
        time.sleep(self._pick.uniform(0, 1))
        self._world.store.start().wait()
        return "store killed, back empty"

    def _stop_store(self) -> str:
        self._world.store.send(signal.SIGSTOP)
        time.sleep(self._pick.uniform(0.1, 3))
        self._world.store.send(signal.SIGCONT)
        return "store stopped"

    def _damage(self) -> str | None:
        names = self._world.raw.keys("maskwire:embedding:*")
        if not names:
            return None
        name = self._pick.choice(sorted(names))
        at = self._pick.randrange(max(1, self._world.raw.strlen(name)))
        byte = self._world.raw.getrange(name, at, at)
        if not byte:
            return None
        self._world.raw.setrange(name, at, bytes([byte[0] ^ (1 << self._pick.randrange(8))]))
        for server in self._world.decoders[:1]:  # one that has nothing in memory will read it
            if server.lives and self._world.decoders[1].ready():
                server.kill()
                server.start()
        return "bit flipped in the store"

    def _drop_leases(self) -> str:
        for name in self._world.raw.keys("maskwire:lease:*"):
            self._world.raw.delete(name)
        return "leases dropped"

    def _forget(self) -> str | None:
        names = sorted(self._world.raw.keys("maskwire:*"))
        if not names:
            return None
        self._world.raw.delete(*self._pick.sample(names, max(1, len(names) // 4)))
        return "a quarter of the keys dropped"

    def _slow(self) -> str:
        way = self._pick.choice(list(self._world.ways.values()))
        way.latency_s = 0.2
        time.sleep(self._pick.uniform(0.5, 2))
        way.latency_s = 0
        return "200 ms of latency"

    def _kind(self, server: Server) -> str:
        return "encoder" if server in self._world.encoders else "decoder"


class Load:
    """People who embed, click and hold sessions, each on a thread of their own.

    Args:
        world: The cluster that they use.
        right: Correct masks by picture and point, and those of sessions by picture.
        report: Where answers are counted.
    """

    def __init__(
        self,
        world: World,
        right: dict[tuple[int, tuple[int, int]], str],
        sessions: dict[int, list[str]],
        report: Report,
    ) -> None:
        self._client: Client = world.client(retry_s=_RETRY_S, timeout_s=_RETRY_S)
        self._right = right
        self._sessions = sessions
        self._report = report
        self._lock = threading.Lock()

    def run(self, until: float, seed: int) -> None:
        """Does what one person does."""
        pick = random.Random(seed)
        while time.monotonic() < until:
            kind = pick.choice([self._click, self._click, self._click, self._embed, self._session])
            name = kind.__name__.strip("_")
            started = time.monotonic()
            try:
                kind(pick)
            except Exception as error:  # whatever it is, the request was lost
                with self._lock:
                    self._report.lost.append(f"lost after {time.monotonic() - started:.0f} s: {name}: {error!r}"[:300])
            with self._lock:
                self._report.operations[name] += 1
                self._report.took_s.append(time.monotonic() - started)

    def close(self) -> None:
        self._client.close()

    def _check(self, got: str, expected: str, what: str) -> None:
        if got != expected:
            with self._lock:
                self._report.wrong.append(f"wrong: {what}")

    def _click(self, pick: random.Random) -> None:
        number, point = pick.choice(list(self._right))
        result = self._client.segment(picture(number), points=[point])
        self._check(counts(result), self._right[number, point], f"click {point} on {number}")

    def _embed(self, pick: random.Random) -> None:
        width, height = pick.randrange(20, 80), pick.randrange(20, 80)
        data = picture(pick.getrandbits(40), width, height)
        stored = self._client.embed(data)
        self._check(f"{stored.width}x{stored.height}", f"{width}x{height}", "size of an image")

    def _session(self, pick: random.Random) -> None:
        number = pick.choice(list(self._sessions))
        with self._client.session(picture(number)) as session:
            for point, expected in zip(_POINTS, self._sessions[number], strict=True):
                self._check(counts(session.click(*point)), expected, f"session's click {point} on {number}")


def run(minutes: float, seed: int, people: int = 6, pause_s: float = 1.5) -> Report:
    """Starts a cluster and injects faults into it for some minutes."""
    report = Report(seed, minutes)
    pick = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        with World(Path(folder), proxied=True) as world:
            right = {(number, point): world.right(number, point) for number in _PICTURES for point in _POINTS}
            sessions: dict[int, list[str]] = {}
            for number in list(_PICTURES)[:10]:
                with world.calm.session(picture(number)) as session:
                    sessions[number] = [counts(session.click(*point)) for point in _POINTS]
            load = Load(world, right, sessions, report)
            files, rss = _open_files(world), _rss()
            until = time.monotonic() + minutes * 60
            workers = [
                Doing(lambda number=number: load.run(until, seed * 1000 + number))  # type: ignore[misc]
                for number in range(people)
            ]
            Crasher(world, pick, report).run(until, pause_s)
            world.mend()
            for worker in workers:
                worker.result(_RETRY_S + 60)
            report.open_files, report.rss_mib = (files, _open_files(world)), (rss, _rss())
            for server in world.servers:
                kind = "encoder" if server in world.encoders else "decoder"
                report.servers[f"{kind} {server.port}"] = (
                    f"{server.open_files} open files, {server.rss / 2**20:.0f} MiB at the end"
                )
            load.close()
            world.calm.close()
            pids = [server.pid for server in [world.store, *world.servers]]
        report.leaked_processes = sum(Path(f"/proc/{pid}").exists() for pid in pids)
    return report


def _open_files(world: World) -> int:
    """Open files of this process, without those of the proxies: servers and clients keep as many connections as they
    like."""
    return len(os.listdir("/proc/self/fd")) - sum(way.open_files for way in world.ways.values())


def _rss() -> float:
    return resident_bytes("self") / 2**20


def _reported(minutes: float, seed: int) -> tuple[list[str], list[str], bool]:
    report = run(minutes, seed)
    return report.lines(), [], not (report.wrong or report.lost or report.leaked_processes)


if __name__ == "__main__":
    command_line.report(__doc__, "--minutes", 10.0, _reported)
