"""Something limited that callers share: bytes of memory or disk, or calls."""

import contextlib
from collections.abc import Collection, Hashable, Iterator

_SMALL = 1 / 8


class Shares:
    """Shares a total by dynamic thresholds (Choudhury and Hahne, IEEE/ACM Trans. Networking, 1998).

    A holder may have at most twice as much as is free. One alone gets two thirds, and a newcomer always finds
    something: nobody takes everything, whatever they do, and nothing is set aside for those who are not there. Not safe
    for use by several threads.

    Args:
        total: How much there is.
        small: Holders who may have at most an eighth of what is free.

    Attributes:
        total: As given.
        held: How much all holders have.
        given_back: How much was ever given back.
    """

    def __init__(self, total: int, small: Collection[Hashable] = ()) -> None:
        self.total = total
        self._small = frozenset(small)
        self.held = self.given_back = 0
        self._by_holder: dict[Hashable, int] = {}

    def fits(self, holder: Hashable, amount: int) -> bool:
        """Whether a holder may take an amount now."""
        return self._allows(holder, self._by_holder.get(holder, 0), self.held, amount)

    def could_fit(self, holder: Hashable, amount: int, has: int = 0) -> bool:
        """Whether a holder that has so much might take an amount more if nothing else was held."""
        return self._allows(holder, has, has, amount)

    def _allows(self, holder: Hashable, has: int, held: int, amount: int) -> bool:
        free = self.total - held
        most = (_SMALL if holder in self._small else 2) * free
        return amount <= free and has + amount <= most

    def is_small(self, holder: Hashable) -> bool:
        """Whether a holder has a small share only."""
        return holder in self._small

    def take(self, holder: Hashable, amount: int = 1) -> bool:
        """Takes an amount, if the holder may have it. Returns whether it does."""
        if not self.fits(holder, amount):
            return False
        self.add(holder, amount)
        return True

    def add(self, holder: Hashable, amount: int) -> None:
        """Counts an amount that a holder has already; a negative one is given back."""
        self.held += amount
        self.given_back += max(0, -amount)
        self._by_holder[holder] = self._by_holder.get(holder, 0) + amount
        if not self._by_holder[holder]:
            del self._by_holder[holder]

    def of(self, holder: Hashable) -> int:
        """How much a holder has."""
        return self._by_holder.get(holder, 0)

    @contextlib.contextmanager
    def holding(self, holder: Hashable, amount: int, refusal: Exception) -> Iterator[None]:
        """Takes an amount until the body ends. Raises the refusal if the holder may not have it."""
        if not self.take(holder, amount):
            raise refusal
        try:
            yield
        finally:
            self.add(holder, -amount)
