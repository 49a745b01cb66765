"""Where scheduled work runs: on threads, or in batches as tasks of the event loop."""

import asyncio
import atexit
import contextvars
import threading
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar, cast

from maskwire_core.runtime.thread_priority import give_way
from maskwire_core.scheduling.fair_queue import Limits
from maskwire_core.scheduling.scheduler import Demand, Item, Job, Result, Scheduler, Served
from maskwire_core.telemetry.metrics import STAGES

P = ParamSpec("P")
T = TypeVar("T")

_Function = Job[Callable[[], Any], Any]
_QUEUE_TIME = STAGES.labels("queue")


class ThreadScheduler(Scheduler[Callable[[], Any], Any]):
    """Runs functions on threads, which give way to the event loop's thread.

    Args:
        name: What does the work; see `Scheduler`.
        threads: Functions that run at the same time.
        limits: What may wait; a function is one unit of work.
    """

    def __init__(self, name: str, threads: int, limits: Limits) -> None:
        super().__init__(name, threads, limits)
        # Not a ThreadPoolExecutor, whose futures and locks take longer than all that this scheduler does.
        self._handover: SimpleQueue[list[_Function]] = SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, name=f"{name} {n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()
        atexit.register(self._stop)  # native code must not run on while the interpreter ends

    async def run(self, demand: Demand, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Served[T]:
        """Runs a function when its turn comes. Cancellation and errors are those of `submit`."""
        served = await self.submit(partial(function, *args, **kwargs), demand)
        _QUEUE_TIME.observe(served.waited_ms / 1e3)
        return cast(Served[T], served)

    def _launch(self, batch: list[_Function]) -> None:
        self._handover.put(batch)

    def _stop(self) -> None:
        for _ in self._threads:
            self._handover.put([])
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        give_way()
        while batch := self._handover.get():
            self._work(batch)
            del batch  # else what was run, and all that it had, stays until something else is

    def _work(self, batch: list[_Function]) -> None:
        """Runs a function, and then whatever is next, without a detour through the event loop."""
        while batch:
            (job,) = batch
            loop = job.answer.get_loop()
            started = loop.time()
            try:
                outcome = job.item()
            except BaseException as error:  # the caller's, who awaits it
                outcome = error
            now = loop.time()
            self._end(batch, now - started)
            try:
                loop.call_soon_threadsafe(job.settle, outcome)
            except RuntimeError:  # the loop has ended, and its callers with it
                return
            del job, outcome  # an error has this frame in its traceback
            batch = self._take(now) if self._queue else []  # what comes from now on finds a free worker


class BatchScheduler(Scheduler[Item, Result]):
    """Gathers items into batches, which run as tasks of the event loop.

    A batch starts at once when nothing runs. While something runs, and another batch may run beside it, a batch starts
    when it is full or the oldest item has waited `max_wait_s`.

    Args:
        name: See `Scheduler`; so are `at_once`, `limits` and `downstream`.
        run: Runs a batch: takes its kind and its items, and returns an outcome for each. An outcome that is an
            exception is raised for that item's caller, what `run` itself raises for all of them.
        most: Items of a kind that may share a batch.
        max_wait_s: How long an item waits for others to share its batch while another batch runs.
        may_start: Asked before a batch starts. Call `poke` when its answer may have changed from no to yes.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Hashable, Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        limits: Limits,
        at_once: int = 1,
        most: Callable[[Hashable], int] = lambda _: 1,
        max_wait_s: float = 0,
        may_start: Callable[[], bool] = lambda: True,
        downstream: Scheduler[Any, Any] | None = None,
    ) -> None:
        super().__init__(name, at_once, limits, downstream)
        self._run = run
        self._most = most
        self._max_wait_s = max_wait_s
        self._is_ready = may_start
        self._tasks: set[asyncio.Task[None]] = set()
        self._wakes = False

    def _largest(self, kind: Hashable) -> int:
        return self._most(kind)

    def _may_start(self, now: float) -> bool:
        if not self._is_ready():
            return False
        if not self._batches or not self._queue:
            return not self._batches
        kind = self._queue.head().kind
        if self._queue.count(kind) >= self._largest(kind):
            return True
        if self._wakes:  # before anything has waited for too long: what came since came later
            return False
        start_at = min(job.queued for job in self._queue) + self._max_wait_s
        if now >= start_at:
            return True
        self._wakes = True
        asyncio.get_running_loop().call_at(start_at, self._wake)
        return False

    def _wake(self) -> None:
        self._wakes = False
        self.poke()

    def _launch(self, batch: list[Job[Item, Result]]) -> None:
        # A batch belongs to many calls, and must not run in the context of the one that happened to start it.
        task = asyncio.get_running_loop().create_task(self._work(batch), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, batch: list[Job[Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        outcomes: Sequence[Result | Exception]
        try:
            outcomes = await self._run(batch[0].kind, [job.item for job in batch])
            if len(outcomes) != len(batch):
                raise RuntimeError(f"{self.name}: {len(outcomes)} outcomes of {len(batch)} items")
        except Exception as error:  # goes to those who wait for it
            outcomes = [error] * len(batch)
        self._end(batch, loop.time() - started)
        self.poke()  # before those who wait are told, so that the device goes on meanwhile
        for job, outcome in zip(batch, outcomes, strict=True):
            job.settle(outcome)
