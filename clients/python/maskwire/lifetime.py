"""In which process, and until when, connections may be used."""

import os

from maskwire.errors import MaskwireError

_first: int | None = None  # the process that used gRPC's asyncio layer first; a forked child inherits the value


class Life:
    """The time in which connections may be used.

    Raises:
        MaskwireError: FORKED, as `check`.

    Attributes:
        closed: Whether it is over.
    """

    def __init__(self) -> None:
        global _first
        check_process()
        _first = os.getpid()
        self.closed = False

    def check(self) -> None:
        """Refuses to go on in a forked process, or after the connections were closed.

        Raises:
            MaskwireError: FORKED or CLOSED.
        """
        check_process()
        if self.closed:
            raise MaskwireError("the client is closed; make another", "CLOSED")


def check_process() -> None:
    """Refuses to go on in a process that was forked after a client was made: gRPC's threads do not exist there, and
    calls would never be answered.

    Raises:
        MaskwireError: FORKED.
    """
    if _first not in (None, os.getpid()):
        raise MaskwireError(
            "this process was forked after its parent had used a Maskwire client; use the start method 'spawn', or "
            "make the first client after the fork",
            "FORKED",
        )
