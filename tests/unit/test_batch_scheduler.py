"""Batches in virtual time: any arrival, cancellation, deadline and failure; fairness; who goes first."""

import asyncio
import math
from collections.abc import Hashable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire_core.errors import DeadlineExceeded, ResourceExhausted
from maskwire_core.scheduling.executors import BatchScheduler
from maskwire_core.scheduling.fair_queue import BULK_SHARE, Limits, Requester
from maskwire_core.scheduling.scheduler import Demand, Served

from testing import virtual_time


@dataclass(frozen=True)
class Request:
    """One caller's piece of work; times in seconds, `patience_s` and `leaves_s` from its arrival."""

    at_s: float
    tenant: str
    caller: int
    kind: str
    bulk: bool
    patience_s: float | None
    leaves_s: float | None
    fails: bool


def by(connection: Hashable, bulk: bool = False, deadline: float = math.inf) -> Demand:
    """A demand of one of a tenant's connections."""
    return Demand(Requester("tenant", connection), bulk, deadline)


class BadBatch(Exception):
    pass


class BadItem(Exception):
    pass


seconds = st.integers(0, 400).map(lambda ms: ms / 1000)
requests = st.builds(
    Request,
    at_s=seconds,
    tenant=st.sampled_from("xy"),
    caller=st.integers(0, 3),
    kind=st.sampled_from("ab"),
    bulk=st.booleans(),
    patience_s=st.none() | seconds,
    leaves_s=st.none() | seconds,
    fails=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(
    wanted=st.lists(requests, min_size=1, max_size=30),
    most=st.integers(1, 8),
    at_once=st.integers(1, 3),
    max_wait_s=st.sampled_from([0, 0.005, 0.05]),
    limit=st.integers(1, 30),
    batch_s=st.lists(st.tuples(seconds, st.booleans()), min_size=1, max_size=10),
)
def test_whatever_happens(
    wanted: list[Request],
    most: int,
    at_once: int,
    max_wait_s: float,
    limit: int,
    batch_s: list[tuple[float, bool]],
) -> None:
    """Nobody waits forever, nobody gets another's result, nothing that expired or was cancelled is run."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        started: dict[int, float] = {}
        running = batches = asked = 0

        async def run(kind: Hashable, items: Sequence[int]) -> list[str | Exception]:
            nonlocal running, batches
            running += 1
            assert running <= at_once
            assert 1 <= len(items) <= most
            for item in items:
                assert item not in started
                assert wanted[item].kind == kind
                started[item] = loop.time()
            duration_s, broken = batch_s[batches % len(batch_s)]
            batches += 1
            await asyncio.sleep(duration_s)
            running -= 1
            if broken:
                raise BadBatch
            return [BadItem() if wanted[item].fails else f"result {item}" for item in items]

        batcher: BatchScheduler[int, str] = BatchScheduler(
            "device", run, most=lambda _: most, at_once=at_once, max_wait_s=max_wait_s, limits=Limits(limit)
        )

        async def ask(index: int, request: Request) -> str:
            nonlocal asked
            await asyncio.sleep(request.at_s)
            idle = not running and not asked
            asked += 1
            try:
                return await answer(index, request, idle)
            finally:
                asked -= 1

        async def answer(index: int, request: Request, idle: bool) -> str:
            deadline = math.inf if request.patience_s is None else loop.time() + request.patience_s
            demand = Demand(Requester(request.tenant, request.caller), request.bulk, deadline)
            work = asyncio.create_task(batcher.submit(index, demand, kind=request.kind))
            if request.leaves_s is not None:
                loop.call_later(request.leaves_s, work.cancel)
            try:
                result, waited_ms = await work
            except asyncio.CancelledError:
                left_at = request.at_s + (request.leaves_s or 0)
                assert started.get(index, 0) <= left_at + 1e-9
                return "cancelled"
            except DeadlineExceeded:
                assert index not in started
                assert loop.time() == pytest.approx(deadline)
                return "expired"
            except ResourceExhausted:
                assert index not in started
                return "refused"
            except (BadBatch, BadItem):
                assert index in started
                return "failed"
            assert result == f"result {index}"
            assert not request.fails
            assert started[index] - request.at_s == pytest.approx(waited_ms / 1e3, abs=1e-6)
            assert not idle or request.patience_s == 0 or waited_ms == 0
            return "done"

        async with asyncio.timeout(1000):
            outcomes = await asyncio.gather(*(ask(index, request) for index, request in enumerate(wanted)))
        await asyncio.sleep(1000)  # what was cancelled goes on to its end
        for index, request in enumerate(wanted):
            if request.patience_s is not None and index in started:
                assert started[index] < request.at_s + request.patience_s + 1e-9
        assert (batcher.waiting, batcher.waiting_bulk, batcher.running) == (0, 0, 0)
        assert batcher.tally.done == len(started)
        assert batcher.tally.refused == outcomes.count("refused")
        # What expires at the moment when its caller leaves may count as either.
        expired, cancelled = outcomes.count("expired"), outcomes.count("cancelled")
        assert expired <= batcher.tally.expired <= expired + cancelled
        assert batcher.tally.cancelled <= cancelled

    virtual_time.run(scenario())


class Device:
    """Records the batches that it runs, each a second long."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.started: list[float] = []

    async def run(self, kind: Hashable, items: Sequence[str]) -> list[str]:
        self.batches.append(list(items))
        self.started.append(asyncio.get_running_loop().time())
        await asyncio.sleep(1)
        return list(items)

    @property
    def order(self) -> list[str]:
        return [item for batch in self.batches for item in batch]


def test_an_idle_device_starts_at_once_and_a_busy_one_gathers() -> None:
    async def scenario() -> None:
        device = Device()
        batcher = BatchScheduler("device", device.run, most=lambda _: 4, at_once=2, max_wait_s=0.1, limits=Limits(100))

        async def ask(at_s: float, item: str) -> None:
            await asyncio.sleep(at_s)
            await batcher.submit(item, by(item))

        arrivals = {"a": 0, "b": 0.02, "c": 0.05, "d": 0.3, "e": 0.4, "f": 0.5, "g": 0.55, "h": 0.6, "i": 0.7}
        await asyncio.gather(*(ask(at_s, item) for item, at_s in arrivals.items()))
        # a at once; b waits for c, but no longer than max_wait; all that came meanwhile goes when a place is free.
        assert device.batches == [["a"], ["b", "c"], ["d", "e", "f", "g"], ["h", "i"]]
        assert device.started == pytest.approx([0, 0.12, 1, 1.12])

    virtual_time.run(scenario())


def test_a_batch_belongs_to_no_call() -> None:
    call: ContextVar[str] = ContextVar("call", default="none")

    async def scenario() -> None:
        seen: list[str] = []

        async def run(kind: Hashable, items: Sequence[str]) -> list[str]:
            seen.append(call.get())
            await asyncio.sleep(1)
            return list(items)

        batcher = BatchScheduler("device", run, limits=Limits(100))

        async def ask(item: str) -> None:
            call.set(item)
            await batcher.submit(item, by(item))

        await asyncio.gather(*(ask(item) for item in "abc"))
        assert seen == ["none"] * 3

    virtual_time.run(scenario())


def test_the_files_that_wait_have_a_limit_in_bytes() -> None:
    async def scenario() -> None:
        device = Device()
        batcher = BatchScheduler("device", device.run, limits=Limits(100, nbytes=100))

        def ask(name: str, tenant: str, nbytes: int) -> asyncio.Task[Served[str]]:
            demand = Demand(Requester(tenant, 0))
            return asyncio.create_task(batcher.submit(name, demand, nbytes=nbytes))

        tasks = [ask("first", "a", 90)]  # it runs, and does not wait
        await asyncio.sleep(0.1)
        tasks += [ask("large 1", "a", 40), ask("large 2", "a", 40), ask("small", "b", 30), ask("large 3", "a", 40)]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(outcome, ResourceExhausted) for outcome in outcomes] == [False, False, True, False, True]
        assert device.order == ["first", "large 1", "small"]

    virtual_time.run(scenario())


