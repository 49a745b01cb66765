"""Finds images that are ready for prompts: recently used embeddings in memory, the rest in the store."""

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass

from maskwire_core.cold_tier.tier import ColdTier
from maskwire_core.config import DecoderSettings
from maskwire_core.errors import CorruptValue, Internal, NotFound, Unavailable, embedding_expired, image_not_found
from maskwire_core.models.loaded import LoadedModels
from maskwire_core.scheduling.single_flight import Flights
from maskwire_core.storage.embedding import Header
from maskwire_core.storage.exports import get_decoder
from maskwire_core.storage.store import Store
from maskwire_core.telemetry.metrics import LiveMetric
from maskwire_core.tenancy.tenant_cache import TenantCache

from maskwire_decoder.arrivals import Arrivals
from maskwire_decoder.deletions import Deletions
from maskwire_decoder.name_lookups import NameLookups
from maskwire_decoder.predictor import Predictor, Prepared

log = logging.getLogger(__name__)

_MAX_PREDICTORS = 8
_MAX_ALIASES = 10_000
_ALIAS_SERVES_S = 30  # seconds that a looked-up name is trusted while the store cannot be asked


@dataclass(frozen=True)
class Image:
    """An embedding that is ready for prompts, with the decoder that reads it."""

    header: Header
    prepared: Prepared
    predictor: Predictor
    read_at: float  # when it was read from the store, by `time.monotonic`
    deletions: Deletions

    @property
    def may_be_deleted(self) -> bool:
        """Whether it, or the image that it is a region of, was deleted after it was read; it may have been embedded
        again since."""
        header = self.header
        names = {header.content_key} if header.region is None else {header.content_key, header.region.image}
        return any(self.deletions.may_be_deleted(header.namespace, name, self.read_at) for name in names)

    @property
    def nbytes(self) -> int:
        """Memory of the prepared embedding in bytes."""
        return sum(value.nbytes for value in self.prepared.values())


