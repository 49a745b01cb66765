"""Calls that come at once begin by turns of tenants."""

import asyncio

import pytest
from maskwire_core.errors import ResourceExhausted
from maskwire_core.rpc.turns import MOST_WAITING, Turns

from testing import virtual_time


def begin_together(*tenants: str, leaving: int | None = None) -> list[str]:
    """Has calls of tenants come in one moment. Returns whose began, in that order; one of them may leave at once."""

    async def run() -> list[str]:
        turns, began = Turns(), list[str]()

        async def one(tenant: str) -> None:
            await turns.begin(tenant)
            began.append(tenant)

        calls = [asyncio.ensure_future(one(tenant)) for tenant in tenants]
        await asyncio.sleep(0)
        if leaving is not None:
            calls[leaving].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return began

    return asyncio.run(run())


def test_a_single_call_begins_after_one_of_each_other_tenant() -> None:
    # The very first begins at once.
    assert begin_together(*"aaaaabaac") == list("aabcaaaaa")


def test_who_leaves_keeps_nobody_waiting() -> None:
    assert begin_together(*"aaaab", leaving=1) == list("aaba")


def test_too_many_calls_of_a_tenant_are_refused() -> None:
    async def run() -> None:
        turns = Turns()
        calls = [asyncio.ensure_future(turns.begin("a")) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhausted) as caught:
            await turns.begin("a")
        assert caught.value.reason == "TOO_MANY_CALLS"
        await turns.begin("b")
        for each in calls:
            each.cancel()

    asyncio.run(run())


def test_many_calls_begin_slowly_while_more_are_taken_up() -> None:
    """What their beginning costs would keep others' calls, which come behind them, waiting."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        turns, began = Turns(), list[tuple[float, str]]()

        async def one(tenant: str) -> None:
            await turns.begin(tenant)
            began.append((loop.time(), tenant))

        calls, started = list[asyncio.Task[None]](), loop.time()
        for number in range(300):
            calls.append(asyncio.ensure_future(one("b" if number == 200 else "a")))
            await asyncio.sleep(0.0012)  # others want the processor, too
        ended = loop.time()
        meanwhile = [(at, tenant) for at, tenant in began if at <= ended]
        assert 60 < len(meanwhile) < 85  # of 0.36 s; the first few are no burst yet
        (others,) = (at for at, tenant in meanwhile if tenant == "b")
        assert others - started < 0.0012 * 200 + 0.01
        await asyncio.gather(*calls)
        assert loop.time() - ended < 0.05

    virtual_time.run(run())
