"""Token-bucket rate limiting, for what callers may use and for how often clients try again."""

import math
import time
from collections.abc import Callable


class TokenBucket:
    """Allows `rate` units a second, and up to `capacity` at once after a rest. Not safe for use by several threads.

    An amount larger than the capacity is allowed when the bucket is full, and leaves a debt: large things are slow, not
    impossible, and the rate holds.

    Args:
        rate: Units a second.
        capacity: Units that may be taken at once.
        clock: Returns the time in seconds, from any start.
    """

    def __init__(self, rate: float, capacity: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._capacity = capacity
        self._clock = clock
        self._level = capacity
        self._at = clock()

    def wait_s(self, amount: float = 1) -> float:
        """Returns the seconds until an amount may be taken; 0 if it may be taken now."""
        now = self._clock()
        self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (min(amount, self._capacity) - self._level) / self._rate)

    def take(self, amount: float = 1) -> None:
        """Takes an amount, whether it may be taken now or not."""
        self._level -= amount

    def give(self) -> None:
        """Puts one unit back."""
        self._level = min(self._capacity, self._level + 1)

    def reserve(self, longest_s: float) -> float:
        """Takes one unit, to be used later.

        Args:
            longest_s: Longest time to wait for it.

        Returns:
            The seconds to wait before it is used; infinity, and nothing is taken, if that is longer than `longest_s`.
        """
        wait_s = self.wait_s()
        if wait_s > longest_s:
            return math.inf
        self.take()
        return wait_s