class Images:
    """Finds images by name. The most recently used of each tenant stay in memory, up to a number of bytes in all.

    Args:
        settings: Memory and threads.
        store: Where embeddings and decoders come from.
        cold: Where embeddings are that left the store, if anywhere.

    Attributes:
        deletions: What was deleted lately, of which no copies stay.
    """

    def __init__(self, settings: DecoderSettings, store: Store, cold: ColdTier | None = None) -> None:
        self._settings = settings
        self._store = store
        self._cold = cold
        self._hot: TenantCache[tuple[str, str], Image] = TenantCache(
            settings.cache_bytes, lambda _, image: image.nbytes
        )
        self.deletions = Deletions(store)
        self.deletions.tell(self._hot)
        self._predictors: LoadedModels[Predictor] = LoadedModels(_MAX_PREDICTORS)
        self._aliases: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()
        self._loads: Flights[Image | None] = Flights()
        self._names = NameLookups(store)
        self._arrivals = Arrivals(store, settings.max_waiting)

    def latest(self) -> Image | None:
        """Returns the most recently used image in memory."""
        return self._hot.latest()

    def live_metrics(self) -> list[LiveMetric]:
        """Returns the gauges of the cache."""
        return [
            LiveMetric("maskwire_cache_bytes", "Memory of hot embeddings.", lambda: self._hot.nbytes),
            LiveMetric("maskwire_cache_limit_bytes", "What it may be.", lambda: self._settings.cache_bytes),
            LiveMetric("maskwire_cache_images", "Hot embeddings.", lambda: len(self._hot)),
            LiveMetric(
                "maskwire_calls_awaiting_images",
                "Calls that wait for an image to be embedded.",
                lambda: self._arrivals.waiting,
            ),
        ]

    async def find(
        self, namespace: str, image_id: str, content_key: str, wait_ms: int = 0, tenant: str = ""
    ) -> tuple[Image, bool]:
        """Finds an image by its name or its content key.

        Args:
            namespace: Namespace of the image.
            image_id: Name of the image.
            content_key: Identity of the embedding; empty to take what the name stands for now.
            wait_ms: How long to wait for a missing image, in milliseconds.
            tenant: Who waits.

        Returns:
            The image, and whether it was in memory.

        Raises:
            NotFound: IMAGE_NOT_FOUND or EMBEDDING_EXPIRED.
            ResourceExhausted: TOO_MANY_WAITING: the tenant has too many calls that wait.
            Unavailable: The store or the cold tier behind it does not answer, or no encoder has published the image's
                decoder yet.
        """
        give_up = time.monotonic() + wait_ms / 1e3
        while True:
            try:
                return await self._find(namespace, image_id, content_key)
            except NotFound:
                left_s = give_up - time.monotonic()
                if not await self._arrivals.wait((namespace, image_id, content_key), left_s, tenant):
                    raise

    async def _find(self, namespace: str, image_id: str, content_key: str) -> tuple[Image, bool]:
        key = content_key or await self.content_key(namespace, image_id)
        hot = self._hot.get((namespace, key))
        if hot is not None and not hot.may_be_deleted:
            return hot, True
        image, _ = await self._loads.share((namespace, key), lambda: self._load(namespace, key))
        while image is not None and image.may_be_deleted:  # meanwhile
            image, _ = await self._loads.share((namespace, key), lambda: self._load(namespace, key))
        if image is None:
            raise embedding_expired(image_id)
        return image, False

    async def confirm(self, image: Image) -> None:
        """Checks, after work on an image that took some time, that it still is there.

        Raises:
            NotFound: EMBEDDING_EXPIRED: it was deleted meanwhile, and not embedded again.
        """
        if image.may_be_deleted:
            key = image.header.content_key
            await self._find(image.header.namespace, key, key)

    async def content_key(self, namespace: str, image_id: str) -> str:
        """Returns the content key that a name stands for. It is looked up each time, since names may be given to other
        images; while the store is away, a recent answer counts.

        Raises:
            NotFound: IMAGE_NOT_FOUND.
            Unavailable: The store or the cold tier behind it does not answer.
        """
        try:
            key = await self._names.find(namespace, image_id)
        except Unavailable:
            last, asked = self._aliases.get((namespace, image_id), ("", 0.0))
            if time.monotonic() - asked > _ALIAS_SERVES_S or (namespace, last) not in self._hot:
                raise
            return last
        if key is None and self._cold is not None:
            key = await self._cold.content_key(namespace, image_id)
        if key is None:
            self._aliases.pop((namespace, image_id), None)
            raise image_not_found(image_id)
        self._aliases[namespace, image_id] = key, time.monotonic()
        self._aliases.move_to_end((namespace, image_id))
        if len(self._aliases) > _MAX_ALIASES:
            self._aliases.popitem(last=False)
        return key

    async def _load(self, namespace: str, key: str) -> Image | None:
        read_at = time.monotonic()
        embedding = await asyncio.to_thread(self._store.get_embedding, namespace, key)
        if embedding is None and self._cold is not None:
            cold = await self._cold.embedding(namespace, key)
            embedding = None if cold is None else cold[0]
        if embedding is None:
            return None
        header = embedding.header
        predictor = await self._predictors.get(header.decoder, lambda: self._load_decoder(header))
        try:
            prepared = await asyncio.to_thread(predictor.prepare, embedding.tensors)
        except CorruptValue as error:
            raise _bad_decoder(embedding.header, error) from error
        image = Image(embedding.header, prepared, predictor, read_at, self.deletions)
        if not image.may_be_deleted:
            self._hot.put((namespace, key), image)
        return image

    async def _load_decoder(self, header: Header) -> Predictor:
        def load() -> Predictor | None:
            bundle = get_decoder(self._store, header.decoder)
            return None if bundle is None else Predictor(bundle, self._settings.decode_threads)

        try:
            predictor = await asyncio.to_thread(load)
        except CorruptValue as error:
            raise _bad_decoder(header, error) from error
        if predictor is None:
            raise Unavailable(
                "DECODER_NOT_PUBLISHED",
                f"no encoder has published the decoder of {header.model!r} yet; is one running?",
                retry_after_s=1,
            )
        return predictor


def _bad_decoder(header: Header, error: CorruptValue) -> Internal:
    log.error("refusing the decoder %s of the store: %s", header.decoder, error)
    return Internal("BAD_DECODER", f"the decoder that the store has for {header.model!r} is none that an encoder wrote")
