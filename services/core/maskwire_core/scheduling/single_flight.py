"""One run of a piece of work for all who want it at the same time."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Flights(Generic[T]):
    """Shares work in flight among callers in one event loop. Work that nobody waits for any more is cancelled."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[T]] = {}
        self._waiters: dict[asyncio.Task[T], int] = {}

    async def share(self, key: Hashable, start: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, bool]:
        """Awaits the work in flight for `key`, starting it if there is none.

        Returns:
            Its result, and whether another caller had started it.

        Raises:
            Whatever the work raises, for each of its callers.
        """
        task = self._tasks.get(key)
        joined = task is not None
        if task is None:
            task = asyncio.create_task(start())
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._land(key, done))
        return await self._wait(key, task), joined

    async def join(self, key: Hashable) -> T | None:
        """As `share`, but None if nothing is in flight."""
        task = self._tasks.get(key)
        return await self._wait(key, task) if task is not None else None

    async def _wait(self, key: Hashable, task: asyncio.Task[T]) -> T:
        self._waiters[task] = self._waiters.get(task, 0) + 1
        try:
            return await asyncio.shield(task)
        finally:
            if task in self._waiters:
                self._waiters[task] -= 1
                if not self._waiters[task] and not task.done():
                    self._land(key, task)  # who comes next starts anew
                    task.cancel()

    def _land(self, key: Hashable, task: asyncio.Task[T]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        self._waiters.pop(task, None)
