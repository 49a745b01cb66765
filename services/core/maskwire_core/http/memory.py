"""Memory that requests take, on their callers' account."""

import contextlib
from collections.abc import Iterator

from starlette.types import Scope

from maskwire_core.http.problems import Problem, busy
from maskwire_core.scheduling.shares import Shares

_HOLDER = "maskwire.holder"  # in the scope: on whose account a request takes memory and slots
_ANSWER = "maskwire.answer"  # and what it takes until its answer is read


class Held:
    """The memory that one request or WebSocket takes, until it is released: what is counted later counts nothing.

    Args:
        shares: Memory of all requests, in bytes.
        holder: On whose account.
    """

    def __init__(self, shares: Shares, holder: str) -> None:
        self.held_bytes = 0
        self._shares = shares
        self._holder = holder
        self._is_released = False

    def hold(self, count: int) -> None:
        """Counts more bytes of memory, until `release`.

        Raises:
            Problem: TOO_MUCH_IN_PROGRESS: the caller's requests, or all together, take too much. BODY_TOO_LARGE: this
                one alone does.
        """
        if not self._is_released and not self.fits(count):
            remedy = ", with the token as a header" if self._shares.is_small(self._holder) else ""
            if not self._shares.could_fit(self._holder, count, has=self.held_bytes):
                said = f"the request would take more memory than one may have; send less at once{remedy}"
                raise Problem(413, said, "BODY_TOO_LARGE")
            raise busy(f"too many large requests at once; try again{remedy}", "TOO_MUCH_IN_PROGRESS")
        self.add(count)

    @contextlib.contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """Counts more bytes of memory while the body runs; if it fails, until `release`, since the error's traceback
        keeps what there was. Raises as `hold`."""
        self.hold(count)
        yield
        self.give_back(count)

    def give_back(self, count: int) -> None:
        """Counts fewer bytes: all of them if there are not as many, as after `release`."""
        self.add(-min(count, self.held_bytes))

    def add(self, count: int) -> None:
        """Counts bytes that are there already, whatever the caller's share; a negative number is given back."""
        if not self._is_released:
            self._shares.add(self._holder, count)
            self.held_bytes += count

    def fits(self, count: int) -> bool:
        """Whether `hold` would count so many more bytes now."""
        return self._shares.fits(self._holder, count)

    def could_fit(self, count: int) -> bool:
        """Whether it would count so many bytes if nothing else was held."""
        return self._shares.could_fit(self._holder, count)

    def pass_to(self, other: "Held") -> None:
        """Lets another count what is counted here."""
        count = self.held_bytes
        self.add(-count)
        other.add(count)

    def release(self) -> None:
        """Counts no memory any longer."""
        self.add(-self.held_bytes)
        self._is_released = True


def holder_of(scope: Scope) -> str:
    """On whose account a request takes memory and slots."""
    return str(scope.get(_HOLDER, ""))


def set_holder(scope: Scope, holder: str, answer: Held | None = None) -> None:
    """Says on whose account a request takes memory and slots, and what it takes until its answer is read."""
    scope[_HOLDER], scope[_ANSWER] = holder, answer


def hold_failed(scope: Scope, held: Held) -> None:
    """Counts what a failing request has taken until its error is answered: until then the error's traceback keeps what
    was made of its body, such as values of its JSON."""
    answer = scope.get(_ANSWER)
    if answer is not None:
        held.pass_to(answer)


def release_failed(scope: Scope) -> None:
    """Stops counting what a failed request had taken: its error's traceback is gone."""
    answer = scope.get(_ANSWER)
    if answer is not None:
        answer.give_back(answer.held_bytes)


def hold_answer(scope: Scope, count: int) -> None:
    """Counts bytes of memory that a request takes until its answer is read.

    Raises:
        Problem: TOO_MUCH_IN_PROGRESS.
    """
    answer = scope.get(_ANSWER)
    if answer is not None:
        answer.hold(count)
