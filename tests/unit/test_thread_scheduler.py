"""Work on threads in a fair order."""

import asyncio
import math
import time
from typing import Any

import pytest
from maskwire_core.errors import DeadlineExceeded, ResourceExhausted
from maskwire_core.scheduling.executors import ThreadScheduler
from maskwire_core.scheduling.fair_queue import Limits, Requester
from maskwire_core.scheduling.scheduler import Demand


def by(connection: str, bulk: bool = False, tenant: str = "tenant", left_s: float = math.inf) -> Demand:
    return Demand(Requester(tenant, connection), bulk, asyncio.get_running_loop().time() + left_s)


def test_connections_take_turns_and_clicks_go_first() -> None:
    async def scenario() -> None:
        threads = ThreadScheduler("test", 1, Limits(1000))
        order: list[str] = []

        def job(caller: str, urgent: bool) -> Any:
            def work() -> None:
                time.sleep(0.001)
                order.append(caller)

            return asyncio.ensure_future(threads.run(by(caller, bulk=not urgent), work))

        jobs = [job("start", False)]
        await asyncio.sleep(0)
        jobs += [job("bulk", False) for _ in range(30)] + [job("other", False) for _ in range(5)]
        jobs += [job(name, True) for name in "aaaaaabc"]
        await asyncio.gather(*jobs)
        rest = [name for name in order if name in ("bulk", "other")]
        assert rest[:10] == ["bulk", "other"] * 5  # in turn, though bulk came first and with more
        clicks = [name for name in order if name in "abc"]
        assert clicks == list("abcaaaaa")
        # Clicks first, yet one job in eight is of the rest.
        assert order.index("c") <= 5
        assert [index for index, name in enumerate(order) if name in "abc"][-1] <= 13

    asyncio.run(scenario())


def test_what_is_cancelled_is_not_run_and_what_is_too_much_is_refused() -> None:
    async def scenario() -> None:
        threads = ThreadScheduler("test", 1, Limits(2))
        ran: list[int] = []
        first = asyncio.create_task(threads.run(by("a", bulk=True), time.sleep, 0.1))
        await asyncio.sleep(0.02)
        waiting = [asyncio.create_task(threads.run(by("a", bulk=True), ran.append, index)) for index in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(ResourceExhausted, match="are waiting for the test"):
            await threads.run(by("a", bulk=True), ran.append, 7)
        click = asyncio.create_task(threads.run(by("b"), ran.append, 8))  # clicks have room of their own
        waiting[0].cancel()
        await asyncio.gather(first, waiting[1], click)
        assert ran == [8, 1]

    asyncio.run(scenario())


def test_tenants_take_turns_and_the_longest_queue_gives_way() -> None:
    async def scenario() -> None:
        threads = ThreadScheduler("test", 1, Limits(6))
        order: list[str] = []

        def start(tenant: str, connection: str) -> asyncio.Task[Any]:
            return asyncio.create_task(threads.run(by(connection, tenant=tenant), order.append, tenant))

        first = asyncio.create_task(threads.run(by("a"), time.sleep, 0.1))
        await asyncio.sleep(0.02)
        flood = [start("flood", str(connection)) for connection in range(6)]
        modest = [start("modest", "only") for _ in range(2)]
        outcomes = await asyncio.gather(*flood, *modest, first, return_exceptions=True)
        refused = [isinstance(outcome, ResourceExhausted) for outcome in outcomes]
        assert sum(refused[:6]) == 2
        assert not any(refused[6:])
        assert order == ["flood", "modest", "flood", "modest", "flood", "flood"]
        assert (threads.tally.refused, threads.tally.done, threads.waiting, threads.running) == (2, 7, 0, 0)

    asyncio.run(scenario())


def test_what_would_be_too_late_is_refused_or_not_run() -> None:
    async def scenario() -> None:
        threads = ThreadScheduler("test", 1, Limits(100))
        await threads.run(by("a"), time.sleep, 0.05)  # shows the pace
        busy = [asyncio.create_task(threads.run(by("a"), time.sleep, 0.05)) for _ in range(6)]
        await asyncio.sleep(0.01)
        threads.admit(by("b", left_s=0.4))  # it comes after one of those at most
        threads.admit(by("b"), 100)
        with pytest.raises(ResourceExhausted, match="the deadline would pass before its turn") as refused:
            threads.admit(by("a", left_s=0.4))
        assert refused.value.retry_after_s == pytest.approx(0.125, rel=0.5)
        ran: list[int] = []
        with pytest.raises(DeadlineExceeded):
            await threads.run(by("a", left_s=0.05), ran.append, 1)
        await asyncio.gather(*busy)
        assert (ran, threads.tally.expired, threads.tally.refused) == ([], 1, 1)

    asyncio.run(scenario())


def test_errors_of_functions_reach_their_callers() -> None:
    async def scenario() -> None:
        threads = ThreadScheduler("test", 2, Limits(100))
        outcomes = await asyncio.gather(
            *(threads.run(by("a"), int, text) for text in ("1", "x", "3")), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes[1:2]] == [ValueError]
        assert [getattr(outcome, "result", None) for outcome in outcomes] == [1, None, 3]
        with pytest.raises(RuntimeError, match="StopIteration"):  # which a future does not take
            await asyncio.wait_for(threads.run(by("a"), next, iter(())), 10)

    asyncio.run(scenario())


def test_there_is_room_for_what_can_start_and_wait() -> None:
    async def scenario() -> None:
        threads = ThreadScheduler("test", 2, Limits(3))
        threads.check_room(by("a"), 5)
        with pytest.raises(ResourceExhausted) as refused:
            threads.check_room(by("a"), 6)
        assert refused.value.reason == "QUEUE_FULL"
        assert threads.tally.refused == 6
        jobs = [asyncio.create_task(threads.run(by("a"), time.sleep, 0.05)) for _ in range(4)]
        await asyncio.sleep(0.02)
        threads.check_room(by("a"), 1)
        with pytest.raises(ResourceExhausted):
            threads.check_room(by("a"), 2)
        threads.check_room(by("b", tenant="other"), 1)  # whose share another tenant gives way for
        await asyncio.gather(*jobs)

    asyncio.run(scenario())
