"""Calls begin by turns of tenants."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from maskwire_core.errors import ResourceExhausted
from maskwire_core.scheduling.round_robin import RoundRobin
from maskwire_core.scheduling.shares import Shares

_BURST_S = 0.001  # between two calls of a burst, which are taken up faster than they can be answered
_MANY, _MANY_S = 8, 0.02  # so many calls within so many seconds are a burst, too, taken up slowly on a busy processor
_LONGEST_S = 0.005  # during a burst, the longest time from one beginning to the next
MOST_WAITING = 8192
"""Calls that wait, of which one tenant may have two thirds."""


class Turns:
    """Has calls begin one after another when many come at once: a tenant's after one of each other tenant.

    gRPC takes up calls in the order in which they come, whoever makes them, and that takes a third of what a short call
    costs. During a burst the rest of it is put off, so that calls of others, which come behind, are soon taken up, too.
    """

    def __init__(self) -> None:
        self._shares = Shares(MOST_WAITING)
        self._waiting = RoundRobin()
        self._taken_up = deque([-_MANY_S], _MANY)  # when the latest calls were, in the loop's time
        self._began = 0.0
        self._timer: asyncio.Handle | None = None

    async def begin(self, tenant: str) -> None:
        """Waits until a tenant's call may begin.

        Raises:
            ResourceExhausted: TOO_MANY_CALLS: too many of the tenant's calls wait.
        """
        now = asyncio.get_running_loop().time()
        is_burst = self._is_burst(now)
        self._taken_up.append(now)
        if not is_burst and not self._waiting:
            self._began = now
            return
        with self._place(tenant) as turn:
            await turn

    @contextmanager
    def _place(self, tenant: str) -> Iterator["asyncio.Future[None]"]:
        refusal = ResourceExhausted(
            "TOO_MANY_CALLS", "too many calls have come at once; make fewer, or try again later", retry_after_s=1
        )
        loop = asyncio.get_running_loop()
        with self._shares.holding(tenant, 1, refusal):
            turn = self._waiting.wait(tenant)
            if self._timer is None:
                self._timer = loop.call_soon(self._next)
            yield turn

    def _is_burst(self, now: float) -> bool:
        """Whether calls are being taken up that came at once."""
        is_full = len(self._taken_up) == _MANY
        return now - self._taken_up[-1] < _BURST_S or (is_full and now - self._taken_up[0] < _MANY_S)

    def _next(self) -> None:
        """Lets the next call begin, if it is time to, and looks again soon."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        is_burst = self._is_burst(now)
        if not is_burst or now - self._began >= _LONGEST_S:
            self._waiting.let_next()
            self._began = now
        self._timer = None
        if self._waiting:
            self._timer = loop.call_later(_BURST_S, self._next) if is_burst else loop.call_soon(self._next)
