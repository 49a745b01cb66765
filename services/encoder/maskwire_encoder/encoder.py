"""Encodes images and stores their embeddings; callers of the same image share one encode."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from maskwire.v1 import encoder_pb2 as pb
from maskwire_core.call_context import current
from maskwire_core.cold_tier.tier import ColdTier
from maskwire_core.config import EncoderSettings
from maskwire_core.errors import Unavailable, embedding_expired
from maskwire_core.scheduling.single_flight import Flights
from maskwire_core.storage.embedding import StoredEmbedding
from maskwire_core.storage.exports import publish_decoder, publish_tracker
from maskwire_core.storage.quotas import Quotas
from maskwire_core.storage.store import Store
from maskwire_core.telemetry.metrics import IMAGES

from maskwire_encoder.backends.model import Model
from maskwire_encoder.decoded_pictures import DecodedPictures
from maskwire_encoder.embedder import Embedder, NewEmbedding
from maskwire_encoder.encode_lease import found_or_leased
from maskwire_encoder.kept_files import KeptFiles
from maskwire_encoder.pipeline import Pipeline
from maskwire_encoder.reading_jobs import Forgotten
from maskwire_encoder.regions import Part
from maskwire_encoder.spool import ImageFile, Spool
from maskwire_encoder.stage_times import ms_since, record_stages
from maskwire_encoder.upload import Upload, describe, digest_mismatch

Encoded = tuple[StoredEmbedding, pb.EncodeTimings | None]
"""An embedding in the store, and how long its stages took; None if another process made it."""

_ENCODED, _CACHED = IMAGES.labels("encoded"), IMAGES.labels("cached")


class ImageEncoder:
    """Encodes images and stores their embeddings.

    Args:
        settings: Limits, codec and time to live.
        store: Where embeddings are stored.
        models: The models, the default one first; all on one device.
        cold: Where embeddings go that outlive the store's memory, if anywhere.

    Attributes:
        settings: As given.
        models: The models by name.
        pipeline: The stages that an image passes through.
        spool: Where files are kept while they arrive and wait.
        decoded: The pictures of which regions were cut lately.
    """

    def __init__(
        self, settings: EncoderSettings, store: Store, models: Sequence[Model], cold: ColdTier | None = None
    ) -> None:
        self.settings = settings
        self.models = {model.source.name: model for model in models}
        self.pipeline = Pipeline(settings, models)
        self.spool = Spool(settings)
        self._store = store
        self._cold = cold
        self._restoring: Flights[StoredEmbedding | None] = Flights()
        self._quotas = Quotas(store)
        self.decoded = DecodedPictures(settings.picture_cache_bytes if settings.keep_sources_s else 0)
        self._embedder = Embedder(store, self.pipeline, self.decoded)
        self._kept = KeptFiles(store, self.pipeline, self.spool, self.decoded)
        self._flights: Flights[Encoded] = Flights(self.pipeline.hurry)

    async def find(self, upload: Upload) -> pb.EncodeImageResponse | None:
        """Answers an upload whose embedding is stored or being made already.

        Returns:
            The response; None if the caller must send the file.

        Raises:
            ResourceExhausted: The file is needed, but the tenant's rate limit is exceeded.
            FailedPrecondition: SOURCE_NOT_KEPT.
        """
        started = time.perf_counter()
        found = await asyncio.to_thread(self._store.find_embedding, upload.namespace, upload.key)
        if found is None and self._cold is not None:
            found, _ = await self._restoring.share(upload.flight, lambda: self._restore(upload))
        if upload.keep_s and not await self._kept.touch(upload):
            current().caller.charge(encodes=1, announced_bytes=upload.size_bytes)
            return None
        timings = pb.EncodeTimings(lookup_ms=ms_since(started))
        if found is None:
            shared = await self._flights.join(upload.flight, upload.demand)
            if shared is None:
                current().caller.charge(encodes=1, announced_bytes=upload.size_bytes)
                return await self._encode_kept(upload) if upload.from_source else None
            found, _ = shared
        return await self._respond(upload, found, True, timings)

    async def encode(self, upload: Upload, file: ImageFile, asked_at: float) -> pb.EncodeImageResponse:
        """Encodes, stores and names an image.

        Args:
            upload: Its checked header.
            file: The image file.
            asked_at: `time.perf_counter()` when the caller was asked for the file.

        Raises:
            InvalidArgument: The file does not match the header, or is not a readable image.
            Internal: MODEL_OUTPUT_NOT_FINITE: the embedding has NaN or infinity; nothing is stored.
        """
        receive_ms = ms_since(asked_at)
        # Checked before the flight is joined: a caller who sends other bytes than announced must not fail the others.
        await _check_digest(upload, file)
        stored, cached, timings = await self._share(upload, lambda: self._find_or_make(upload, file), asked_at)
        if upload.keep_s:
            await self._kept.keep(upload, file, stored.nbytes)
        timings.receive_ms = receive_ms
        return await self._respond(upload, stored, cached, timings)

    async def embed(self, upload: Upload, file: ImageFile) -> bytes:
        """Embeds an image without storing anything. Its caller's memory has the embedding until it is read.

        Args:
            upload: Its checked header.
            file: The image file.

        Returns:
            The embedding, as `embedding.pack` serializes it.

        Raises:
            ServiceError: As `encode`; `ResourceExhausted` (TOO_MUCH_IN_PROGRESS) if there is no memory for it.
        """
        await _check_digest(upload, file)
        made = await self._embedder.embed(upload, file)

        memory = current().memory

        def packed() -> bytes:
            value = made.packed()
            memory.take(len(value))
            return value

        value = await self.pipeline.store(packed)
        _ENCODED.inc()
        return value

    async def publish_exports(self) -> None:
        """Publishes the decoders and trackers of all models, unless the store has them already."""
        for model in self.models.values():
            await asyncio.to_thread(publish_decoder, self._store, model.decoder)
            if model.tracker is not None:
                await asyncio.to_thread(publish_tracker, self._store, model.tracker)

    async def _restore(self, upload: Upload) -> StoredEmbedding | None:
        """Puts an embedding back into the store that had left it; None if the cold tier has none or does not answer."""
        assert self._cold is not None
        try:
            found = await self._cold.embedding(upload.namespace, upload.key)
        except Unavailable:
            return None
        if found is None:
            return None
        embedding, value = found
        await self.pipeline.store(
            lambda: self._quotas.put_embedding(upload.namespace, upload.key, value, upload.ttl_s, upload.quota_bytes)
        )
        return StoredEmbedding(embedding.header, len(value), upload.ttl_s * 1000)

    async def _encode_kept(self, upload: Upload) -> pb.EncodeImageResponse:
        """Encodes and stores a region, which is cut from the kept file of its image."""
        started = time.perf_counter()
        return await self._respond(upload, *await self._share(upload, lambda: self._find_or_cut(upload), started))

    async def _share(
        self, upload: Upload, start: Callable[[], Coroutine[Any, Any, Encoded]], looked_up_at: float
    ) -> tuple[StoredEmbedding, bool, pb.EncodeTimings]:
        """Returns the embedding that all who want the same share, whether others had made it, and the timings."""
        (stored, stages), joined = await self._flights.share(upload.flight, start, upload.demand)
        timings = pb.EncodeTimings(lookup_ms=(looked_up_at - upload.received_at) * 1e3)
        if stages is not None and not joined:
            timings.MergeFrom(stages)
        return stored, joined or stages is None, timings

    async def _find_or_cut(self, upload: Upload) -> Encoded:
        assert upload.part is not None
        async with found_or_leased(self._store, upload.namespace, upload.key) as found:
            if found is not None:
                return found, None
            if await self._kept.is_decoded(upload, upload.part):
                with contextlib.suppress(Forgotten):
                    return await self._make(upload, None)
            file = await self._kept.fetch(upload, upload.part)
            try:
                return await self._make(upload, file)
            finally:
                file.release()

    async def _find_or_make(self, upload: Upload, file: ImageFile) -> Encoded:
        with file.held():  # also when its sender leaves, while others wait for the image
            async with found_or_leased(self._store, upload.namespace, upload.key) as found:
                return (found, None) if found is not None else await self._make(upload, file)

    async def _make(self, upload: Upload, file: ImageFile | None) -> Encoded:
        """Encodes and stores an image, or without a file a region of a picture that is decoded."""
        made = await self._embedder.embed(upload, file)
        started = time.perf_counter()
        nbytes = await self.pipeline.store(lambda: self._put(upload, made))
        made.timings.store_ms = ms_since(started)
        record_stages(store=made.timings.store_ms)
        return StoredEmbedding(made.header, nbytes, upload.ttl_s * 1000), made.timings

    def _put(self, upload: Upload, made: NewEmbedding) -> int:
        """Writes an embedding to the store. Returns its size in bytes."""
        value = made.packed()
        publish_decoder(self._store, upload.model.decoder)
        if upload.part is not None:
            self._enter(upload, upload.part)  # before it is written: else it counts as deleted
        self._quotas.put_embedding(upload.namespace, upload.key, value, upload.ttl_s, upload.quota_bytes)
        return len(value)

    async def _respond(
        self, upload: Upload, stored: StoredEmbedding, cached: bool, timings: pb.EncodeTimings
    ) -> pb.EncodeImageResponse:
        """Makes the image ID stand for an embedding, which is kept as long as the upload wants, and the response. A
        region gets no name, but stays with its image."""
        if upload.ttl_s * 1000 > stored.ttl_ms:
            args = (upload.namespace, upload.key, stored.nbytes, upload.ttl_s, upload.quota_bytes)
            await asyncio.to_thread(self._quotas.touch_embedding, *args)
        if upload.part is not None:
            await asyncio.to_thread(self._enter, upload, upload.part)
        else:
            if self._cold is not None:
                await self._cold.follow(upload.namespace, upload.image_id, upload.key, is_kept=upload.goes_cold)
            await asyncio.to_thread(self._store.set_alias, upload.namespace, upload.image_id, upload.key, upload.ttl_s)
        (_CACHED if cached else _ENCODED).inc()
        timings.total_ms = ms_since(upload.received_at)
        image = describe(stored, upload.image_id, upload.ttl_s * 1000)
        return pb.EncodeImageResponse(image=image, cached=cached, timings=timings)

    def _enter(self, upload: Upload, part: Part) -> None:
        """Has a region be deleted with its image; if that was deleted already, deletes the region and raises NotFound
        (EMBEDDING_EXPIRED)."""
        if not self._store.enter_region(upload.namespace, part.image, upload.key, upload.ttl_s):
            self._quotas.erase_embedding(upload.namespace, upload.key)
            raise embedding_expired(upload.image_id)


async def _check_digest(upload: Upload, file: ImageFile) -> None:
    """Raises DIGEST_MISMATCH unless a file is what its header announced."""
    if file.received != upload.size_bytes or await asyncio.to_thread(file.sha256) != upload.sha256:
        raise digest_mismatch()
