"""The event loop of the blocking clients."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from maskwire.errors import MaskwireError
from maskwire.transport.process import check_process

T = TypeVar("T")

_lock = threading.Lock()
_background: tuple[int, asyncio.AbstractEventLoop] | None = None


def _loop() -> asyncio.AbstractEventLoop:
    """One event loop for all blocking clients of the process: grpc's asyncio layer works best with a single one.

    Raises:
        MaskwireError: FORKED: this process was forked from one that had used a client.
    """
    global _background
    check_process()
    with _lock:
        if _background is None or _background[0] != os.getpid():
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="maskwire-client", daemon=True).start()
            _background = (os.getpid(), loop)
        return _background[1]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on that loop, and waits for it."""
    try:
        loop = _loop()
    except BaseException:
        coroutine.close()
        raise
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # after Ctrl-C, the call does not go on unseen
        raise


def run_later(make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Runs a coroutine on that loop, if there is one in this process, without waiting for it: for finalizers."""
    if _background is not None and _background[0] == os.getpid() and _background[1].is_running():
        with contextlib.suppress(RuntimeError):
            asyncio.run_coroutine_threadsafe(make(), _background[1])


def each(items: AsyncIterator[T]) -> Iterator[T]:
    """Iterates on that loop. Closing the iterator cancels the work."""

    async def following() -> tuple[T] | None:
        async for item in items:
            return (item,)
        return None

    async def close() -> None:
        if isinstance(items, AsyncGenerator):
            await items.aclose()

    try:
        while (item := run(following())) is not None:
            yield item[0]
    finally:
        with contextlib.suppress(MaskwireError):  # in a forked process there is nothing to close
            run(close())
