"""Which process gRPC's asyncio layer may be used in: the first that did, and not its forked children."""

import os

from maskwire.errors import MaskwireError

_first: int | None = None  # process id; a forked child inherits the value


def claim_process() -> None:
    """Marks this process as the one that uses gRPC. Raises as `check_process`."""
    global _first
    check_process()
    _first = os.getpid()


def check_process() -> None:
    """Refuses a process that was forked after a client was made: gRPC's threads do not exist in it, and calls would
    never be answered.

    Raises:
        MaskwireError: FORKED.
    """
    if _first not in (None, os.getpid()):
        raise MaskwireError(
            "this process was forked after its parent had used a Maskwire client; use the start method 'spawn', or "
            "make the first client after the fork",
            "FORKED",
        )
