"""How often a client tries again: enough to get over a failure, too little to make one worse."""

import math
import time
from collections.abc import Callable


class RetryBudget:
    """Retries that all calls of a client share: some at once, then so many a second, and one for each success.

    Args:
        at_once: Retries that may be made at the same time, after a quiet while.
        per_s: Retries a second from then on.
        clock: Seconds.
    """

    def __init__(self, at_once: float = 100, per_s: float = 100, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = at_once
        self._per_s = per_s
        self._clock = clock
        self._left = float(at_once)  # negative: taken ahead of time
        self._at = clock()

    def reserve(self, longest_s: float) -> float:
        """Takes a retry. Returns the seconds until it may be made; infinity, and takes none, if that is too long."""
        self._refill()
        wait_s = max(0.0, (1 - self._left) / self._per_s)
        if wait_s > longest_s:
            return math.inf
        self._left -= 1
        return wait_s

    def take(self) -> bool:
        """Takes a retry that may be made now. Returns whether there was one."""
        return self.reserve(0) == 0

    def succeeded(self) -> None:
        """A call was answered."""
        self._refill()
        self._left = min(self._left + 1, self._most)

    def _refill(self) -> None:
        now = self._clock()
        self._left = min(self._left + (now - self._at) * self._per_s, self._most)
        self._at = now
