"""Calls of file systems that may hang, each given up after a timeout."""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from maskwire_core.errors import ServiceError, Unavailable
from maskwire_core.scheduling.round_robin import RoundRobin
from maskwire_core.telemetry.metrics import COLD_TIER

P = ParamSpec("P")
T = TypeVar("T")

_FAILURES = 3  # in a row, after which nobody asks for a while
_PAUSE_S = 5.0


class Patience:
    """Runs functions that block on threads of their own, and gives up on those that take too long.

    At most `at_once` run at the same time; when more are asked for, tenants take turns, and what has no turn in time is
    given up. After three failures in a row, calls fail at once; every five seconds one may try again. A function that
    hangs keeps its thread. Used on one event loop.

    Args:
        timeout_s: Seconds until a call is given up.
        at_once: Functions that may run at the same time.
        clock: Seconds, for the pause.
    """

    def __init__(self, timeout_s: float, at_once: int = 16, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._at_once = at_once
        self._clock = clock
        self._failures = 0
        self._closed_until = 0.0
        self._running = self._threads = 0
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting = RoundRobin()

    async def run(self, tenant: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function.

        Args:
            tenant: On whose behalf.
            function: What blocks.
            args: Its arguments.
            kwargs: Likewise.

        Raises:
            Unavailable: COLD_TIER_UNAVAILABLE: it failed, takes too long, or was not tried.
            ServiceError: The function raised it, for a reason of its own.
        """
        now = self._clock()
        if self._failures >= _FAILURES and now < self._closed_until:
            raise _refused("it failed lately", max(self._closed_until - now, 1.0))
        self._closed_until = now + _PAUSE_S  # until this call has succeeded, others do not try a failing tier
        is_running = False
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._turn(tenant)
                is_running = True
                result = await self._on_thread(lambda: function(*args, **kwargs))
        except ServiceError:
            raise
        except Exception as error:  # file systems raise errors of their own libraries
            if not is_running:
                raise _refused("too much is asked of it", 1.0) from error
            self._failures += 1
            COLD_TIER.labels("failed").inc()
            why = f"no answer in {self._timeout_s:g} s" if isinstance(error, TimeoutError) else str(error)
            raise _unavailable(why, _PAUSE_S if self._failures >= _FAILURES else 1.0) from error
        self._failures = 0
        return result

    async def _turn(self, tenant: str) -> None:
        """Waits until one more function may run, and counts it."""
        if self._running < self._at_once:
            self._running += 1
            return
        turn = self._waiting.wait(tenant)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came just now
                self._ended()
            raise

    def _ended(self) -> None:
        """Lets the next function run, after one has ended."""
        self._running -= 1
        if self._waiting.let_next():
            self._running += 1

    def _on_thread(self, function: Callable[[], T]) -> "asyncio.Future[T]":
        """Runs a function that was counted."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(outcome: T | None, error: BaseException | None) -> None:
            self._ended()
            if answer.done():  # nobody waits any more
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(outcome)  # type: ignore[arg-type]

        def work() -> None:
            outcome, raised = None, None
            try:
                outcome = function()
            except BaseException as error:  # the caller's, who awaits it
                raised = error
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, outcome, raised)

        self._work.put(work)
        if self._threads < self._running:  # starting one holds up the event loop, so they stay
            self._threads += 1
            # Not a pool's: those are waited for at the end of the process, and one that hangs would never end.
            threading.Thread(target=_serve, args=(self._work,), name="cold tier", daemon=True).start()
        return answer


def _serve(work: "queue.SimpleQueue[Callable[[], None]]") -> None:
    while True:
        work.get()()


def _refused(why: str, retry_after_s: float) -> Unavailable:
    COLD_TIER.labels("refused").inc()
    return _unavailable(why, retry_after_s)


def _unavailable(why: str, retry_after_s: float) -> Unavailable:
    return Unavailable(
        "COLD_TIER_UNAVAILABLE",
        f"the image is not in the store, and the cold tier behind it does not answer: {why}; try again, or embed the "
        "image again",
        retry_after_s=retry_after_s,
    )
