"""Memory of a process that runs for weeks: allocator, garbage collector, and a limit."""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from maskwire_core.runtime.periodic import repeating

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # from malloc.h
_ARENAS = 2
_LARGE, _AT_THE_END = 512 << 10, 8 << 20  # the first is beyond what one read of a socket takes
_EVERY_S = 1
_MUCH = 64 << 20


def settle() -> None:
    """Keeps memory flat and garbage collections short. To be called once, after loading and before serving.

    Limits the C library's malloc arenas: with one per thread, a process grows until all threads have been used. Exempts
    all current objects, modules above all, from Python's garbage collection: a full collection took up to 0.15 s, in
    which no call was answered, and came so late that memory grew.
    """
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
    gc.collect()
    gc.freeze()


def return_at_once() -> None:
    """Has the C library give large pieces of memory back to the system as soon as they are freed.

    By itself it keeps pieces of up to 32 MiB once some of them were freed, and such as grow beside one another then
    leave holes in its heap: eight bodies of 20 MiB took 260 MiB, and ninety that were refused after 4 MiB left 190 MiB.
    The system clears large pieces each time instead, in half a millisecond for each MiB; so this is for processes that
    receive and pass on, not for those that compute.
    """
    with contextlib.suppress(AttributeError, OSError):  # as above
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, _AT_THE_END)


def give_back() -> None:
    """Gives memory that was freed, but that the C library keeps, back to the system. May take some milliseconds."""
    with contextlib.suppress(AttributeError, OSError):  # as above
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.asynccontextmanager
async def returning(given_back: Callable[[], int], look_s: float, *, collects: bool = False) -> AsyncIterator[None]:
    """Gives memory back to the system while the body runs, when calls have given back much of it: the C library keeps
    what is freed between other things.

    Args:
        given_back: How many bytes calls have ever given back.
        look_s: Seconds between two looks at that.
        collects: Whether to look for garbage first. Errors of calls that were tried again and again keep what those
            calls had in cycles (tenacity's objects are such), where it stays until Python looks by itself. Not for
            processes in which millions of small objects come and go: all threads wait meanwhile.
    """
    returned = given_back()

    async def look() -> None:
        nonlocal returned
        if given_back() - returned >= _MUCH:
            returned = given_back()
            if collects:
                await asyncio.to_thread(gc.collect)
            await asyncio.to_thread(give_back)

    async with repeating(look_s, look):
        yield


def forget_frames(error: BaseException | None) -> None:
    """Drops an error's traceback, and the errors that led to it. They keep what a call had, of which nothing counts any
    more, for as long as the caller does not read the answer, or is kept waiting for it."""
    while error is not None:
        earlier = error.__cause__ or error.__context__
        error.__traceback__ = error.__cause__ = error.__context__ = None
        error = earlier


def resident() -> int:
    """Resident memory of this process in bytes; 0 if the system has no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0


async def outgrown(most: int) -> None:
    """Returns when resident memory exceeds `most` bytes; checks every second."""
    while (now := resident()) <= most:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(_EVERY_S)
    log.warning("%d MiB of memory are resident, more than the %d that are allowed", now >> 20, most >> 20)
