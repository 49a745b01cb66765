"""Budgets of bytes: never exceeded, given back once, and nobody waits for ever."""

import asyncio
import random
import threading

import pytest
from maskwire_core.errors import ResourceExhausted
from maskwire_core.scheduling.byte_budget import Account, ByteBudget


def test_what_is_taken_is_given_back_once() -> None:
    budget = ByteBudget(100)
    with budget.account("a") as account:
        account.take(40)
        account.take(10)
        account.give_back(20)
        assert (account.nbytes, budget.held) == (30, 30)
        with pytest.raises(ValueError, match="31 bytes"):
            account.give_back(31)
    account.close()
    assert (account.nbytes, budget.held) == (0, 0)
    with pytest.raises(RuntimeError, match="closed"):
        account.take(1)
    assert budget.held == 0


def test_a_tenant_and_a_call_are_refused_before_the_total_is_used_up() -> None:
    budget = ByteBudget(900, per_call=400)
    first, second = budget.account("a"), budget.account("a")
    first.take(400)
    with pytest.raises(ResourceExhausted) as refused:
        first.take(1)
    assert (refused.value.reason, refused.value.retry_after_s) == ("TOO_MUCH_IN_PROGRESS", 0.5)
    second.take(200)
    assert not second.try_take(1)  # the tenant has two thirds
    assert budget.account("b").try_take(100)


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_waits_are_served_in_order_and_those_who_have_less_go_first() -> None:
    async def run() -> None:
        budget, served = ByteBudget(90), []

        async def wait(name: str, account: Account, nbytes: int) -> None:
            await account.wait(nbytes, 60)
            served.append(name)

        rich, poor = budget.account("rich"), budget.account("poor")
        rich.take(60)
        tasks = [asyncio.create_task(wait(f"rich {n}", budget.account("rich"), 10)) for n in (1, 2)]
        await _settle()
        tasks.append(asyncio.create_task(wait("poor", poor, 50)))
        await _settle()
        assert (served, budget.waiting) == ([], 3)
        assert not rich.try_take(1)  # nothing goes past one who has less
        assert budget.account("new").try_take(0) is False
        rich.give_back(20)
        await _settle()
        assert served == ["poor"]
        rich.give_back(40)
        await asyncio.gather(*tasks)
        assert served == ["poor", "rich 1", "rich 2"]
        assert (budget.held, budget.waiting) == (70, 0)

    asyncio.run(run())


def test_a_wait_ends_with_its_time_its_task_or_at_once_if_it_is_in_vain() -> None:
    async def run() -> None:
        budget = ByteBudget(100, per_call=80)
        holder, waiter = budget.account("a"), budget.account("b")
        holder.take(60)
        for nbytes in (81, 101):
            with pytest.raises(ResourceExhausted):
                await waiter.wait(nbytes, 60)
        with pytest.raises(ResourceExhausted):
            await waiter.wait(50, 0)
        task = asyncio.create_task(waiter.wait(50, 60))
        await _settle()
        holder.close()  # grants it, and the cancel comes before the task has heard of it
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (budget.held, budget.waiting) == (0, 0)

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(20))
def test_random_sequences_keep_to_the_budget_and_leave_nothing(seed: int) -> None:
    async def run() -> None:
        chance = random.Random(seed)
        budget = ByteBudget(1000, per_call=500)
        accounts: list[Account] = []
        done: list[str] = []

        async def call(tenant: str) -> None:
            with budget.account(tenant) as account:
                accounts.append(account)
                for _ in range(chance.randrange(1, 4)):
                    nbytes = chance.randrange(1, 160)
                    if chance.random() < 0.5:
                        account.try_take(nbytes)
                    elif not account.nbytes:  # who has some waits for no more: nobody gives back what he waits with
                        await account.wait(nbytes, 60)
                    assert sum(each.nbytes for each in accounts) == budget.held <= budget.total
                    assert account.nbytes <= 500
                    for _ in range(chance.randrange(3)):
                        await asyncio.sleep(0)
                    account.give_back(chance.randrange(account.nbytes + 1))
            done.append(tenant)

        tasks = [asyncio.create_task(call(chance.choice("aaaaab"))) for _ in range(120)]
        for task in chance.sample(tasks, 15):
            asyncio.get_running_loop().call_soon(task.cancel)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert len(done) >= 105
        assert (budget.held, budget.waiting) == (0, 0)

    asyncio.run(run())


def test_small_calls_of_others_do_not_starve_one_who_wants_much() -> None:
    async def run() -> None:
        budget = ByteBudget(100)
        stopped = asyncio.Event()

        async def small() -> None:
            while not stopped.is_set():
                with budget.account("small") as account:
                    await account.wait(15, 60)
                    await asyncio.sleep(0)

        tasks = [asyncio.create_task(small()) for _ in range(12)]
        await _settle()
        with budget.account("large") as account:
            async with asyncio.timeout(10):
                await account.wait(95, 60)
            stopped.set()
        await asyncio.gather(*tasks)
        assert budget.held == 0

    asyncio.run(run())


def test_threads_share_a_budget() -> None:
    budget = ByteBudget(1000)

    def work() -> None:
        for _ in range(300):
            with budget.account(threading.current_thread().name) as account:
                if account.try_take(70):
                    account.give_back(30)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.held == 0
