"""Memory is given back to the system when calls have given back much of it."""

import asyncio
import threading

import pytest
from maskwire_core.runtime import process_memory

MIB = 1 << 20


def test_memory_is_given_back_after_much_was(monkeypatch: pytest.MonkeyPatch) -> None:
    returned = threading.Semaphore(0)
    given_back = 0
    monkeypatch.setattr(process_memory, "give_back", returned.release)

    async def run() -> None:
        nonlocal given_back
        async with process_memory.returning(lambda: given_back, 0.001):
            for _ in range(2):
                given_back += 50 * MIB
                await asyncio.sleep(0.02)
                assert not returned.acquire(blocking=False)
                given_back += 20 * MIB
                await asyncio.to_thread(returned.acquire)
        given_back += 1000 * MIB
        await asyncio.sleep(0.02)
        assert not returned.acquire(blocking=False)

    asyncio.run(run())
