"""Looks up what names of images stand for."""

import asyncio
from contextvars import Context

from maskwire_core.storage.store import Store

_AT_ONCE = 4
_BATCH = 128


class NameLookups:
    """Looks up names in the store: one by one, and many in one round trip when many are asked for at the same time, so
    that a burst of calls does not take all of the store's threads, between which the event loop would get its turn.

    Args:
        store: Has the names.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running = 0
        self._waiting: dict[asyncio.Future[str | None], tuple[str, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, namespace: str, image_id: str) -> str | None:
        """Returns the content key that a name stands for; None if it is unknown. Raises as `Store.get_alias`."""
        if self._running >= _AT_ONCE:
            answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
            self._waiting[answer] = namespace, image_id
            try:
                return await answer
            finally:
                self._waiting.pop(answer, None)
        self._running += 1
        try:
            return await asyncio.to_thread(self._store.get_alias, namespace, image_id)
        finally:
            self._go_on()

    def _go_on(self) -> None:
        """Looks up what waits, after a look-up has ended."""
        if not self._waiting:
            self._running -= 1
            return
        batch = dict(list(self._waiting.items())[:_BATCH])
        for answer in batch:
            del self._waiting[answer]
        task = asyncio.get_running_loop().create_task(self._look_up(batch), context=Context())  # of many calls
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_up(self, batch: dict[asyncio.Future[str | None], tuple[str, str]]) -> None:
        try:
            keys = await asyncio.to_thread(self._store.get_aliases, list(batch.values()))
        except Exception as error:  # goes to those who wait for it
            for answer in batch:
                if not answer.done():
                    answer.set_exception(error)
        else:
            for answer, key in zip(batch, keys, strict=True):
                if not answer.done():
                    answer.set_result(key)
        finally:
            self._go_on()
