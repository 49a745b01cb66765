"""Shared work, and turns."""

import asyncio
import time
from typing import Any

import pytest
from maskwire_core.errors import ResourceExhausted
from maskwire_core.scheduling.single_flight import Flights
from maskwire_decoder.turns import Turns


def test_one_run_for_all_who_ask() -> None:
    async def scenario() -> None:
        flights: Flights[int] = Flights()
        runs = 0

        async def work() -> int:
            nonlocal runs
            runs += 1
            await asyncio.sleep(0.02)
            return runs

        answers = await asyncio.gather(*(flights.share("key", work) for _ in range(50)))
        assert [answer for answer, _ in answers] == [1] * 50
        assert sum(joined for _, joined in answers) == 49
        assert await flights.join("key") is None
        assert await flights.share("key", work) == (2, False)

    asyncio.run(scenario())


def test_an_error_reaches_all_and_is_forgotten() -> None:
    async def scenario() -> None:
        flights: Flights[int] = Flights()

        async def fail() -> int:
            await asyncio.sleep(0.01)
            raise ValueError("no")

        async def succeed() -> int:
            return 7

        outcomes = await asyncio.gather(*(flights.share("key", fail) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(outcome, ValueError) for outcome in outcomes)
        assert await flights.share("key", succeed) == (7, False)

    asyncio.run(scenario())


def test_work_goes_on_while_anyone_waits_and_ends_when_nobody_does() -> None:
    async def scenario() -> None:
        flights: Flights[str] = Flights()
        state = "idle"

        async def work() -> str:
            nonlocal state
            state = "running"
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                state = "cancelled"
                raise
            state = "done"
            return state

        first, second = (asyncio.create_task(flights.share("key", work)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        assert (await second)[0] == "done"
        alone = asyncio.create_task(flights.share("key", work))
        await asyncio.sleep(0.01)
        alone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await alone
        await asyncio.sleep(0)
        assert state == "cancelled"
        assert await flights.join("key") is None

    asyncio.run(scenario())


def test_callers_take_turns_and_clicks_go_first() -> None:
    async def scenario() -> None:
        turns = Turns("test", threads=1, limit=1000)
        order: list[str] = []

        def job(caller: str, urgent: bool) -> Any:
            def work() -> None:
                time.sleep(0.001)
                order.append(caller)

            return asyncio.ensure_future(turns.run(caller, urgent, work))

        jobs = [job("start", False)]
        await asyncio.sleep(0)
        jobs += [job("bulk", False) for _ in range(30)] + [job("other", False) for _ in range(5)]
        jobs += [job(name, True) for name in "aaaaaabc"]
        await asyncio.gather(*jobs)
        rest = [name for name in order if name in ("bulk", "other")]
        assert rest[:10] == ["bulk", "other"] * 5  # in turn, though bulk came first and with more
        clicks = [name for name in order if name in "abc"]
        assert clicks == list("abcaaaaa")
        # Clicks first, yet every fourth job is of the rest.
        assert order.index("c") <= 5
        assert [index for index, name in enumerate(order) if name in "abc"][-1] <= 13

    asyncio.run(scenario())


def test_what_is_cancelled_is_not_run_and_what_is_too_much_is_refused() -> None:
    async def scenario() -> None:
        turns = Turns("test", threads=1, limit=2)
        ran: list[int] = []
        first = asyncio.create_task(turns.run("a", False, time.sleep, 0.1))
        await asyncio.sleep(0.02)
        waiting = [asyncio.create_task(turns.run("a", False, ran.append, index)) for index in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(ResourceExhausted, match="are waiting for the test"):
            await turns.run("b", False, ran.append, 7)
        click = asyncio.create_task(turns.run("b", True, ran.append, 8))  # clicks have room of their own
        waiting[0].cancel()
        await asyncio.gather(first, waiting[1], click)
        assert ran == [8, 1]

    asyncio.run(scenario())
