"""Encodes images and stores their embeddings; callers of the same image share one encode."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, cast

from maskwire.pictures import Stretch
from maskwire.v1 import encoder_pb2 as pb
from maskwire_core.call_context import current
from maskwire_core.cold_tier.tier import ColdTier
from maskwire_core.config import EncoderSettings
from maskwire_core.errors import (
    Unavailable,
    embedding_expired,
    not_finite,
)
from maskwire_core.scheduling.scheduler import Served
from maskwire_core.scheduling.single_flight import Flights
from maskwire_core.storage.codecs import NotFinite
from maskwire_core.storage.embedding import Header, StoredEmbedding, pack
from maskwire_core.storage.quotas import Quotas
from maskwire_core.storage.store import Store
from maskwire_core.telemetry import tracing
from maskwire_core.telemetry.metrics import IMAGES, STAGES

from maskwire_encoder.backends.device import Tensors
from maskwire_encoder.backends.model import Model
from maskwire_encoder.decoded_pictures import DecodedPictures
from maskwire_encoder.encode_lease import found_or_leased
from maskwire_encoder.kept_files import KeptFiles
from maskwire_encoder.pipeline import Pipeline
from maskwire_encoder.reading_jobs import Cut, Forgotten, Pixels
from maskwire_encoder.regions import Part, check_size, check_smaller, find_whole
from maskwire_encoder.spool import ImageFile, Spool
from maskwire_encoder.upload import Upload, describe, digest_mismatch

log = logging.getLogger(__name__)

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
        timings = pb.EncodeTimings(lookup_ms=_ms_since(started))
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
        receive_ms = _ms_since(asked_at)
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
        header, tensors, _ = await self._encode(upload, file)

        memory = current().memory

        def packed() -> bytes:
            value = _pack(upload, header, tensors)
            memory.take(len(value))
            return value

        value = await self.pipeline.store(packed)
        _ENCODED.inc()
        return value

    async def publish_exports(self) -> None:
        """Publishes the decoders and trackers of all models, unless the store has them already."""
        for model in self.models.values():
            await asyncio.to_thread(self._store.publish_decoder, model.decoder)
            if model.tracker is not None:
                await asyncio.to_thread(self._store.publish_tracker, model.tracker)

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
        header, tensors, stages = await self._encode(upload, file)
        started = time.perf_counter()
        nbytes = await self.pipeline.store(lambda: self._put(upload, header, tensors))
        stages.store_ms = _ms_since(started)
        _record_stages(store=stages.store_ms)
        return StoredEmbedding(header, nbytes, upload.ttl_s * 1000), stages

    async def _encode(self, upload: Upload, file: ImageFile | None) -> tuple[Header, Tensors, pb.EncodeTimings]:
        """Encodes an image, or without a file a region of a picture that is decoded. Returns the header of its
        embedding, its tensors, and how long the stages took."""
        part, region, stretch = upload.part, None, upload.stretch
        if part is not None:
            args = (upload.namespace, upload.image_id, part, upload.model.fingerprint)
            whole = await asyncio.to_thread(find_whole, self._store, *args)
            region = part.region(whole)
            if upload.from_source:  # its samples become what those of the whole image became
                stretch = cast(Stretch, whole.stretch)
        started = time.perf_counter()
        pixels, read_queue_ms = await self._read(upload, file, stretch)
        if upload.full_size is not None:
            check_smaller(upload.full_size, pixels.width, pixels.height)
        elif part is not None:
            check_size(part, pixels.width, pixels.height)
        width, height = upload.full_size or (pixels.width, pixels.height)
        for warning in pixels.warnings:
            log.info("the image file: %s", warning)
        read_ms = _ms_since(started) - read_queue_ms
        _record_stages(queue=read_queue_ms, read=read_ms)
        started = time.perf_counter()
        tensors, model_queue_ms = await self.pipeline.encode(upload.model, pixels, upload.demand)
        encode_ms = _ms_since(started) - model_queue_ms
        _record_stages(queue=model_queue_ms, encode=encode_ms)
        header = Header(
            namespace=upload.namespace,
            content_key=upload.key,
            model=upload.model.source.name,
            fingerprint=upload.model.fingerprint,
            decoder=upload.model.decoder.digest,
            height=height,
            width=width,
            codec=upload.codec,
            created_at=time.time(),
            stretch=pixels.stretch,
            region=region,
        )
        queue_ms = read_queue_ms + model_queue_ms
        return header, tensors, pb.EncodeTimings(read_ms=read_ms, queue_ms=queue_ms, encode_ms=encode_ms)

    async def _read(self, upload: Upload, file: ImageFile | None, stretch: Stretch) -> Served[Pixels]:
        """Has an image read. What is decoded of a kept file is remembered."""
        model, is_frame, demand = upload.model, upload.is_frame, upload.demand
        if upload.part is None or not upload.from_source:
            assert file is not None
            return await self.pipeline.read(model, file, stretch, is_frame, demand)
        image, place = (upload.namespace, upload.part.image), upload.part.place
        if file is None:
            return await self.pipeline.cut(model, Cut(partial(self.decoded.cut, image, place), is_frame), demand)
        keep = partial(self.decoded.keep, image)
        return await self.pipeline.read(model, file, stretch, is_frame, demand, place, keep)

    def _put(self, upload: Upload, header: Header, tensors: Tensors) -> int:
        """Writes an embedding to the store. Returns its size in bytes."""
        value = _pack(upload, header, tensors)
        self._store.publish_decoder(upload.model.decoder)
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
        timings.total_ms = _ms_since(upload.received_at)
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


def _pack(upload: Upload, header: Header, tensors: Tensors) -> bytes:
    """Serializes an embedding. Raises MODEL_OUTPUT_NOT_FINITE."""
    try:
        return pack(header, upload.model.to_store(tensors, header.codec))
    except NotFinite as error:
        raise not_finite(header.model, str(error)) from error


def _record_stages(**stages_ms: float) -> None:
    """Records consecutive stages, of which the last ended now, in metrics and traces; values are milliseconds."""
    for stage, took_ms in stages_ms.items():
        STAGES.labels(stage).observe(took_ms / 1e3)
    tracing.ended([(stage, took_ms / 1e3) for stage, took_ms in stages_ms.items()])


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
