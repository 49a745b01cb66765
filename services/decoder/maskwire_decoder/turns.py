"""The worker threads of the mask decoder."""

import asyncio
import math
from collections.abc import Callable, Hashable
from typing import ParamSpec, TypeVar

from maskwire_core.scheduling.executors import ThreadScheduler
from maskwire_core.scheduling.fair_queue import Limits, Requester
from maskwire_core.scheduling.scheduler import Demand, Served

P = ParamSpec("P")
T = TypeVar("T")


class Turns:
    """A `ThreadScheduler` for callers of no tenant."""

    def __init__(self, name: str, threads: int, limit: int) -> None:
        self._scheduler = ThreadScheduler(name, threads, Limits(limit))
        self.threads = threads

    @property
    def done(self) -> int:
        return self._scheduler.tally.done

    @property
    def running(self) -> int:
        return self._scheduler.running

    def waiting(self, urgent: bool) -> int:
        bulk = self._scheduler.waiting_bulk
        return self._scheduler.waiting - bulk if urgent else bulk

    def admit(self, caller: Hashable, urgent: bool, count: int, left_s: float | None) -> None:
        deadline = math.inf if left_s is None else asyncio.get_running_loop().time() + left_s
        self._scheduler.admit(Demand(Requester("", caller), not urgent, deadline), count)

    async def run(
        self, caller: Hashable, urgent: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Served[T]:
        demand = Demand(Requester("", caller), not urgent)
        return await self._scheduler.run(demand, function, *args, **kwargs)
