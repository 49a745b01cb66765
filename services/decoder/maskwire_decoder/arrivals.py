"""Waiting for images that are not in the store yet."""

import asyncio
import heapq
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field

from maskwire_core.errors import ResourceExhausted
from maskwire_core.scheduling.shares import Shares
from maskwire_core.storage.store import Store, Wanted

_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.02, 0.25
_LOOKS_PER_S = 1000  # of all images together; pauses grow beyond it
_BATCH = 128  # images in one round trip, so that other callers of the store get their turn
_RETRY_S = 1.0


@dataclass(eq=False)
class _Watched:
    """An image that calls wait for."""

    pause_s: float = _FIRST_PAUSE_S
    calls: int = 0
    came: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Arrivals:
    """Tells calls when the images that they wait for have come.

    One task looks for all images, each once, however many calls wait for it.

    Args:
        store: Where images come.
        most: Calls that may wait at the same time; tenants share them.
    """

    def __init__(self, store: Store, most: int) -> None:
        self._store = store
        self._calls = Shares(most)
        self._watched: dict[Wanted, _Watched] = {}
        # When to look next, by the loop's clock; a unique number; the image, and who waits for it. Entries of images
        # that nobody waits for any more stay until they are due.
        self._due: list[tuple[float, int, Wanted, _Watched]] = []
        self._numbers = itertools.count()
        self._looking: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Number of calls that wait."""
        return self._calls.held

    async def wait(self, wanted: Wanted, seconds: float, tenant: str) -> bool:
        """Waits until an image is stored.

        Args:
            wanted: The image.
            seconds: How long to wait.
            tenant: Who waits.

        Returns:
            Whether it came in time.

        Raises:
            ResourceExhausted: TOO_MANY_WAITING: the tenant has too many calls that wait.
            Unavailable: The store does not answer.
        """
        if seconds <= 0:
            return False
        with self._calls.holding(tenant, 1, self._refusal(tenant)), self._watching(wanted) as watched:
            try:
                async with asyncio.timeout(seconds):
                    await asyncio.shield(watched.came)
            except TimeoutError:
                return False
            return True

    def _refusal(self, tenant: str) -> ResourceExhausted:
        return ResourceExhausted(
            "TOO_MANY_WAITING",
            f"{self._calls.of(tenant)} calls wait for images already; embed the images first, or ask again later",
            field="wait_ms",
            retry_after_s=_RETRY_S,
        )

    @contextmanager
    def _watching(self, wanted: Wanted) -> Iterator[_Watched]:
        watched = self._watched.get(wanted)
        if watched is None:
            watched = self._watched[wanted] = _Watched()
            self._look_after(watched.pause_s, wanted, watched)
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look(), context=Context())  # of no call
        watched.calls += 1
        try:
            yield watched
        finally:
            watched.calls -= 1
            if not watched.calls and self._watched.get(wanted) is watched:
                del self._watched[wanted]

    def _look_after(self, seconds: float, wanted: Wanted, watched: _Watched) -> None:
        heapq.heappush(self._due, (asyncio.get_running_loop().time() + seconds, next(self._numbers), wanted, watched))

    async def _look(self) -> None:
        """Looks for the images that are due, as long as there are any that calls wait for."""
        loop = asyncio.get_running_loop()
        while self._watched:
            now, due = loop.time(), list[tuple[Wanted, _Watched]]()
            while self._due and self._due[0][0] <= now and len(due) < _BATCH:
                _, _, wanted, watched = heapq.heappop(self._due)
                if self._watched.get(wanted) is watched:
                    due.append((wanted, watched))
            if not due:
                await asyncio.sleep(min(_FIRST_PAUSE_S, self._due[0][0] - now) if self._due else _FIRST_PAUSE_S)
                continue
            try:
                stored = await asyncio.to_thread(self._store.are_stored, [wanted for wanted, _ in due])
            except Exception as error:
                for wanted, watched in due:
                    self._settle(wanted, watched, error)
                continue
            longest_s = max(_LAST_PAUSE_S, len(self._watched) / _LOOKS_PER_S)
            for (wanted, watched), is_stored in zip(due, stored, strict=True):
                if is_stored:
                    self._settle(wanted, watched)
                else:
                    watched.pause_s = min(2 * watched.pause_s, longest_s)
                    self._look_after(watched.pause_s, wanted, watched)

    def _settle(self, wanted: Wanted, watched: _Watched, error: Exception | None = None) -> None:
        if self._watched.get(wanted) is watched:
            del self._watched[wanted]  # who waits from now on waits anew
        if watched.came.done() or not watched.calls:
            return
        if error is None:
            watched.came.set_result(None)
        else:
            watched.came.set_exception(error)
