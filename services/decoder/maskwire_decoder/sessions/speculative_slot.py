"""The slot that a stream's speculative requests share, of which only the newest is decoded."""

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class SpeculativeSlot(Generic[T]):
    """Has the newest speculative request until its turn comes, and then until it is answered.

    Worker threads take from it, while the event loop puts into it: which request is decoded is decided only when a
    worker thread is free.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: T | None = None
        self._taken: T | None = None  # what was the newest when the turn came, until it is answered
        self._turns_ended = 0

    @property
    def newest(self) -> T | None:
        """The request that waits for its turn."""
        return self._newest

    @property
    def requests(self) -> list[T]:
        """What is in the slot: the request that waits, and the one that is being decoded."""
        newest, taken = self._newest, self._taken
        return [request for request in (newest, taken) if request is not None]

    @property
    def turns_ended(self) -> int:
        """How many turns were ended by requests that go before what was in the slot."""
        return self._turns_ended

    def put(self, request: T) -> T | None:
        """Puts a request into the slot. Returns the one that waited there, which is not decoded any more."""
        with self._lock:
            replaced, self._newest = self._newest, request
            return replaced

    def end_turn(self) -> tuple[T | None, T | None]:
        """Empties the slot. Returns what waited for its turn and what was being decoded."""
        with self._lock:
            waiting, started = self._newest, self._taken
            self._newest = self._taken = None
            self._turns_ended += 1
            return waiting, started

    def take(self, turns_ended: int) -> T | None:
        """Takes the newest request to decode it.

        Args:
            turns_ended: `turns_ended` when the turn was asked for. If another turn has ended since, nothing is taken:
                what is in the slot is for another turn then, and may be for another image.
        """
        with self._lock:
            if turns_ended != self._turns_ended or self._newest is None:
                return None
            self._newest, self._taken = None, self._newest
            return self._taken

    def is_taken(self, request: T) -> bool:
        """Whether a request is being decoded and still wanted."""
        return self._taken is request

    def finish(self) -> T | None:
        """Returns what was being decoded and is answered now; None if that was ended meanwhile."""
        with self._lock:
            answered, self._taken = self._taken, None
            return answered

    def put_back(self) -> T | None:
        """Puts what was taken back, for another turn. Returns it, instead, where a newer request waits."""
        with self._lock:
            taken, self._taken = self._taken, None
            if self._newest is None:
                self._newest, taken = taken, None
            return taken

    def fail(self, request: T) -> T | None:
        """Returns the request that an error is the answer to: what was being decoded, else `request`, if it waits."""
        with self._lock:
            failed, self._taken = self._taken, None
            if failed is None and self._newest is request:
                failed, self._newest = request, None
            return failed
