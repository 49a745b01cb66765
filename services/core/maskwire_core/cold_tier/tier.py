"""Reads what left the store's memory from the files behind it."""

import asyncio
import contextlib
import sys

from maskwire_core.cold_tier.files import ColdFiles
from maskwire_core.cold_tier.patience import Patience
from maskwire_core.cold_tier.pending import Kind, Pending
from maskwire_core.config import ColdTierSettings
from maskwire_core.errors import InvalidArgument, Unavailable
from maskwire_core.storage.embedding import Embedding
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

    async def content_key(self, namespace: str, image_id: str) -> str | None:
        """Returns the content key that an image ID stands for; None if it is unknown."""
        if not await asyncio.to_thread(self.pending.is_trusted, Kind.NAME, namespace, image_id):
            return None
        return await self._patience.run(self.files.read_name, namespace, image_id)

    async def forget(self, namespace: str, image_id: str = "", key: str = "") -> None:
        """Deletes the files of an image ID, a content key or both, as far as they answer in time; the rest is left to
        whoever does what is pending."""
        with contextlib.suppress(Unavailable):
            if image_id:
                await self._patience.run(self.files.delete_name, namespace, image_id)
            if key:
                await self._patience.run(self.files.delete_embedding, namespace, key)

    async def embedding(self, namespace: str, key: str) -> tuple[Embedding, bytes] | None:
        """Returns an embedding, verified, and its bytes as the store had them; None if there is none."""
        if not await asyncio.to_thread(self.pending.is_trusted, Kind.EMBEDDING, namespace, key):
            return None
        found = await self._patience.run(self.files.read_embedding, namespace, key)
        if found is None:
            _MISSING.inc()
            return None
        _FOUND.inc()
        _READ.inc(len(found[1]))
        return found


def open_cold_tier(settings: ColdTierSettings, store: Store) -> ColdTier | None:
    """Opens the cold tier that settings name, if any. Exits if its address is invalid."""
    if settings.cold_tier is None:
        return None
    try:
        return ColdTier(settings.cold_tier, store, settings.cold_timeout_s)
    except InvalidArgument as error:
        sys.exit(f"error: --cold-tier {settings.cold_tier}: {error}")
