"""Waiting for a condition on an event loop."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Lets other tasks run until a condition is true. Raises `TimeoutError` if it does not come true in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - whatever makes it true tells nobody
            await asyncio.sleep(0.005)
