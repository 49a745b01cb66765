"""Work of many callers, gathered into batches."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from maskwire_core.errors import DeadlineExceeded, ResourceExhausted

from maskwire_encoder.waiting import Demand, Ticket, WaitingRoom

Item = TypeVar("Item")
Result = TypeVar("Result")

_SMOOTHING = 0.1
_RETRY_S = (0.1, 10.0)
_CAUTION = 2  # the pace of late is an average, and slower when more comes in


@dataclass
class Tally:
    """What a batcher has done since it was made.

    Attributes:
        batches: Batches that ended.
        done: Pieces of work in them.
        refused: Pieces of work that found the queue full.
        expired: Those whose deadline passed while they waited.
        cancelled: Those whose caller left while they waited.
        waited_s: Seconds that those in batches had waited, all together.
        busy_s: Seconds of all batches together.
    """

    batches: int = 0
    done: int = 0
    refused: int = 0
    expired: int = 0
    cancelled: int = 0
    waited_s: float = 0
    busy_s: float = 0


class Batcher(Generic[Item, Result]):
    """Gathers work into batches and runs them. Belongs to one event loop.

    A batch starts at once when nothing runs. While something runs, and another batch may run beside it, a batch starts
    when it is full or its oldest work has waited `max_wait_s`.

    Args:
        name: What runs here, for the error that a refused caller reads.
        run: Runs a batch: its kind and its items, to an outcome for each. An outcome that is an exception is raised for
            that item's caller, what `run` itself raises for all of them.
        most: Largest batch of a kind.
        at_once: Batches that run at the same time.
        max_wait_s: How long work waits for others to share a batch while another batch runs.
        limit: How much may wait.
        may_start: Asked before a batch starts; after it said no, `poke` when it would say yes.
        beyond: How much is on its way behind this batcher and goes before what comes now, and the seconds that each
            takes there. Where it is given, what would not be done before its deadline is refused.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Hashable, Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        most: Callable[[Hashable], int] = lambda _: 1,
        at_once: int = 1,
        max_wait_s: float = 0,
        limit: int,
        may_start: Callable[[], bool] = lambda: True,
        beyond: Callable[[], tuple[int, float]] | None = None,
    ) -> None:
        self.name = name
        self.tally = Tally()
        self._run = run
        self._most = most
        self._at_once = at_once
        self._max_wait_s = max_wait_s
        self._limit = limit
        self._may_start = may_start
        self._beyond = beyond
        self._room: WaitingRoom[Item] = WaitingRoom()
        self._tickets: dict[Demand, Ticket[Item]] = {}  # those that wait, in the order they came
        self._batches: set[asyncio.Task[None]] = set()
        self._running = 0
        self._wake: asyncio.TimerHandle | None = None
        self._item_s: float | None = None
        self._last: tuple[float, int] | None = None  # start and size of the last batch, if work was left waiting

    @property
    def waiting(self) -> int:
        """Pieces of work that wait."""
        return len(self._tickets)

    @property
    def waiting_bulk(self) -> int:
        """Those of them that are bulk work."""
        return self._room.bulk

    @property
    def running(self) -> int:
        """Pieces of work in batches that run."""
        return self._running

    @property
    def item_s(self) -> float:
        """Seconds from one item to the next while there was always enough to do, of late; 0 if there never was."""
        return self._item_s or 0.0

    @property
    def oldest_wait_s(self) -> float:
        """How long the oldest has waited."""
        oldest = next(iter(self._tickets.values()), None)
        return asyncio.get_running_loop().time() - oldest.queued if oldest is not None else 0.0

    async def submit(self, kind: Hashable, item: Item, demand: Demand) -> tuple[Result, float]:
        """Has an item run in a batch of its kind. Work whose caller is cancelled while it waits is never started.

        Args:
            kind: What may share a batch is of one kind.
            item: The work.
            demand: Who wants it; waits here for one item at a time.

        Returns:
            The outcome, and the milliseconds that it waited.

        Raises:
            ResourceExhausted: QUEUE_FULL: too much waits, or so much that the deadline would pass meanwhile.
            DeadlineExceeded: The deadline passed before it was its turn.
        """
        loop = asyncio.get_running_loop()
        in_time = True
        if self._beyond is not None:
            further, further_s = self._beyond()
            expected_s = (self._room.ahead(demand) + further + 1) * max(self.item_s, further_s)
            in_time = loop.time() + expected_s * _CAUTION <= demand.deadline
        if self.waiting >= self._limit or (self.waiting and not in_time):
            self.tally.refused += 1
            raise ResourceExhausted(
                "QUEUE_FULL",
                f"{self.waiting} requests are waiting for the {self.name}"
                f"{'' if in_time else ', and the deadline would pass before its turn'}; try again",
                retry_after_s=min(max(_RETRY_S[0], self.waiting * self.item_s / 2), _RETRY_S[1]),
            )
        ticket = Ticket(kind, item, demand, loop.time(), loop.create_future(), demand.bulk)
        self._tickets[demand] = ticket
        self._room.add(ticket)
        expiry = None if demand.deadline == float("inf") else loop.call_at(demand.deadline, self._expire, ticket)
        self.poke()
        try:
            outcome: tuple[Result, float] = await ticket.answer
            return outcome
        finally:
            if self._tickets.get(demand) is ticket:  # cancelled
                self.tally.cancelled += 1
                self._leave(ticket)
            ticket.answer.cancel()
            if expiry is not None:
                expiry.cancel()

    def hurry(self, demand: Demand) -> None:
        """To be called after a demand that may wait here was joined by another."""
        if (ticket := self._tickets.get(demand)) is not None:
            self._room.hurry(ticket)

    def poke(self) -> None:
        """Starts what can be started."""
        loop = asyncio.get_running_loop()
        while self._tickets and len(self._batches) < self._at_once and self._may_start():
            now = loop.time()
            kind = self._room.next_kind()
            most = self._most(kind)
            oldest = next(iter(self._tickets.values())).queued
            if self._batches and self._room.count(kind) < most and now < oldest + self._max_wait_s:
                self._wake_at(oldest + self._max_wait_s)
                return
            batch = []
            for ticket in self._room.take(most):
                del self._tickets[ticket.demand]
                if ticket.demand.deadline <= now:  # this loop was too busy for its timer
                    self._fail_expired(ticket)
                else:
                    batch.append(ticket)
            if batch:
                self._pace(now, len(batch))
                self._running += len(batch)
                task = loop.create_task(self._work(kind, batch))
                self._batches.add(task)

    async def _work(self, kind: Hashable, batch: list[Ticket[Item]]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        outcomes: Sequence[Result | Exception]
        try:
            outcomes = await self._run(kind, [ticket.item for ticket in batch])
            if len(outcomes) != len(batch):
                raise RuntimeError(f"{self.name}: {len(outcomes)} outcomes of {len(batch)} items")
        except Exception as error:  # goes to those who wait for it
            outcomes = [error] * len(batch)
        finally:
            self._batches.discard(asyncio.current_task())
            self._running -= len(batch)
        took_s = loop.time() - started
        self.tally.batches += 1
        self.tally.done += len(batch)
        self.tally.busy_s += took_s
        self.poke()  # before those who wait are told, so that the device goes on meanwhile
        for ticket, outcome in zip(batch, outcomes, strict=True):
            waited_s = started - ticket.queued
            self.tally.waited_s += waited_s
            if ticket.answer.done():
                continue  # the caller has left
            if isinstance(outcome, Exception):
                ticket.answer.set_exception(outcome)
            else:
                ticket.answer.set_result((outcome, waited_s * 1e3))

    def _pace(self, now: float, size: int) -> None:
        if self._last is not None:
            item_s = (now - self._last[0]) / self._last[1]
            self._item_s = item_s if self._item_s is None else self._item_s + _SMOOTHING * (item_s - self._item_s)
        self._last = (now, size) if self._tickets else None

    def _wake_at(self, when: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wake = asyncio.get_running_loop().call_at(when, self.poke)

    def _expire(self, ticket: Ticket[Item]) -> None:
        if self._tickets.get(ticket.demand) is not ticket:
            return
        loop = asyncio.get_running_loop()
        if ticket.demand.deadline > loop.time():  # somebody with more time has joined
            if ticket.demand.deadline != float("inf"):
                loop.call_at(ticket.demand.deadline, self._expire, ticket)
            return
        self._leave(ticket)
        self._fail_expired(ticket)

    def _fail_expired(self, ticket: Ticket[Item]) -> None:
        self.tally.expired += 1
        if not ticket.answer.done():
            ticket.answer.set_exception(
                DeadlineExceeded("DEADLINE_EXCEEDED", f"the deadline passed while waiting for the {self.name}")
            )

    def _leave(self, ticket: Ticket[Item]) -> None:
        del self._tickets[ticket.demand]
        self._room.discard(ticket)
        self.poke()
