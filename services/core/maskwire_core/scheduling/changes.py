"""Waiting for what other tasks change."""

import asyncio
from collections.abc import Callable


class Changes:
    """Lets the tasks of a stream wait for what others of them change."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Makes the tasks that wait in `until` check their conditions again."""
        self._changed.set()
        self._changed.clear()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition holds."""
        while not condition():
            await self.next()

    async def next(self) -> None:
        """Waits for the next change."""
        await self._changed.wait()
