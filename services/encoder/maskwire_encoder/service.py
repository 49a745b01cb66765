"""The gRPC service of an encoder."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from maskwire.v1 import encoder_pb2 as pb
from maskwire.v1 import encoder_pb2_grpc
from maskwire_core import names
from maskwire_core.call_context import current
from maskwire_core.cold_tier.tier import ColdTier
from maskwire_core.errors import DeadlineExceeded, InvalidArgument, embedding_expired, image_not_found
from maskwire_core.rpc.interceptor import Context
from maskwire_core.rpc.server import CONTENT_NEEDED
from maskwire_core.storage.listing import list_page
from maskwire_core.storage.quotas import Quotas
from maskwire_core.storage.store import Store
from maskwire_core.tenancy.tokens import Right

from maskwire_encoder.encoder import ImageEncoder
from maskwire_encoder.receiving import Receiving
from maskwire_encoder.spool import ImageFile
from maskwire_encoder.upload import Upload, accept, describe, digest_mismatch
from maskwire_encoder.upload_stream import UploadStream

NAME = pb.DESCRIPTOR.services_by_name["EncoderService"].full_name
RIGHTS: dict[str, Right | None] = {
    "EncodeImage": "encode",
    "EncodeImages": "encode",
    "EmbedImage": "encode",
    "GetImage": "read",
    "ListImages": "read",
    "DeleteImage": "delete",
    "ListModels": None,
    "GetLoad": "stats",
}
"""The right that a token needs for each method; None if it needs no right."""

_PART_BYTES = 1 << 20  # of an embedding that is returned


class EncoderService(encoder_pb2_grpc.EncoderServiceServicer):
    """The methods of protos/maskwire/v1/encoder.proto.

    Args:
        encoder: Encodes the images.
        store: The encoder's store.
        cold: What is behind it, if anything.
    """

    def __init__(self, encoder: ImageEncoder, store: Store, cold: ColdTier | None = None) -> None:
        self._encoder = encoder
        self._store = store
        self._cold = cold

    async def EncodeImage(
        self, requests: AsyncIterator[pb.EncodeImageRequest], context: Context
    ) -> pb.EncodeImageResponse:
        frames = aiter(requests)
        upload = self._accept(await self._header(frames), context)
        found = await self._encoder.find(upload)
        if found is not None:
            return found
        with self._receiving(upload) as receiving:
            await context.send_initial_metadata(CONTENT_NEEDED)
            return await self._encoder.encode(upload, await _received(frames, receiving), receiving.asked_at)

    async def EmbedImage(
        self, requests: AsyncIterator[pb.EncodeImageRequest], context: Context
    ) -> AsyncIterator[pb.EmbedImageResponse]:
        frames = aiter(requests)
        header = await self._header(frames)
        for field in ("image_id", "ttl_s", "region_of", "keep_source", "from_source"):
            if getattr(header, field):
                raise InvalidArgument(
                    "NOT_STORED", f"the embedding is not stored; leave {field} out", field=f"header.{field}"
                )
        upload = self._accept(header, context)
        current().caller.charge(encodes=1, announced_bytes=upload.size_bytes)
        with self._receiving(upload) as receiving:
            embedding = await self._encoder.embed(upload, await _received(frames, receiving))
        for start in range(0, len(embedding), _PART_BYTES):
            yield pb.EmbedImageResponse(chunk=embedding[start : start + _PART_BYTES])

    async def _header(self, frames: AsyncIterator[pb.EncodeImageRequest]) -> pb.EncodeImageHeader:
        """Receives the first frame of an upload. Raises HEADER_MISSING, UPLOAD_STALLED."""
        try:
            async with asyncio.timeout(self._encoder.settings.upload_pause_s):
                first = await anext(frames, None)
        except TimeoutError as error:
            raise DeadlineExceeded(
                "UPLOAD_STALLED", "the header did not come; send it first", field="header"
            ) from error
        if first is None or first.WhichOneof("frame") != "header":
            raise InvalidArgument("HEADER_MISSING", "the first frame must be the header", field="header")
        return first.header

    def _accept(self, header: pb.EncodeImageHeader, context: Context) -> Upload:
        encoder = self._encoder
        return accept(header, encoder.models, encoder.settings, context.peer(), context.time_remaining())

    def _receiving(self, upload: Upload) -> "contextlib.closing[Receiving]":
        return contextlib.closing(Receiving(upload, self._encoder.spool, self._encoder.settings.upload_pause_s))

    async def EncodeImages(
        self, requests: AsyncIterator[pb.EncodeImagesRequest], context: Context
    ) -> AsyncIterator[pb.EncodeImagesResponse]:
        async for response in UploadStream(self._encoder, context).respond(requests):
            yield response

    async def GetImage(self, request: pb.GetImageRequest, context: Context) -> pb.GetImageResponse:
        namespace, image_id = current().caller.reading(request.namespace), names.image_id(request.image_id)
        found = (await asyncio.to_thread(self._store.find_aliases, namespace, [image_id])).get(image_id)
        if found is None and self._cold is not None:
            found = await self._cold.find(namespace, image_id, self._encoder.settings.cold_ttl_s)
        if found is None:
            named = await asyncio.to_thread(self._store.get_alias, namespace, image_id)
            raise image_not_found(image_id) if named is None else embedding_expired(image_id)
        return pb.GetImageResponse(image=describe(found, image_id, found.ttl_ms))

    async def ListImages(self, request: pb.ListImagesRequest, context: Context) -> pb.ListImagesResponse:
        namespace, prefix = current().caller.reading(request.namespace), names.prefix(request.prefix)
        images, token = await asyncio.to_thread(
            list_page, self._store, namespace, prefix, request.page_size, request.page_token
        )
        described = [describe(each, name, each.ttl_ms) for name, each in images.items()]
        return pb.ListImagesResponse(images=described, next_page_token=token)

    async def DeleteImage(self, request: pb.DeleteImageRequest, context: Context) -> pb.DeleteImageResponse:
        namespace, image_id = current().caller.reading(request.namespace), names.image_id(request.image_id)
        call_id = names.call_id(request.call_id)
        key = await asyncio.to_thread(self._store.get_alias, namespace, image_id)
        is_cold = False
        if key is None and self._cold is not None:
            key = await self._cold.content_key(namespace, image_id)
            is_cold = key is not None
        if not request.delete_embedding:
            key = None
        forgetting = self._cold.forgetting(namespace, image_id, key) if self._cold else contextlib.nullcontext()
        async with forgetting:
            if key is not None:
                await asyncio.to_thread(Quotas(self._store).erase_embedding, namespace, key)
            deleted = await asyncio.to_thread(self._store.delete_alias, namespace, image_id, call_id)
        return pb.DeleteImageResponse(deleted=deleted or is_cold)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        models = [
            pb.ModelInfo(
                name=model.source.name,
                fingerprint=model.fingerprint,
                image_size_px=model.image_size,
                is_default=index == 0,
                note=model.source.note,
                device=str(model.device),
                decoder=model.decoder.digest,
                tracker=model.tracker.digest if model.tracker is not None else "",
                store_codec=model.store_codec,
                klt_iou=model.transform.iou if model.transform is not None else 0,
            )
            for index, model in enumerate(self._encoder.models.values())
        ]
        return pb.ListModelsResponse(models=models)

    async def GetLoad(self, request: pb.GetLoadRequest, context: Context) -> pb.GetLoadResponse:
        pipeline = self._encoder.pipeline
        left, model = pipeline.left, pipeline.model
        return pb.GetLoadResponse(
            waiting=pipeline.waiting,
            waiting_bulk=pipeline.waiting_bulk,
            encoding=model.running,
            queue_limit=self._encoder.settings.queue_limit,
            oldest_wait_ms=pipeline.oldest_wait_s * 1e3,
            backlog_ms=pipeline.backlog_s * 1e3,
            encoded=model.tally.done,
            batches=model.tally.batches,
            refused=left.refused,
            expired=left.expired,
            cancelled=left.cancelled,
            waited_ms=left.waited_s * 1e3,
            busy_ms=model.tally.busy_s * 1e3,
        )


async def _received(frames: AsyncIterator[pb.EncodeImageRequest], receiving: Receiving) -> ImageFile:
    """Receives the rest of an upload. Returns its file. Raises DIGEST_MISMATCH if nothing of it comes."""
    while receiving.missing and (frame := await receiving.wait(anext(frames, None))) is not None:
        await receiving.add(frame.chunk)
    if receiving.file is None:
        raise digest_mismatch()
    return receiving.file
