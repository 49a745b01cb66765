"""Memory that calls share, in bytes: it is taken before anything is kept, and given back exactly once."""

import asyncio
import itertools
import threading
from collections import deque
from dataclasses import dataclass
from types import TracebackType

from maskwire_core.errors import ResourceExhausted
from maskwire_core.scheduling.shares import Shares
from maskwire_core.telemetry.metrics import LiveMetric

_RETRY_S = 0.5


@dataclass(eq=False)
class _Waiter:
    """A call that waits for bytes."""

    account: "Account"
    nbytes: int
    arrival: int
    loop: asyncio.AbstractEventLoop
    came: asyncio.Future[None]
    granted: bool = False


class ByteBudget:
    """A number of bytes that tenants share as `Shares` says. Safe to use from many threads.

    Who has less goes first: while a tenant waits, nobody who has as much takes anything, however small. So the bytes
    that are given back come together for those who want many, and a tenant who has much keeps nobody waiting.

    Args:
        total: How many bytes there are.
        per_call: How many of them one call may have; None for all that its tenant may.

    Attributes:
        total: As given.
    """

    def __init__(self, total: int, per_call: int | None = None) -> None:
        self.total = total
        self._per_call = total if per_call is None else min(per_call, total)
        self._shares = Shares(total)
        self._waiters: dict[str, deque[_Waiter]] = {}  # by tenant, in the order in which they came
        self._arrivals = itertools.count()
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes that all calls have."""
        return self._shares.held

    @property
    def given_back(self) -> int:
        """Bytes that calls have ever given back."""
        return self._shares.given_back

    @property
    def waiting(self) -> int:
        """Number of calls that wait."""
        with self._lock:
            return sum(map(len, self._waiters.values()))

    def account(self, tenant: str) -> "Account":
        """Opens an account for a call of a tenant; it has no bytes yet. Close it when the call ends."""
        return Account(self, tenant)

    def live_metrics(self, what: str) -> list[LiveMetric]:
        """Returns gauges of this budget.

        Args:
            what: What its bytes are for, as a label.
        """
        label = (("what", what),)
        return [
            LiveMetric(
                "maskwire_budget_held_bytes", "Bytes of memory that calls have taken.", lambda: self.held, label
            ),
            LiveMetric("maskwire_budget_total_bytes", "Bytes of memory that they may take.", lambda: self.total, label),
            LiveMetric("maskwire_budget_waiting", "Calls that wait for memory.", lambda: self.waiting, label),
        ]

    # What accounts use

    def _take(self, account: "Account", nbytes: int) -> bool:
        with self._lock:
            account._check_open()
            first = self._first()
            if first is not None and self._shares.of(first.account.tenant) <= self._shares.of(account.tenant):
                return False
            if account.nbytes + nbytes > self._per_call or not self._shares.take(account.tenant, nbytes):
                return False
            account.nbytes += nbytes
            return True

    def _give_back(self, account: "Account", nbytes: int) -> None:
        with self._lock:
            if account._closed:  # which gave back what it had then
                nbytes = min(nbytes, account.nbytes)
            if not 0 <= nbytes <= account.nbytes:
                raise ValueError(f"{nbytes} bytes cannot be given back of {account.nbytes}")
            account.nbytes -= nbytes
            self._shares.add(account.tenant, -nbytes)
            self._serve()

    async def _wait(self, account: "Account", nbytes: int, seconds: float) -> bool:
        could_fit = self._shares.could_fit(account.tenant, nbytes, has=account.nbytes)
        if account.nbytes + nbytes > self._per_call or not could_fit:
            return False  # it would wait for itself
        loop = asyncio.get_running_loop()
        waiter = _Waiter(account, nbytes, next(self._arrivals), loop, loop.create_future())
        with self._lock:
            account._check_open()
            self._waiters.setdefault(account.tenant, deque()).append(waiter)
            self._serve()
        try:
            async with asyncio.timeout(seconds):
                await waiter.came
        except TimeoutError:
            return not self._forget(waiter)  # it may have come just now
        except BaseException:
            if not self._forget(waiter):
                self._give_back(account, nbytes)
            raise
        return True

    def _forget(self, waiter: _Waiter) -> bool:
        """Ends a wait. Returns False if the bytes have been granted already."""
        with self._lock:
            if waiter.granted:
                return False
            self._remove(waiter)
            self._serve()  # those whom it kept waiting
            return True

    def _first(self) -> _Waiter | None:
        """Who is served next: the first of the tenant who has least."""
        heads = (waiters[0] for waiters in self._waiters.values())
        return min(heads, key=lambda head: (self._shares.of(head.account.tenant), head.arrival), default=None)

    def _serve(self) -> None:
        while (first := self._first()) is not None and self._shares.take(first.account.tenant, first.nbytes):
            self._remove(first)
            first.granted = True
            first.account.nbytes += first.nbytes
            first.loop.call_soon_threadsafe(_wake, first.came)

    def _remove(self, waiter: _Waiter) -> None:
        waiters = self._waiters[waiter.account.tenant]
        waiters.remove(waiter)
        if not waiters:
            del self._waiters[waiter.account.tenant]


class Account:
    """What one call has of a budget. A context manager: leaving it gives everything back.

    Args:
        budget: The budget.
        tenant: On whose account.

    Attributes:
        tenant: As given.
        nbytes: How many bytes it has.
    """

    def __init__(self, budget: ByteBudget, tenant: str) -> None:
        self.tenant = tenant
        self.nbytes = 0
        self._budget = budget
        self._closed = False

    def __enter__(self) -> "Account":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def another(self) -> "Account":
        """Opens another account of the same tenant, to be closed by itself."""
        return self._budget.account(self.tenant)

    def try_take(self, nbytes: int) -> bool:
        """Takes bytes if they are there for this call now. Returns whether it has them."""
        return self._budget._take(self, nbytes)

    def take(self, nbytes: int) -> None:
        """Takes bytes. Raises `ResourceExhausted` (TOO_MUCH_IN_PROGRESS) if they are not there for this call now."""
        if not self.try_take(nbytes):
            raise _refusal()

    async def wait(self, nbytes: int, seconds: float) -> None:
        """Takes bytes, and waits for them if need be.

        Raises:
            ResourceExhausted: TOO_MUCH_IN_PROGRESS: they have not come within `seconds`, or never will.
        """
        if not self.try_take(nbytes) and not await self._budget._wait(self, nbytes, seconds):
            raise _refusal()

    def give_back(self, nbytes: int) -> None:
        """Gives some of the bytes back; nothing if it is closed."""
        self._budget._give_back(self, nbytes)

    def close(self) -> None:
        """Gives all bytes back; nothing can be taken any more. Closing it again does nothing."""
        self._closed = True
        self._budget._give_back(self, self.nbytes)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the account is closed; nothing would give back what it takes")


def _wake(came: asyncio.Future[None]) -> None:
    if not came.done():
        came.set_result(None)


def _refusal() -> ResourceExhausted:
    return ResourceExhausted(
        "TOO_MUCH_IN_PROGRESS",
        "calls in progress take all the memory that this one may have; try again when some are done, or send less",
        retry_after_s=_RETRY_S,
    )