async def _flood(batcher: BatchScheduler[str, str], demands: dict[str, Demand]) -> list[asyncio.Task[Served[str]]]:
    """One piece of work that keeps the device busy, then these in order."""
    names = ["first", *demands]
    tasks = []
    for name in names:
        demand = demands.get(name, by("nobody"))
        tasks.append(asyncio.create_task(batcher.submit(name, demand)))
        await asyncio.sleep(0)
    return tasks


def test_callers_take_turns() -> None:
    async def scenario() -> None:
        device = Device()
        batcher = BatchScheduler("device", device.run, limits=Limits(100))
        demands = {f"greedy {index}": by("greedy") for index in range(6)}
        demands |= {f"modest {index}": by("modest") for index in range(2)}
        await asyncio.gather(*await _flood(batcher, demands))
        assert device.order == [
            *("first", "greedy 0", "modest 0", "greedy 1", "modest 1", "greedy 2", "greedy 3", "greedy 4", "greedy 5")
        ]

    virtual_time.run(scenario())


@pytest.mark.parametrize("most", [1, 4, 16])
def test_bulk_work_lets_others_pass_but_does_not_starve(most: int) -> None:
    async def scenario() -> None:
        device = Device()
        batcher = BatchScheduler("device", device.run, most=lambda _: most, limits=Limits(200))
        demands = {f"bulk {index}": by("prewarm", bulk=True) for index in range(20)}
        demands |= {f"user {index}": by(index) for index in range(64)}
        await asyncio.gather(*await _flood(batcher, demands))
        order = device.order[1:]
        served = [name.startswith("bulk") for name in order[: BULK_SHARE * 8]]
        assert served == ([False] * (BULK_SHARE - 1) + [True]) * 8
        assert sorted(order) == sorted(demands)

    virtual_time.run(scenario())


