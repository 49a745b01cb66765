"""Functions on other threads."""

import asyncio
import threading

import pytest
from maskwire_core.runtime.in_thread import in_thread


def test_results_and_errors_come_back() -> None:
    assert asyncio.run(in_thread(divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(in_thread(divmod, 7, 0))


def test_a_caller_who_is_cancelled_waits_until_the_function_has_returned() -> None:
    may_end, has_ended = threading.Event(), threading.Event()

    def work() -> None:
        may_end.wait()
        has_ended.set()

    async def scenario() -> None:
        calling = asyncio.create_task(in_thread(work))
        for _ in range(3):
            await asyncio.sleep(0.01)
            calling.cancel()
        await asyncio.sleep(0.01)
        assert not calling.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert has_ended.is_set()

    asyncio.run(scenario())
