"""From image bytes to a stored embedding, once for all who ask."""

import asyncio
import hashlib
import math
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from maskwire.pictures import Stretch
from maskwire.pictures.formats import EMPTY
from maskwire.suggest import model_not_served
from maskwire.v1 import encoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core import names
from maskwire_core.call_context import current
from maskwire_core.config import EncoderSettings
from maskwire_core.errors import (
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    embedding_expired,
    image_not_found,
    not_finite,
)
from maskwire_core.models.registry import canonical
from maskwire_core.scheduling.fair_queue import Requester
from maskwire_core.scheduling.scheduler import Demand
from maskwire_core.scheduling.single_flight import Flights
from maskwire_core.storage import listing
from maskwire_core.storage.codecs import NotFinite
from maskwire_core.storage.embedding import Header, content_key, pack
from maskwire_core.storage.quotas import Quotas
from maskwire_core.storage.store import Store
from maskwire_core.telemetry import logs, tracing
from maskwire_core.telemetry.metrics import IMAGES, STAGES

from maskwire_encoder.backends.model import Model
from maskwire_encoder.encode_lease import found_or_claimed
from maskwire_encoder.pipeline import File, Pipeline

_ENCODED, _CACHED = IMAGES.labels("encoded"), IMAGES.labels("cached")

_STRETCHES: dict[types_pb2.Stretch.ValueType, Stretch] = {
    types_pb2.STRETCH_UNSPECIFIED: "auto",
    types_pb2.STRETCH_AUTO: "auto",
    types_pb2.STRETCH_NONE: "none",
    types_pb2.STRETCH_RANGE: "range",
    types_pb2.STRETCH_PERCENTILE: "percentile",
}

_APPLIED: dict[str, types_pb2.Stretch.ValueType] = {name: value for value, name in _STRETCHES.items()}

Stored = tuple[Header, int, pb.EncodeTimings | None]
"""Header, size in bytes and timings of an embedding; no timings if somebody else has stored it."""


@dataclass
class Upload:
    """A checked `EncodeImageHeader`.

    Attributes:
        namespace: Tenant.
        image_id: Name of the image, issued here if the caller gave none.
        sha256: Digest of the file.
        size_bytes: Size of the file.
        model: What encodes it.
        key: Content key of its embedding.
        stretch: How the picture's samples are to be mapped to 8 bits.
        demand: Who wants it, and how soon.
        ttl_s: Seconds that it is kept.
        quota_bytes: What its namespace may keep; 0: any amount.
        started: `time.perf_counter()` when the header came.
        lookup_ms: What asking the store took.
    """

    namespace: str
    image_id: str
    sha256: bytes
    size_bytes: int
    model: Model
    key: str
    stretch: Stretch
    demand: Demand
    ttl_s: int
    quota_bytes: int
    started: float
    lookup_ms: float = 0

    @property
    def flight(self) -> tuple[str, str]:
        """What callers of the same image have in common."""
        return self.namespace, self.key


