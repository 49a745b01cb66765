"""Schedules the work of many requesters on few workers: who is refused, who waits, and whose turn it is."""

import asyncio
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from maskwire_core.errors import DeadlineExceeded, ResourceExhausted
from maskwire_core.scheduling.fair_queue import Entry, FairQueue, Limits, Requester

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

_SMOOTHING = 0.1
_RETRY_S = (0.1, 10.0)  # the shortest and the longest time after which refused callers are told to come back
_CAUTION = 2  # the pace is a recent average, and gets slower when more comes in


@dataclass(eq=False)
class Demand:
    """Who wants work done, and how soon."""

    requester: Requester  # whose share it counts against
    bulk: bool = False  # whether interactive work goes first
    deadline: float = math.inf  # when nobody wants it any more, in the event loop's time

    def join(self, other: "Demand") -> None:
        """Merges another demand for the same work: it is bulk only if both are, and the later deadline counts."""
        self.bulk = self.bulk and other.bulk
        self.deadline = max(self.deadline, other.deadline)


class Served(NamedTuple, Generic[T]):
    """A result, and how long the work waited for its turn in milliseconds."""

    result: T
    waited_ms: float


@dataclass
class Tally:
    """What a scheduler has done since it was made."""

    batches: int = 0  # batches that ended
    done: int = 0  # items in them
    refused: int = 0  # items that found the queue full, or had to give way when it was
    expired: int = 0  # items whose deadline passed while they waited
    cancelled: int = 0  # items whose caller left while they waited
    waited_s: float = 0  # seconds that the items in batches had waited, in total
    busy_s: float = 0  # seconds that batches took, in total


@dataclass(eq=False)
class Job(Entry, Generic[Item, Result]):
    """An item, who wants it, since when it waits in the event loop's time, and its outcome."""

    item: Item
    demand: Demand
    queued: float
    answer: asyncio.Future[Served[Result]]
    waited_s: float = 0

    def settle(self, outcome: Result | BaseException) -> None:
        """Answers the caller, unless it has left."""
        if self.answer.done():
            return
        if isinstance(outcome, StopIteration):  # a future refuses it
            outcome = RuntimeError(f"the work raised {outcome!r}")
        if isinstance(outcome, BaseException):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(Served(outcome, self.waited_s * 1e3))


