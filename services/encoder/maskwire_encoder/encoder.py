"""From image bytes to a stored embedding, once for all who ask."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from maskwire.v1 import encoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core import names
from maskwire_core.config import EncoderSettings
from maskwire_core.embedding import Header, pack
from maskwire_core.errors import InvalidArgument, NotFound, ResourceExhausted, embedding_expired, image_not_found
from maskwire_core.flights import Flights
from maskwire_core.models import canonical
from maskwire_core.pool import Pool
from maskwire_core.store import Store, content_key
from torch import Tensor

from maskwire_encoder.images import read_image
from maskwire_encoder.model import Model

_READERS = 2


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
        started: `time.perf_counter()` when the header came.
        lookup_ms: What asking the store took.
    """

    namespace: str
    image_id: str
    sha256: bytes
    size_bytes: int
    model: Model
    key: str
    started: float
    lookup_ms: float = 0


class ImageEncoder:
    """Encodes images and stores their embeddings.

    Args:
        settings: Limits, codec, time to live.
        store: Where embeddings go.
        models: What makes them, the default first; all on one device, which takes one image at a time.
    """

    def __init__(self, settings: EncoderSettings, store: Store, models: Sequence[Model]) -> None:
        self.settings = settings
        self.models = {model.source.name: model for model in models}
        self._store = store
        self._readers = Pool("image reader", _READERS, settings.queue_limit)
        self._device = Pool("model", 1, settings.queue_limit)
        self._flights: Flights[tuple[Header, int, pb.EncodeTimings | None]] = Flights()

    def accept(self, header: pb.EncodeImageHeader) -> Upload:
        """Checks a header.

        Raises:
            InvalidArgument: A field is wrong.
            NotFound: The model is not served here.
            ResourceExhausted: The file is too large.
        """
        started = time.perf_counter()
        model = self.models.get(canonical(header.model)) if header.model else next(iter(self.models.values()))
        if model is None:
            served = ", ".join(self.models)
            raise NotFound("MODEL_NOT_FOUND", f"this encoder serves {served}, not {header.model!r}", field="model")
        if len(header.sha256) != 32:
            raise InvalidArgument(
                "BAD_DIGEST", "sha256 must be the 32 bytes of the file's SHA-256", field="header.sha256"
            )
        if not header.size_bytes:
            raise InvalidArgument("EMPTY_IMAGE", "size_bytes is 0; send the file's size", field="header.size_bytes")
        if header.size_bytes > self.settings.max_image_bytes:
            raise ResourceExhausted(
                "IMAGE_TOO_LARGE",
                f"the file has {header.size_bytes} bytes; at most {self.settings.max_image_bytes} are accepted",
                field="header.size_bytes",
            )
        key = content_key(
            header.sha256, model.fingerprint, model.decoder.digest, model.arithmetic, self.settings.store_codec
        )
        image_id = names.image_id(header.image_id) if header.image_id else names.issue_image_id()
        namespace = names.namespace(header.namespace)
        return Upload(namespace, image_id, header.sha256, header.size_bytes, model, key, started)

    async def find(self, upload: Upload) -> pb.EncodeImageResponse | None:
        """Names and keeps the embedding of an upload if it is stored or being made already."""
        looked = time.perf_counter()
        found = await asyncio.to_thread(self._store.find_embedding, upload.namespace, upload.key)
        upload.lookup_ms = _since(looked)
        if found is not None:
            header, size, _ = found
            await asyncio.to_thread(self._store.touch_embedding, upload.namespace, upload.key, self.settings.ttl_s)
        else:
            flight = await self._flights.join((upload.namespace, upload.key))
            if flight is None:
                return None
            header, size, _ = flight
        return await self._finish(upload, header, size, True, pb.EncodeTimings())

    async def encode(self, upload: Upload, data: bytes, receive_ms: float) -> pb.EncodeImageResponse:
        """Encodes, stores and names an image.

        Raises:
            InvalidArgument: The bytes are not those of the header, or no image.
            ResourceExhausted: Too much is waiting, or the store is full.
            Unavailable: The store does not answer.
        """
        # Before joining others: whoever claims a digest must not make those fail who have the bytes.
        digest = await asyncio.to_thread(lambda: hashlib.sha256(data).digest())
        if len(data) != upload.size_bytes or digest != upload.sha256:
            raise InvalidArgument(
                "DIGEST_MISMATCH",
                "the bytes received are not those whose size and SHA-256 the header gave",
                field="chunk",
            )
        (header, size, timings), joined = await self._flights.share(
            (upload.namespace, upload.key), lambda: self._embed(upload, data)
        )
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

    async def delete(self, namespace: str, image_id: str, with_embedding: bool) -> bool:
        """Forgets a name, and its embedding if wanted. Returns whether the name existed."""
        if with_embedding:
            key = await asyncio.to_thread(self._store.get_alias, namespace, image_id)
            if key is not None:
                await asyncio.to_thread(self._store.delete_embedding, namespace, key)
        return await asyncio.to_thread(self._store.delete_alias, namespace, image_id)

    async def publish_decoders(self) -> None:
        """Makes sure that decoder workers find these models' decoders, also after the store lost them."""
        for model in self.models.values():
            await asyncio.to_thread(self._store.publish_decoder, model.decoder)

    async def _embed(self, upload: Upload, data: bytes) -> tuple[Header, int, pb.EncodeTimings | None]:
        """Header, size and timings of the stored embedding; no timings if somebody stored it during the upload."""
        found = await asyncio.to_thread(self._store.find_embedding, upload.namespace, upload.key)
        if found is not None:
            return found[0], found[1], None
        timings = pb.EncodeTimings()

        def read() -> tuple[int, int, Tensor]:
            rgb = read_image(data, self.settings.max_image_pixels)
            return rgb.shape[0], rgb.shape[1], upload.model.prepare(rgb)

        started = time.perf_counter()
        (height, width, pixels), waited_ms = await self._readers.run(read)
        timings.read_ms = _since(started) - waited_ms
        started = time.perf_counter()
        (tensors,), queue_ms = await self._device.run(upload.model.encode, pixels[None])
        timings.queue_ms = waited_ms + queue_ms
        timings.encode_ms = _since(started) - queue_ms
        header = Header(
            namespace=upload.namespace,
            content_key=upload.key,
            model=upload.model.source.name,
            fingerprint=upload.model.fingerprint,
            decoder=upload.model.decoder.digest,
            height=height,
            width=width,
            codec=self.settings.store_codec,
            created_at=time.time(),
        )

        def store() -> int:
            value = pack(header, tensors)
            self._store.publish_decoder(upload.model.decoder)
            self._store.put_embedding(upload.namespace, upload.key, value, self.settings.ttl_s)
            return len(value)

        started = time.perf_counter()
        size = await asyncio.to_thread(store)
        timings.store_ms = _since(started)
        return header, size, timings

    async def _finish(
        self, upload: Upload, header: Header, size: int, cached: bool, timings: pb.EncodeTimings
    ) -> pb.EncodeImageResponse:
        ttl_s = self.settings.ttl_s
        await asyncio.to_thread(self._store.set_alias, upload.namespace, upload.image_id, upload.key, ttl_s)
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
    )
    info.expires_at.FromMilliseconds(int((time.time() + ttl_s) * 1000))
    return info


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