def test_bulk_work_that_somebody_waits_for_is_hurried() -> None:
    async def scenario() -> None:
        device = Device()
        batcher = BatchScheduler("device", device.run, limits=Limits(100))
        demands = {f"bulk {index}": by("prewarm", bulk=True) for index in range(4)}
        tasks = await _flood(batcher, demands)
        demands["bulk 3"].join(by("user"))
        batcher.hurry(demands["bulk 3"])
        await asyncio.gather(*tasks)
        assert device.order == ["first", "bulk 3", "bulk 0", "bulk 1", "bulk 2"]

    virtual_time.run(scenario())


def test_a_deadline_that_is_extended_counts() -> None:
    async def scenario() -> None:
        device = Device()
        batcher = BatchScheduler("device", device.run, limits=Limits(100))
        demands = {"short": by("a", deadline=0.5), "extended": by("b", deadline=0.5)}
        tasks = await _flood(batcher, demands)
        demands["extended"].join(by("c", deadline=0.9))
        batcher.hurry(demands["extended"])
        demands["extended"].join(by("d", deadline=5))
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(outcomes[1], DeadlineExceeded)
        assert outcomes[2] == ("extended", 1000)

    virtual_time.run(scenario())


def test_models_take_turns_and_do_not_mix() -> None:
    async def scenario() -> None:
        device = Device()
        batcher = BatchScheduler(
            "device", device.run, most=lambda kind: {"large": 2, "small": 3}[str(kind)], limits=Limits(100)
        )
        work = [("large", f"L{index}") for index in range(5)] + [("small", f"S{index}") for index in range(4)]
        await asyncio.gather(*(batcher.submit(name, by(name), kind=kind) for kind, name in work))
        assert device.batches == [["L0"], ["L1", "L2"], ["S0", "S1", "S2"], ["L3", "L4"], ["S3"]]

    virtual_time.run(scenario())


def test_a_full_queue_says_when_to_come_back() -> None:
    async def scenario() -> None:
        device = Device()
        batcher = BatchScheduler("device", device.run, limits=Limits(8))
        demands = {str(index): by(index) for index in range(8)}
        tasks = await _flood(batcher, demands)
        await asyncio.sleep(2.5)  # two are done, a second each, and two have taken their places in the queue
        tasks += [asyncio.create_task(batcher.submit(name, by(name))) for name in ("8", "9")]
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhausted) as refused:
            await batcher.submit("too many", by("late"))
        assert refused.value.reason == "QUEUE_FULL"
        assert refused.value.retry_after_s == 4  # half of what is waiting
        await asyncio.gather(*tasks)
        assert batcher.tally.refused == 1

    virtual_time.run(scenario())


def test_what_waits_behind_counts_for_admission() -> None:
    """Files are read faster than they are encoded: who cannot have a result in time is told before reading."""

    async def scenario() -> None:
        device, readers = Device(), Device()
        model = BatchScheduler("model", device.run, limits=Limits(100))
        reading = BatchScheduler("reader", readers.run, limits=Limits(100), downstream=model)
        tasks = await _flood(model, {str(index): by(index) for index in range(9)})
        await asyncio.sleep(2.5)  # the model takes a second for each
        reading.admit(by("late", deadline=3))  # nothing waits to be read
        tasks += await _flood(reading, {"a": by("a")})
        reading.admit(by("in time", deadline=60))
        with pytest.raises(ResourceExhausted, match="the deadline would pass"):
            reading.admit(by("late", deadline=9))
        await asyncio.gather(*tasks)
        assert reading.tally.refused == 1

    virtual_time.run(scenario())


def test_a_batch_without_an_outcome_for_each_fails_for_all() -> None:
    async def scenario() -> None:
        async def run(kind: Hashable, items: Sequence[str]) -> list[str]:
            return list(items)[:-1]

        batcher = BatchScheduler("device", run, limits=Limits(100))
        with pytest.raises(RuntimeError, match="0 outcomes of 1 items"):
            await batcher.submit("a", by("a"))
        assert batcher.running == 0

    virtual_time.run(scenario())