class Scheduler(ABC, Generic[Item, Result]):
    """Admits, queues and dispatches items. Used from one event loop; work may run and end on other threads.

    Args:
        name: What does the work, for the error that a refused caller reads.
        at_once: Batches that run at the same time.
        limits: What may wait.
        downstream: Where results go next. What is there goes before what comes now, and counts for `admit`.
    """

    def __init__(
        self, name: str, at_once: int, limits: Limits, downstream: "Scheduler[Any, Any] | None" = None
    ) -> None:
        self.name = name
        self.at_once = at_once
        self.tally = Tally()
        self.running = 0
        """Items in batches that run."""
        self._downstream = downstream
        self._lock = threading.Lock()
        self._queue: FairQueue[Job[Item, Result]] = FairQueue(limits)
        self._batches = 0
        self._last: tuple[float, int] | None = None  # start and size of the last batch, if it left others waiting
        self._item_s = 0.0

    @property
    def waiting(self) -> int:
        """Items that wait."""
        return len(self._queue)

    @property
    def waiting_bulk(self) -> int:
        """Bulk items that wait."""
        with self._lock:
            return sum(job.bulk for job in self._queue)

    @property
    def oldest_wait_s(self) -> float:
        """How long the oldest item has waited, in seconds."""
        now = asyncio.get_running_loop().time()
        with self._lock:
            return now - min((job.queued for job in self._queue), default=now)

    @property
    def pace_s(self) -> float:
        """Seconds from one item to the next while there is enough to do.

        Measured while items are left waiting; until that happens, from the time that all batches took. 0 at first.
        """
        return self._item_s or self.tally.busy_s / max(1, self.tally.done) / self.at_once

    def admit(self, demand: Demand, count: int = 1) -> None:
        """Refuses what would not be done before its deadline at the recent pace. Never while nothing waits.

        Raises:
            ResourceExhausted: QUEUE_FULL.
        """
        if not self.waiting or demand.deadline == math.inf:
            return
        with self._lock:
            items = self._queue.work_until(demand.requester, demand.bulk, count) + self.running
        pace_s = self.pace_s
        if self._downstream is not None:
            items += self._downstream.waiting + self._downstream.running
            pace_s = max(pace_s, self._downstream.pace_s)
        if asyncio.get_running_loop().time() + _CAUTION * items * pace_s > demand.deadline:
            self.tally.refused += count
            raise self._full(", and the deadline would pass before its turn")

    def check_room(self, demand: Demand, count: int) -> None:
        """Refuses so many items at once, of one unit of work each, if some of them would have to give way: before
        anything else is done for them.

        Raises:
            ResourceExhausted: QUEUE_FULL.
        """
        with self._lock:
            idle = 0 if self._queue else self.at_once - self._batches
            if count <= self._queue.room(demand.requester, demand.bulk) + idle:
                return
        self.tally.refused += count
        raise self._full()

    async def submit(
        self, item: Item, demand: Demand, kind: Hashable = None, work: int = 1, nbytes: int = 0
    ) -> Served[Result]:
        """Has an item worked on when its turn comes. If this is cancelled while the item waits, it is never started.

        Args:
            item: What is to be worked on.
            demand: Who wants it; may be joined by others meanwhile, see `hurry`.
            kind: Items of the same kind can share a batch.
            work: Units of work that it costs.
            nbytes: Bytes that it holds while it waits.

        Raises:
            ResourceExhausted: QUEUE_FULL: too much waits, and most of it is this tenant's.
            DeadlineExceeded: The deadline passed before its turn came.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Served[Result]] = loop.create_future()
        job = Job(demand.requester, demand.bulk, kind, work, nbytes, item, demand, loop.time(), answer)
        if self._starts_at_once(job):
            self._launch([job])
            return await job.answer
        with self._lock:
            refused = self._queue.add(job)
        self._refuse(refused)
        expiry = None if demand.deadline == math.inf else loop.call_at(demand.deadline, self._expire, job)
        self.poke()
        try:
            return await job.answer
        except asyncio.CancelledError:
            if self._withdraw(job):
                self.tally.cancelled += 1
            raise
        finally:
            if expiry is not None:
                expiry.cancel()

    def hurry(self, demand: Demand) -> None:
        """Applies a demand that was joined by another to what waits for it."""
        if demand.bulk:
            return
        with self._lock:
            jobs = [job for job in self._queue if job.demand is demand and job.bulk]
            refused = [given_way for job in jobs for given_way in self._queue.expedite(job)]
        self._refuse(refused)

    def poke(self) -> None:
        """Starts what can be started."""
        if self._batches >= self.at_once:  # the next one that ends takes what waits
            return
        now = asyncio.get_running_loop().time()
        while batch := self._take(now):
            self._launch(batch)

    @abstractmethod
    def _launch(self, batch: list[Job[Item, Result]]) -> None:
        """Runs a batch, then calls `_end`, settles its jobs and starts what can be started then."""

    def _largest(self, kind: Hashable) -> int:
        """Items of a kind that may share a batch."""
        return 1

    def _may_start(self, now: float) -> bool:
        """Whether the head of the queue, or what finds it empty, may start now, if a worker is free."""
        return True

    def _starts_at_once(self, job: Job[Item, Result]) -> bool:
        """Starts work on a job if nothing waits and a worker is free, which spares it the way through the queue."""
        now = job.queued
        with self._lock:
            if self._queue or self._batches >= self.at_once or now >= job.demand.deadline or not self._may_start(now):
                return False
            self._begin([job], now)
            return True

    def _take(self, now: float) -> list[Job[Item, Result]]:
        """Takes the batch that may start now; empty if none may. On any thread."""
        with self._lock:
            while self._queue and self._batches < self.at_once and self._may_start(now):
                batch = []
                for job in self._queue.take(self._largest):
                    job.waited_s = now - job.queued
                    if job.demand.deadline <= now:  # the event loop was too busy for its timer
                        job.answer.get_loop().call_soon_threadsafe(self._fail_expired, job)
                    else:
                        batch.append(job)
                if batch:
                    self._begin(batch, now)
                    return batch
        return []

    def _begin(self, batch: Sequence[Job[Item, Result]], now: float) -> None:
        self._batches += 1
        self.running += len(batch)
        if self._last is not None:
            item_s = (now - self._last[0]) / self._last[1]
            self._item_s = self._item_s + _SMOOTHING * (item_s - self._item_s) if self._item_s else item_s
        self._last = (now, len(batch)) if self._queue else None

    def _end(self, batch: Sequence[Job[Item, Result]], took_s: float) -> None:
        """Notes that a batch has ended. On any thread."""
        with self._lock:
            self._batches -= 1
            self.running -= len(batch)
            self.tally.batches += 1
            self.tally.done += len(batch)
            self.tally.busy_s += took_s
            for job in batch:
                self.tally.waited_s += job.waited_s

    def _expire(self, job: Job[Item, Result]) -> None:
        loop = asyncio.get_running_loop()
        if job.demand.deadline > loop.time():  # somebody with more time has joined
            if job.demand.deadline != math.inf:
                loop.call_at(job.demand.deadline, self._expire, job)
        elif self._withdraw(job):
            self._fail_expired(job)

    def _fail_expired(self, job: Job[Item, Result]) -> None:
        self.tally.expired += 1
        job.settle(DeadlineExceeded("DEADLINE_EXCEEDED", f"the deadline passed while waiting for the {self.name}"))

    def _withdraw(self, job: Job[Item, Result]) -> bool:
        with self._lock:
            was_waiting = self._queue.discard(job)
        if was_waiting:
            self.poke()  # another kind may be next
        return was_waiting

    def _refuse(self, jobs: Sequence[Job[Item, Result]]) -> None:
        self.tally.refused += len(jobs)
        for job in jobs:
            job.settle(self._full())

    def _full(self, reason: str = "") -> ResourceExhausted:
        return ResourceExhausted(
            "QUEUE_FULL",
            f"{self.waiting} requests are waiting for the {self.name}{reason}; try again",
            retry_after_s=min(max(_RETRY_S[0], self.waiting * self.pace_s / 2), _RETRY_S[1]),
        )
