"""Forgets what was deleted: decoders keep embeddings, and logits made from them, in memory."""

import asyncio
import contextlib
import logging
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection
from typing import Protocol

from maskwire_core.errors import ServiceError
from maskwire_core.storage.deletions import START, deleted_since
from maskwire_core.storage.store import Store

log = logging.getLogger(__name__)

_PERIOD_S = 0.5
_REFUSED_S = 60
_REMEMBERED = 10_000


class Keeper(Protocol):
    """What keeps values of images in memory."""

    def drop(self, images: Collection[tuple[str, str]]) -> None:
        """Drops the values of images, given by namespace and content key."""

    def clear(self) -> None:
        """Drops everything."""

    def __len__(self) -> int:
        """How many values are kept."""


class Deletions:
    """Knows which embeddings were deleted, and tells what keeps copies.

    The store has a list of the latest deletions, which is read twice a second: no request waits for it. While the
    store is away, nothing is known; what was deleted meanwhile is dropped when it is back. While nothing is kept, the
    list is not read.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keepers: list[Keeper] = []
        self._position = START
        self._at: OrderedDict[tuple[str, str], float] = OrderedDict()  # when it was learnt, by `time.monotonic`
        self._all_at = -math.inf  # when everything was dropped

    def tell(self, *keepers: Keeper) -> None:
        """Has deletions told to what keeps copies, from now on."""
        self._keepers += keepers

    def may_be_deleted(self, namespace: str, key: str, read_at: float) -> bool:
        """Returns whether a copy of an embedding that was read then (by `time.monotonic`) may be of a deleted one. It
        is not if the same image was embedded again between the deletion and the reading."""
        return read_at <= max(self._at.get((namespace, key), -math.inf), self._all_at)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Learns of deletions while the body runs."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()

    async def look(self) -> None:
        """Drops what was deleted since the last look.

        Raises:
            ServiceError: The store does not answer.
        """
        more = True
        while more:
            images, self._position, all_known, more = await asyncio.to_thread(
                deleted_since, self._store, self._position
            )
            if not all_known:
                log.warning("more was deleted than the store remembers; all copies are dropped")
                self._all_at = time.monotonic()
                for keeper in self._keepers:
                    keeper.clear()
            if images:
                self._learn(images)
                for keeper in self._keepers:
                    await asyncio.to_thread(keeper.drop, set(images))

    def _learn(self, images: Collection[tuple[str, str]]) -> None:
        now = time.monotonic()
        for image in images:
            self._at[image] = now
            self._at.move_to_end(image)
        while len(self._at) > _REMEMBERED:
            self._at.popitem(last=False)

    async def _watch(self) -> None:
        while True:
            try:
                if any(map(len, self._keepers)):
                    await self.look()
            except ServiceError as error:  # while the store is away, every request says so
                if error.reason == "STORE_REFUSES":
                    log.error("deleted images stay in memory: this decoder's user of the store may not read deletions")
                    await asyncio.sleep(_REFUSED_S)
            except Exception:
                log.exception("deletions cannot be read")
            await asyncio.sleep(_PERIOD_S)