class ImageEncoder:
    """Encodes images and stores their embeddings.

    Args:
        settings: Limits, codec, time to live.
        store: Where embeddings go.
        models: What makes them, the default first; all on one device.

    Attributes:
        pipeline: The stages in which images are encoded.
    """

    def __init__(self, settings: EncoderSettings, store: Store, models: Sequence[Model]) -> None:
        self.settings = settings
        self.models = {model.source.name: model for model in models}
        self._store = store
        self._quotas = Quotas(store)
        self.pipeline = Pipeline(settings, models)
        self._flights: Flights[Stored] = Flights()
        self._demands: dict[tuple[str, str], Demand] = {}  # of those in flight

    def accept(self, header: pb.EncodeImageHeader, caller: str, time_left_s: float | None) -> Upload:
        """Checks a header.

        Args:
            header: As it came.
            caller: Whom it came from; callers take turns.
            time_left_s: After this time nobody waits for the answer; None if the caller did not say.

        Raises:
            InvalidArgument: A field is wrong.
            NotFound: The model is not served here.
            PermissionDenied: The namespace is another's.
            ResourceExhausted: The file is too large.
        """
        started = time.perf_counter()
        model = self.models.get(canonical(header.model)) if header.model else next(iter(self.models.values()))
        if model is None:
            raise NotFound("MODEL_NOT_FOUND", model_not_served(header.model, self.models), field="model")
        if len(header.sha256) != 32:
            raise InvalidArgument(
                "BAD_DIGEST", "sha256 must be the 32 bytes of the file's SHA-256", field="header.sha256"
            )
        if not header.size_bytes:
            raise InvalidArgument("EMPTY_IMAGE", EMPTY, field="image")
        token = current().caller.token
        most_bytes = min(self.settings.max_image_bytes, token.max_image_bytes or self.settings.max_image_bytes)
        if header.size_bytes > most_bytes:
            raise ResourceExhausted(
                "IMAGE_TOO_LARGE",
                f"the file has {header.size_bytes} bytes; at most {most_bytes} are accepted",
                field="image",
            )
        stretch = _STRETCHES.get(header.stretch)
        if stretch is None:
            raise InvalidArgument("BAD_STRETCH", f"{header.stretch} is no Stretch", field="header.stretch")
        key = content_key(
            header.sha256,
            model.fingerprint,
            model.decoder.digest,
            model.arithmetic if stretch == "auto" else f"{model.arithmetic} {stretch}",
            self.settings.store_codec,
        )
        image_id = names.image_id(header.image_id) if header.image_id else names.issue_image_id()
        namespace = current().caller.writing(header.namespace)
        logs.bind(namespace, image_id)
        if header.priority not in pb.Priority.values():
            raise InvalidArgument("BAD_PRIORITY", f"{header.priority} is no Priority", field="header.priority")
        deadline = math.inf if time_left_s is None else asyncio.get_running_loop().time() + time_left_s
        demand = Demand(Requester(namespace, caller), header.priority == pb.PRIORITY_BULK, deadline)
        return Upload(
            namespace,
            image_id,
            header.sha256,
            header.size_bytes,
            model,
            key,
            stretch,
            demand,
            ttl_s=token.ttl_s or self.settings.ttl_s,
            quota_bytes=self.settings.quota_bytes if token.quota_bytes is None else token.quota_bytes,
            started=started,
        )

    async def find(self, upload: Upload) -> pb.EncodeImageResponse | None:
        """Names and keeps the embedding of an upload if it is stored or being made already.

        Raises:
            ResourceExhausted: It must be made, and the caller may not send and encode as much now.
        """
        looked = time.perf_counter()
        found = await asyncio.to_thread(self._store.find_embedding, upload.namespace, upload.key)
        upload.lookup_ms = _since(looked)
        if found is not None:
            header, size, ttl_ms = found
            if upload.ttl_s * 1000 > ttl_ms:
                args = (upload.namespace, upload.key, size, upload.ttl_s, upload.quota_bytes)
                await asyncio.to_thread(self._quotas.touch_embedding, *args)
        else:
            self._join(upload)
            flight = await self._flights.join(upload.flight)
            if flight is None:
                current().caller.charge(encodes=1, received_bytes=upload.size_bytes)
                return None
            header, size, _ = flight
        return await self._finish(upload, header, size, True, pb.EncodeTimings())

    async def encode(self, upload: Upload, data: bytes, receive_ms: float) -> pb.EncodeImageResponse:
        """Encodes, stores and names an image.

        Raises:
            InvalidArgument: The bytes are not those of the header, or no image.
            ResourceExhausted: Too much is waiting, or the device's memory or the store is full.
            Unavailable: The store does not answer, or the device is lost.
            DeadlineExceeded: The deadline passed before the image's turn came.
            Internal: MODEL_OUTPUT_NOT_FINITE: the model gives NaN or infinity for it; nothing is stored.
        """
        # Before joining others: whoever claims a digest must not make those fail who have the bytes.
        digest = await asyncio.to_thread(lambda: hashlib.sha256(data).digest())
        if len(data) != upload.size_bytes or digest != upload.sha256:
            raise InvalidArgument(
                "DIGEST_MISMATCH",
                "the bytes received are not those whose size and SHA-256 the header gave",
                field="chunk",
            )
        self._join(upload)

        def embed() -> Coroutine[Any, Any, Stored]:
            self._demands[upload.flight] = upload.demand
            return self._embed(upload, data)

        (header, size, timings), joined = await self._flights.share(upload.flight, embed)
        own = pb.EncodeTimings()
        if timings is not None and not joined:
            own.CopyFrom(timings)
        own.receive_ms = receive_ms
        return await self._finish(upload, header, size, joined or timings is None, own)

    async def get(self, namespace: str, image_id: str) -> types_pb2.ImageInfo:
        """What is stored under a name.

        Raises:
            NotFound: Nothing is.
        """
        key = await asyncio.to_thread(self._store.get_alias, namespace, image_id)
        if key is None:
            raise image_not_found(image_id)
        found = await asyncio.to_thread(self._store.find_embedding, namespace, key)
        if found is None:
            raise embedding_expired(image_id)
        header, size, ttl_ms = found
        ttl_ms = min(ttl_ms, await asyncio.to_thread(self._store.alias_ttl_ms, namespace, image_id))
        return _info(header, image_id, size, ttl_ms / 1e3)

    async def list_images(
        self, namespace: str, prefix: str, page_size: int, page_token: str
    ) -> tuple[list[types_pb2.ImageInfo], str]:
        """A page of a namespace's images and the token of the next page; see `listing.list_page`."""
        images, token = await asyncio.to_thread(
            listing.list_page, self._store, namespace, prefix, page_size, page_token
        )
        return [_info(each.header, name, each.nbytes, each.ttl_ms / 1e3) for name, each in images.items()], token

    async def delete(self, namespace: str, image_id: str, with_embedding: bool) -> bool:
        """Forgets a name, and its embedding if wanted. Returns whether the name existed."""
        if with_embedding:
            key = await asyncio.to_thread(self._store.get_alias, namespace, image_id)
            if key is not None:
                await asyncio.to_thread(self._quotas.delete_embedding, namespace, key)
        return await asyncio.to_thread(self._store.delete_alias, namespace, image_id)

    async def publish_decoders(self) -> None:
        """Makes sure that decoder workers find these models' decoders, also after the store lost them."""
        for model in self.models.values():
            await asyncio.to_thread(self._store.publish_decoder, model.decoder)

    def _join(self, upload: Upload) -> None:
        """Makes an image in flight as urgent as this upload is."""
        if (demand := self._demands.get(upload.flight)) is not None:
            demand.join(upload.demand)
            self.pipeline.hurry(demand)

    async def _embed(self, upload: Upload, data: bytes) -> Stored:
        try:
            async with found_or_claimed(self._store, upload.namespace, upload.key) as found:
                return (*found, None) if found is not None else await self._make(upload, data)
        finally:
            self._demands.pop(upload.flight, None)

    async def _make(self, upload: Upload, data: bytes) -> Stored:
        """Encodes and stores an image."""
        timings = pb.EncodeTimings()
        started = time.perf_counter()
        pixels, waited_ms = await self.pipeline.read(upload.model, File(data, upload.stretch), upload.demand)
        timings.read_ms = _since(started) - waited_ms
        _ran(("queue", waited_ms), ("read", timings.read_ms))
        started = time.perf_counter()
        tensors, queue_ms = await self.pipeline.encode(upload.model, pixels, upload.demand)
        timings.queue_ms = waited_ms + queue_ms
        timings.encode_ms = _since(started) - queue_ms
        _ran(("queue", queue_ms), ("encode", timings.encode_ms))
        header = Header(
            namespace=upload.namespace,
            content_key=upload.key,
            model=upload.model.source.name,
            fingerprint=upload.model.fingerprint,
            decoder=upload.model.decoder.digest,
            height=pixels.height,
            width=pixels.width,
            codec=self.settings.store_codec,
            created_at=time.time(),
            stretch=pixels.stretch,
        )

        def store() -> int:
            try:
                value = pack(header, tensors)
            except NotFinite as error:
                raise not_finite(header.model, str(error)) from error
            self._store.publish_decoder(upload.model.decoder)
            self._quotas.put_embedding(upload.namespace, upload.key, value, upload.ttl_s, upload.quota_bytes)
            return len(value)

        started = time.perf_counter()
        size = await self.pipeline.store(store)
        timings.store_ms = _since(started)
        _ran(("store", timings.store_ms))
        return header, size, timings

    async def _finish(
        self, upload: Upload, header: Header, size: int, cached: bool, timings: pb.EncodeTimings
    ) -> pb.EncodeImageResponse:
        ttl_s = upload.ttl_s
        await asyncio.to_thread(self._store.set_alias, upload.namespace, upload.image_id, upload.key, ttl_s)
        (_CACHED if cached else _ENCODED).inc()
        timings.lookup_ms = upload.lookup_ms
        timings.total_ms = _since(upload.started)
        return pb.EncodeImageResponse(image=_info(header, upload.image_id, size, ttl_s), cached=cached, timings=timings)


def _info(header: Header, image_id: str, size: int, ttl_s: float) -> types_pb2.ImageInfo:
    info = types_pb2.ImageInfo(
        image_id=image_id,
        namespace=header.namespace,
        height_px=header.height,
        width_px=header.width,
        model=header.model,
        model_fingerprint=header.fingerprint,
        content_key=header.content_key,
        stored_bytes=size,
        stretch=_APPLIED.get(header.stretch, types_pb2.STRETCH_NONE),
    )
    info.expires_at.FromMilliseconds(int((time.time() + ttl_s) * 1000))
    return info


def _ran(*stages: tuple[str, float]) -> None:
    """Stages, with their milliseconds, that ran one after another until now."""
    for stage, took_ms in stages:
        STAGES.labels(stage).observe(took_ms / 1e3)
    tracing.ended([(stage, took_ms / 1e3) for stage, took_ms in stages])


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
