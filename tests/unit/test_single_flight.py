"""Work that several callers share."""

import asyncio

import pytest
from maskwire_core.scheduling.fair_queue import Requester
from maskwire_core.scheduling.scheduler import Demand
from maskwire_core.scheduling.single_flight import Flights

BULK = Demand(Requester("tenant", "connection"), bulk=True)


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
        assert await flights.join("key", BULK) is None
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
        assert await flights.join("key", BULK) is None

    asyncio.run(scenario())
