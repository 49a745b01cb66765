"""The memory of a process that runs for weeks."""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

_M_ARENA_MAX = -8  # of malloc.h
_ARENAS = 2
_EVERY_S = 1


def settle() -> None:
    """Keeps memory flat, and collections short. To be called once, when all is loaded and nothing is served yet.

    The C library's arenas are few: with one for each thread, a process grows until all threads have had work. What was
    made so far, the modules above all, is not looked at by Python's collector any more: that took up to 0.15 s in which
    nobody was answered, and so much had to pile up before it came that memory grew.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
    gc.collect()
    gc.freeze()


def resident() -> int:
    """Resident memory of this process in bytes; 0 where the system has no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0


async def outgrown(most: int) -> None:
    """Returns when resident memory has grown above `most` bytes; looks every second."""
    while (now := resident()) <= most:  # noqa: ASYNC110 - memory tells nobody that it grows
        await asyncio.sleep(_EVERY_S)
    log.warning("%d MiB of memory are resident, more than the %d that are allowed", now >> 20, most >> 20)
