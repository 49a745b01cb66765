"""Runs the coroutines of blocking clients on a background event loop."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from maskwire.errors import MaskwireError
from maskwire.transport.process import check_process

T = TypeVar("T")

_END = object()
_lock = threading.Lock()
_background: tuple[int, asyncio.AbstractEventLoop] | None = None


def _loop() -> asyncio.AbstractEventLoop:
    """Returns the event loop, which all blocking clients share, since grpc.aio works best with one loop a process."""
    global _background
    check_process()
    with _lock:
        if _background is None or _background[0] != os.getpid():
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="maskwire-client", daemon=True).start()
            _background = (os.getpid(), loop)
        return _background[1]


def run_in_background(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on the background loop, and waits for its result."""
    try:
        loop = _loop()
    except BaseException:
        coroutine.close()
        raise
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # after Ctrl-C, the call must not continue in the background
        raise


def schedule(make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Schedules a coroutine on the background loop without waiting for it, for finalizers. Does nothing if this process
    has no such loop."""
    if _background is not None and _background[0] == os.getpid() and _background[1].is_running():
        with contextlib.suppress(RuntimeError):
            asyncio.run_coroutine_threadsafe(make(), _background[1])


def iterate_in_background(items: AsyncIterator[T]) -> Iterator[T]:
    """Iterates over an asynchronous iterator on the background loop. Closing the iterator cancels the work."""

    step: asyncio.Task[Any] | None = None

    async def next_item() -> Any:
        nonlocal step
        step = asyncio.current_task()
        return await anext(items, _END)

    async def close() -> None:
        # After Ctrl-C a step may still be on its way out or, where the signal came before its future was known, not be
        # cancelled yet; and a running generator cannot be closed.
        if step is not None:
            if not step.cancelling():
                step.cancel()
            await asyncio.wait([step])
        if isinstance(items, AsyncGenerator):
            await items.aclose()

    try:
        while (item := run_in_background(next_item())) is not _END:
            yield item
    finally:
        with contextlib.suppress(MaskwireError):  # a forked process has nothing to close
            run_in_background(close())
