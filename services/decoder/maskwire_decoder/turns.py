"""Worker threads that serve callers in turn."""

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

from maskwire_core.errors import ResourceExhausted
from maskwire_core.runtime.thread_priority import give_way
from maskwire_core.telemetry.metrics import STAGES

P = ParamSpec("P")
T = TypeVar("T")

_URGENT_IN_A_ROW = 3
_SMOOTHING = 0.1
_CAUTION = 2  # the pace of late is an average, and slower when more comes in
_QUEUE = STAGES.labels("queue")


@dataclass(eq=False)
class _Job:
    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[tuple[Any, float]]
    queued: float


class Turns:
    """Runs functions on threads. Callers take turns, however much each of them has waiting.

    Urgent work goes before the rest; but where the rest waits, every fourth job is of it: it never stands still.

    Args:
        name: What runs here, for the error that a refused caller reads.
        threads: Functions that run at the same time.
        limit: Functions of each kind, urgent and not, that may wait.
    """

    def __init__(self, name: str, threads: int, limit: int) -> None:
        self._name = name
        self._limit = limit
        self.threads = threads
        self.done = 0
        """Functions that have run."""
        self._lock = threading.Lock()
        self._lanes: dict[bool, OrderedDict[Hashable, deque[_Job]]] = {True: OrderedDict(), False: OrderedDict()}
        self._waiting = {True: 0, False: 0}
        self._running = 0
        self._urgent_in_a_row = 0
        self._job_s = 0.0  # what a function takes, of late
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=give_way)

    @property
    def running(self) -> int:
        """Functions that run now."""
        with self._lock:
            return self._running

    def waiting(self, urgent: bool) -> int:
        """Functions that wait."""
        with self._lock:
            return self._waiting[urgent]

    def admit(self, caller: Hashable, urgent: bool, count: int, left_s: float | None) -> None:
        """Refuses what would not be answered in time anyway.

        Args:
            caller: Whose turns it takes.
            urgent: As for `run`.
            count: Functions that are to be run.
            left_s: Seconds until nobody wants the answer any more; None if there is no such time.

        Raises:
            ResourceExhausted: So much waits already, at the pace of late.
        """
        with self._lock:
            lane, waiting = self._lanes[urgent], self._waiting[urgent]
            own = len(lane.get(caller, ())) + count
            ahead = own + sum(min(len(jobs), own) for other, jobs in lane.items() if other != caller)
            rest = self._waiting[not urgent]
            between = min(rest, ahead // _URGENT_IN_A_ROW if urgent else ahead * _URGENT_IN_A_ROW)
            expected_s = _CAUTION * (ahead + between + self._running) * self._job_s / self.threads
        if waiting and left_s is not None and expected_s > left_s:
            raise ResourceExhausted(
                "QUEUE_FULL",
                f"{waiting} requests are waiting for the {self._name}, and the deadline would pass before its turn; "
                "try again",
                retry_after_s=min(max(0.1, expected_s / 2), 10.0),
            )

    async def run(
        self, caller: Hashable, urgent: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[T, float]:
        """Runs a function when it is the caller's turn. If this is cancelled while it waits, it is never started.

        Args:
            caller: Whose turn it takes.
            urgent: Whether somebody sits and waits for it.
            function: What runs.

        Returns:
            Its result and the milliseconds it waited.

        Raises:
            ResourceExhausted: Too much is waiting already.
        """
        loop = asyncio.get_running_loop()
        job = _Job(lambda: function(*args, **kwargs), loop, loop.create_future(), time.perf_counter())
        with self._lock:
            waiting = self._waiting[urgent]
            if waiting + self._running >= self._limit + self.threads:
                raise ResourceExhausted(
                    "QUEUE_FULL", f"{waiting} requests are waiting for the {self._name}; try again", retry_after_s=0.5
                )
            self._lanes[urgent].setdefault(caller, deque()).append(job)
            self._waiting[urgent] += 1
        self._executor.submit(self._work)
        try:
            return cast(tuple[T, float], await job.future)
        except asyncio.CancelledError:
            self._forget(caller, urgent, job)
            raise

    def _work(self) -> None:
        """Runs one job: there are as many calls of this as there were jobs, but whose turn it is shows only now."""
        with self._lock:
            job = self._next()
            if job is None:  # cancelled
                return
            self._running += 1
        started = time.perf_counter()
        waited_ms = (started - job.queued) * 1e3
        _QUEUE.observe(started - job.queued)
        try:
            result, error = job.function(), None
        except BaseException as raised:  # it is the caller's, who awaits it
            result, error = None, raised
        with self._lock:
            self._running -= 1
            self.done += 1
            self._job_s += _SMOOTHING * (time.perf_counter() - started - self._job_s)
        try:
            job.loop.call_soon_threadsafe(_finish, job.future, (result, waited_ms), error)
        except RuntimeError:  # the loop has ended, and its callers with it
            return

    def _next(self) -> _Job | None:
        rest = self._waiting[False]
        urgent = self._waiting[True] > 0 and not (rest and self._urgent_in_a_row >= _URGENT_IN_A_ROW)
        if not urgent and not rest:
            return None
        self._urgent_in_a_row = self._urgent_in_a_row + 1 if urgent else 0
        lanes = self._lanes[urgent]
        caller, jobs = lanes.popitem(last=False)
        job = jobs.popleft()
        if jobs:
            lanes[caller] = jobs  # behind the others
        self._waiting[urgent] -= 1
        return job

    def _forget(self, caller: Hashable, urgent: bool, job: _Job) -> None:
        with self._lock:
            jobs = self._lanes[urgent].get(caller)
            if jobs is None or job not in jobs:
                return
            jobs.remove(job)
            if not jobs:
                del self._lanes[urgent][caller]
            self._waiting[urgent] -= 1


def _finish(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
