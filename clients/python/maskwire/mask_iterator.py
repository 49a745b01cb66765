"""The iterator over a session's masks."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from maskwire.results import Result


class Masks:
    """A session's masks as they arrive; of previews that were not consumed yet, only the newest."""

    def __init__(self) -> None:
        self._waiting: deque[Result] = deque()
        self._changed = asyncio.Event()
        self._closed = False

    def __aiter__(self) -> AsyncIterator[Result]:
        return self

    async def __anext__(self) -> Result:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()

    def add(self, result: Result) -> None:
        """Adds a mask; it replaces a preview that was not consumed yet."""
        if self._waiting and self._waiting[-1].is_preview:
            self._waiting.pop()
        self._waiting.append(result)
        self._changed.set()

    def close(self) -> None:
        """Ends the iteration after the masks that were added."""
        self._closed = True
        self._changed.set()
