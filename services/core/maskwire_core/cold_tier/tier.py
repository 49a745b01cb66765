"""Reads what left the store's memory from the files behind it."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from maskwire_core.cold_tier.files import ColdFiles
from maskwire_core.cold_tier.patience import Patience
from maskwire_core.cold_tier.pending import Kind, Pending
from maskwire_core.config import ColdTierSettings
from maskwire_core.errors import InvalidArgument, Unavailable
from maskwire_core.storage.embedding import Embedding, StoredEmbedding
from maskwire_core.storage.store import Store
from maskwire_core.telemetry.metrics import COLD_TIER, STORE_BYTES

_READ = STORE_BYTES.labels("cold read")
_FOUND, _MISSING = COLD_TIER.labels("found"), COLD_TIER.labels("missing")


class ColdTier:
    """What is in the files behind a store. Ask it for what the store does not have: names may be given to other images,
    and the store knows first.

    Methods raise `Unavailable` (COLD_TIER_UNAVAILABLE) if the files cannot be read in time, and what `Store`'s raise.

    Args:
        url: Where the files are; see `ColdFiles`.
        store: The store in front of them.
        timeout_s: Seconds in which a file must have been read.

    Raises:
        InvalidArgument: BAD_COLD_TIER.

    Attributes:
        files: The files.
        pending: What is still to be done with them.
    """

    def __init__(self, url: str, store: Store, timeout_s: float) -> None:
        self.files = ColdFiles(url)
        self.pending = Pending(store)
        self._patience = Patience(timeout_s)

    async def follow(self, namespace: str, image_id: str, key: str, *, is_kept: bool) -> None:
        """Makes the files follow the store, in which the caller gives an image ID to an embedding next.

        Args:
            namespace: Tenant.
            image_id: The image ID.
            key: Content key of the embedding.
            is_kept: Whether the image may outlive the store's memory; otherwise the ID's file goes.
        """
        await asyncio.to_thread(self._enter, namespace, image_id, key if is_kept else None, is_kept=is_kept)

    async def content_key(self, namespace: str, image_id: str) -> str | None:
        """Returns the content key that an image ID stands for; None if it is unknown."""
        key = await self._patience.run(namespace, self.files.read_name, namespace, image_id)
        if key is None or not await asyncio.to_thread(self.pending.is_trusted, Kind.NAME, namespace, image_id):
            return None
        return key

    @contextlib.asynccontextmanager
    async def forgetting(self, namespace: str, image_id: str, key: str | None) -> AsyncIterator[None]:
        """Deletes files, while the body deletes from the store what they are of. From the beginning on nobody finds
        them; those that do not answer in time are deleted later.

        Args:
            namespace: Tenant.
            image_id: Its name goes.
            key: Content key of the embedding that goes; None if none does.
        """
        await asyncio.to_thread(self._enter, namespace, image_id, key, is_kept=False)
        yield
        with contextlib.suppress(Unavailable):
            await self._patience.run(namespace, self.files.delete_name, namespace, image_id)
            if key is not None:
                await self._patience.run(namespace, self.files.delete_embedding, namespace, key)

    async def find(self, namespace: str, image_id: str, ttl_s: int) -> StoredEmbedding | None:
        """Describes the embedding that an image ID stands for; None if there is none.

        Args:
            namespace: Tenant.
            image_id: The image ID.
            ttl_s: Seconds after which files are deleted.
        """
        key = await self.content_key(namespace, image_id)
        if key is None or not await asyncio.to_thread(self.pending.is_trusted, Kind.EMBEDDING, namespace, key):
            return None
        return await self._patience.run(namespace, self.files.find_embedding, namespace, key, ttl_s)

    async def embedding(self, namespace: str, key: str) -> tuple[Embedding, bytes] | None:
        """Returns an embedding, verified, and its bytes as the store had them; None if there is none."""
        if not await asyncio.to_thread(self.pending.is_trusted, Kind.EMBEDDING, namespace, key):
            return None
        found = await self._patience.run(namespace, self.files.read_embedding, namespace, key)
        if found is None:
            _MISSING.inc()
            return None
        _FOUND.inc()
        _READ.inc(len(found[1]))
        return found

    def _enter(self, namespace: str, image_id: str, key: str | None, *, is_kept: bool) -> None:
        """Enters the files of an image ID and, unless its content key is None, of an embedding. Blocks."""
        if key is not None:
            self.pending.enter(Kind.EMBEDDING, namespace, key, is_kept=is_kept)
        self.pending.enter(Kind.NAME, namespace, image_id, is_kept=is_kept)


def open_cold_tier(settings: ColdTierSettings, store: Store) -> ColdTier | None:
    """Opens the cold tier that settings name, if any. Exits if its address is invalid."""
    if settings.cold_tier is None:
        return None
    try:
        return ColdTier(settings.cold_tier, store, settings.cold_timeout_s)
    except InvalidArgument as error:
        sys.exit(f"error: --cold-tier {settings.cold_tier}: {error}")
