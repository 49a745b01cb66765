"""The files of images that are kept in the store, so that regions of the images can be cut from them later."""

import asyncio
import logging

from maskwire_core.call_context import current
from maskwire_core.errors import FailedPrecondition, ServiceError, embedding_expired
from maskwire_core.storage.quotas import Quotas
from maskwire_core.storage.sources import DIGEST_BYTES, read_source, source_bytes
from maskwire_core.storage.store import Store
from maskwire_core.telemetry.metrics import STORE_DAMAGED

from maskwire_encoder.decoded_pictures import DecodedPictures
from maskwire_encoder.pipeline import Pipeline
from maskwire_encoder.regions import Part
from maskwire_encoder.spool import ImageFile, Spool
from maskwire_encoder.upload import Upload

log = logging.getLogger(__name__)


class KeptFiles:
    """Keeps files, and reads them again. Methods raise as `Store`'s do.

    Args:
        store: Where they are.
        pipeline: Writes them.
        spool: Has the room for those that are written or read.
        decoded: Has what was decoded of them lately.
    """

    def __init__(self, store: Store, pipeline: Pipeline, spool: Spool, decoded: DecodedPictures) -> None:
        self._store = store
        self._quotas = Quotas(store)
        self._pipeline = pipeline
        self._spool = spool
        self._decoded = decoded

    async def touch(self, upload: Upload) -> bool:
        """Keeps the file of an image for at least as long as the upload wants, and returns whether there is one."""
        args = (upload.namespace, upload.key, upload.keep_s, upload.quota_bytes)
        return await asyncio.to_thread(self._quotas.touch_source, *args)

    async def keep(self, upload: Upload, file: ImageFile, embedding_bytes: int) -> None:
        """Keeps the file of an image whose embedding, of so many bytes, is stored.

        Raises:
            NotFound: EMBEDDING_EXPIRED: the image was deleted meanwhile.
            ResourceExhausted: QUOTA_TOO_SMALL, or TOO_MUCH_IN_PROGRESS: there is no room for a copy.
        """

        def write() -> bool:
            with file.mapped() as data:
                value = b"".join((upload.sha256, data))
            args = (upload.namespace, upload.key, value, upload.keep_s, upload.quota_bytes, embedding_bytes)
            return self._quotas.put_source(*args)

        with self._spool.memory.account(current().caller.tenant) as account:
            account.take(DIGEST_BYTES + file.size_bytes)
            if not await self._pipeline.store(write):
                raise embedding_expired(upload.image_id)

    async def is_decoded(self, upload: Upload, part: Part) -> bool:
        """Whether the file of the image that a region is a part of is kept, and was decoded here lately."""
        image = upload.namespace, part.image
        if image not in self._decoded:
            return False
        is_kept = await asyncio.to_thread(source_bytes, self._store, *image) > DIGEST_BYTES
        if not is_kept:
            self._decoded.drop(image)
        return is_kept

    async def fetch(self, upload: Upload, part: Part) -> ImageFile:
        """Reads the file of the image that a region is a part of. Release it after use.

        Raises:
            NotFound: EMBEDDING_EXPIRED: the image is not stored.
            FailedPrecondition: SOURCE_NOT_KEPT.
            ResourceExhausted: TOO_MUCH_IN_PROGRESS: there is no room for it.
        """
        image = self._store, upload.namespace, part.image
        nbytes = await asyncio.to_thread(source_bytes, *image)
        if nbytes <= DIGEST_BYTES:
            raise await self._missing(upload, part)
        file = self._spool.open(nbytes - DIGEST_BYTES)
        try:
            parts = read_source(*image)
            head = await asyncio.to_thread(next, parts, b"")
            digest, data = head[:DIGEST_BYTES], head[DIGEST_BYTES:]
            while data:
                await file.add(data)
                data = await asyncio.to_thread(next, parts, b"")
            if file.received == file.size_bytes and await asyncio.to_thread(file.sha256) == digest:
                return file
            if await asyncio.to_thread(source_bytes, *image) == nbytes:  # else it was deleted meanwhile
                STORE_DAMAGED.inc()
                log.warning("deleting a damaged file of the image %s", part.image)
                await asyncio.to_thread(self._quotas.erase_source, upload.namespace, part.image)
            raise await self._missing(upload, part)
        except BaseException:
            file.release()
            raise

    async def _missing(self, upload: Upload, part: Part) -> ServiceError:
        if await asyncio.to_thread(self._store.find_embedding, upload.namespace, part.image) is None:
            return embedding_expired(upload.image_id)
        return FailedPrecondition(
            "SOURCE_NOT_KEPT",
            "the image's file is not kept (any more): send the part as a file, or embed the image with keep_source",
            field="header.from_source",
        )
