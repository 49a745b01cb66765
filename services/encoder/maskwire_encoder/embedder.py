"""Makes embeddings of images and their regions: reads them, has them encoded, and describes what comes of it."""

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import cast

from maskwire.pictures import Stretch
from maskwire.v1 import encoder_pb2 as pb
from maskwire_core.errors import not_finite
from maskwire_core.scheduling.scheduler import Served
from maskwire_core.storage.codecs import NotFinite
from maskwire_core.storage.embedding import Header, pack
from maskwire_core.storage.store import Store

from maskwire_encoder.backends.device import Tensors
from maskwire_encoder.backends.model import Model
from maskwire_encoder.decoded_pictures import DecodedPictures
from maskwire_encoder.pipeline import Pipeline
from maskwire_encoder.reading_jobs import Cut, Pixels
from maskwire_encoder.regions import check_size, check_smaller, find_whole
from maskwire_encoder.spool import ImageFile
from maskwire_encoder.stage_times import ms_since, record_stages
from maskwire_encoder.upload import Upload

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewEmbedding:
    """An embedding that is not stored yet."""

    model: Model  # the model that made it
    header: Header  # what is known of it
    tensors: Tensors  # what the model gave
    timings: pb.EncodeTimings  # how long its stages took

    def packed(self) -> bytes:
        """Serializes it as it is stored. Raises MODEL_OUTPUT_NOT_FINITE."""
        try:
            return pack(self.header, self.model.to_store(self.tensors, self.header.codec))
        except NotFinite as error:
            raise not_finite(self.header.model, str(error)) from error


class Embedder:
    """Makes embeddings, and stores none.

    Args:
        store: Where the images are whose regions are embedded.
        pipeline: Reads and encodes.
        decoded: The pictures of which regions were cut lately.
    """

    def __init__(self, store: Store, pipeline: Pipeline, decoded: DecodedPictures) -> None:
        self._store = store
        self._pipeline = pipeline
        self._decoded = decoded

    async def embed(self, upload: Upload, file: ImageFile | None) -> NewEmbedding:
        """Embeds an image, or a part of one.

        Args:
            upload: Its checked header.
            file: The file; None for a region of a picture that is decoded.

        Raises:
            InvalidArgument: The file is not a readable image, or has another size than the upload says.
            NotFound: EMBEDDING_EXPIRED: the image that it is a part of is not stored.
            Forgotten: The decoded picture has left memory.
            ServiceError: As `Pipeline.read` and `Pipeline.encode`.
        """
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
        read_ms = ms_since(started) - read_queue_ms
        record_stages(queue=read_queue_ms, read=read_ms)
        started = time.perf_counter()
        tensors, model_queue_ms = await self._pipeline.encode(upload.model, pixels, upload.demand)
        encode_ms = ms_since(started) - model_queue_ms
        record_stages(queue=model_queue_ms, encode=encode_ms)
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
        timings = pb.EncodeTimings(read_ms=read_ms, queue_ms=queue_ms, encode_ms=encode_ms)
        return NewEmbedding(upload.model, header, tensors, timings)

    async def _read(self, upload: Upload, file: ImageFile | None, stretch: Stretch) -> Served[Pixels]:
        """Has an image read. What is decoded of a kept file is remembered."""
        model, is_frame, demand = upload.model, upload.is_frame, upload.demand
        if upload.part is None or not upload.from_source:
            assert file is not None
            return await self._pipeline.read(model, file, stretch, is_frame, demand)
        image, place = (upload.namespace, upload.part.image), upload.part.place
        if file is None:
            return await self._pipeline.cut(model, Cut(partial(self._decoded.cut, image, place), is_frame), demand)
        keep = partial(self._decoded.keep, image)
        return await self._pipeline.read(model, file, stretch, is_frame, demand, place, keep)
