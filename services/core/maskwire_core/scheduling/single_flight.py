"""One run of a piece of work for all who want it at the same time."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from maskwire_core.scheduling.scheduler import Demand

T = TypeVar("T")


class Flights(Generic[T]):
    """Shares work in flight among callers in one event loop. Work that nobody waits for any more is cancelled.

    Args:
        hurry: Called with the demand of work in flight when another caller's demand has joined it; see
            `Scheduler.hurry`.
    """

    def __init__(self, hurry: Callable[[Demand], None] = lambda _: None) -> None:
        self._hurry = hurry
        self._demands: dict[Hashable, Demand] = {}
        self._tasks: dict[Hashable, asyncio.Task[T]] = {}
        self._waiters: dict[asyncio.Task[T], int] = {}

    async def share(
        self, key: Hashable, start: Callable[[], Coroutine[Any, Any, T]], demand: Demand | None = None
    ) -> tuple[T, bool]:
        """Awaits the work in flight for `key`, starting it if there is none.

        Args:
            key: Identifies the work.
            start: Begins the work.
            demand: Who wants the work, and how soon, if it is scheduled: what `start` schedules it with. The demands of
                callers who join later are merged into it.

        Returns:
            Its result, and whether another caller had started it.

        Raises:
            Whatever the work raises, for each of its callers.
        """
        task = self._tasks.get(key)
        joined = task is not None
        if task is None:
            task = self._tasks[key] = asyncio.create_task(start())
            if demand is not None:
                self._demands[key] = demand
            task.add_done_callback(lambda done: self._land(key, done))
        elif demand is not None:
            self._merge(key, demand)
        return await self._wait(key, task), joined

    async def join(self, key: Hashable, demand: Demand) -> T | None:
        """As `share`, but None if nothing is in flight."""
        task = self._tasks.get(key)
        if task is None:
            return None
        self._merge(key, demand)
        return await self._wait(key, task)

    def _merge(self, key: Hashable, demand: Demand) -> None:
        self._demands[key].join(demand)
        self._hurry(self._demands[key])

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
            self._demands.pop(key, None)
        self._waiters.pop(task, None)
