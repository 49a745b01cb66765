"""A bounded queue in front of a few worker threads."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from maskwire_core.errors import ResourceExhausted

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """Runs functions on worker threads; refuses work when too much is waiting.

    Args:
        name: What runs here, for the error that a refused caller reads.
        threads: Functions that run at the same time.
        limit: Functions that may wait.
    """

    def __init__(self, name: str, threads: int, limit: int) -> None:
        self.name = name
        self._limit = limit + threads
        self._pending = 0
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    @property
    def pending(self) -> int:
        """Functions that wait or run."""
        return self._pending

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
        """Runs a function. One whose caller is cancelled while it waits is never started.

        Returns:
            Its result and the milliseconds it waited.

        Raises:
            ResourceExhausted: Too much is waiting already.
        """
        if self._pending >= self._limit:
            raise ResourceExhausted(
                "QUEUE_FULL", f"{self._pending} requests are waiting for the {self.name}; try again", retry_after_s=0.5
            )
        queued = time.perf_counter()

        def timed() -> tuple[T, float]:
            waited_ms = (time.perf_counter() - queued) * 1e3
            return function(*args, **kwargs), waited_ms

        self._pending += 1
        loop = asyncio.get_running_loop()
        future = self._executor.submit(timed)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done) if not loop.is_closed() else None)
        return await asyncio.wrap_future(future)

    def _done(self) -> None:
        self._pending -= 1
