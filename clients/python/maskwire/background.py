"""The event loop of the blocking clients."""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

from maskwire.errors import MaskwireError

T = TypeVar("T")

_lock = threading.Lock()
_background: tuple[int, asyncio.AbstractEventLoop] | None = None


def _loop() -> asyncio.AbstractEventLoop:
    """One event loop for all blocking clients of the process: grpc's asyncio layer works best with a single one.

    Raises:
        MaskwireError: This process was forked from one that has used a client; grpc does not survive that.
    """
    global _background
    with _lock:
        if _background is None:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="maskwire-client", daemon=True).start()
            _background = (os.getpid(), loop)
        owner, loop = _background
        if owner != os.getpid():
            raise MaskwireError(
                "this process was forked after its parent had used a Maskwire client; use the start method 'spawn', or "
                "make the first client after the fork",
                "FORKED",
            )
        return loop


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on that loop, and waits for it."""
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()  # after Ctrl-C, the call does not go on unseen
        raise


def each(items: AsyncIterator[T]) -> Iterator[T]:
    """Iterates on that loop. Who leaves off early ends the work."""

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
        run(close())
