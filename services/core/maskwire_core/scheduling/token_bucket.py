"""How much at once."""

import time
from collections.abc import Callable


class Bucket:
    """A token bucket: `rate` units a second, and up to `capacity` at once after a rest.

    What is larger than the whole bucket passes when it is full, and leaves a debt: so large things are slow, not
    impossible, and the rate holds. Not for several threads.

    Args:
        rate: Units a second.
        capacity: Units that may be taken at once.
        clock: Seconds, from any start.
    """

    def __init__(self, rate: float, capacity: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._capacity = capacity
        self._clock = clock
        self._level = capacity
        self._at = clock()

    def wait_s(self, amount: float) -> float:
        """Seconds until an amount may be taken; 0: now."""
        now = self._clock()
        self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (min(amount, self._capacity) - self._level) / self._rate)

    def take(self, amount: float) -> None:
        self._level -= amount
