"""Calls of file systems that may hang: nobody waits for them longer than said."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from maskwire_core.errors import ServiceError, Unavailable
from maskwire_core.telemetry.metrics import COLD_TIER

P = ParamSpec("P")
T = TypeVar("T")

_FAILURES = 3  # in a row, after which nobody asks for a while
_PAUSE_S = 5.0


class Patience:
    """Runs functions that block on threads of their own, and gives up on those that take too long.

    After three failures in a row, calls fail at once; every five seconds one may try again. A function that hangs keeps
    its thread, of which there are at most `at_once`: when all hang, calls fail at once, too. Used on one event loop.

    Args:
        timeout_s: Seconds until a call is given up.
        at_once: Functions that may run at the same time.
        clock: Seconds, for the pause.
    """

    def __init__(self, timeout_s: float, at_once: int = 16, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._free = at_once
        self._clock = clock
        self._failures = 0
        self._closed_until = 0.0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function.

        Raises:
            Unavailable: COLD_TIER_UNAVAILABLE: it failed, takes too long, or was not tried.
            ServiceError: The function raised it, for a reason of its own.
        """
        now = self._clock()
        if not self._free or (self._failures >= _FAILURES and now < self._closed_until):
            COLD_TIER.labels("refused").inc()
            raise _unavailable("it failed lately", max(self._closed_until - now, 1.0))
        self._closed_until = now + _PAUSE_S  # until this call has succeeded, others do not try a failing tier
        try:
            result = await asyncio.wait_for(self._on_thread(lambda: function(*args, **kwargs)), self._timeout_s)
        except ServiceError:
            raise
        except Exception as error:  # file systems raise errors of their own libraries
            self._failures += 1
            COLD_TIER.labels("failed").inc()
            why = f"no answer in {self._timeout_s:g} s" if isinstance(error, TimeoutError) else str(error)
            raise _unavailable(why, _PAUSE_S if self._failures >= _FAILURES else 1.0) from error
        self._failures = 0
        return result

    def _on_thread(self, function: Callable[[], T]) -> "asyncio.Future[T]":
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(outcome: T | None, error: BaseException | None) -> None:
            self._free += 1
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
            try:
                loop.call_soon_threadsafe(settle, outcome, raised)
            except RuntimeError:  # the loop has ended
                return

        self._free -= 1
        # Not a pool's: those are waited for at the end of the process, and one that hangs would never end.
        threading.Thread(target=work, name="cold tier", daemon=True).start()
        return answer


def _unavailable(why: str, retry_after_s: float) -> Unavailable:
    return Unavailable(
        "COLD_TIER_UNAVAILABLE",
        f"the image is not in the store, and the cold tier behind it does not answer: {why}; try again, or embed the "
        "image again",
        retry_after_s=retry_after_s,
    )
