"""DecoderService over gRPC."""

import asyncio
import time
from collections.abc import AsyncIterator

from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc
from maskwire_core.config import DecoderSettings
from maskwire_core.errors import Unavailable
from maskwire_core.rpc.interceptor import Context
from maskwire_core.storage.store import Store
from maskwire_core.telemetry import tracing
from maskwire_core.telemetry.metrics import Reading
from maskwire_core.tenancy.tokens import Right

from maskwire_decoder.automatic_masks.generator import Generator
from maskwire_decoder.images import Images
from maskwire_decoder.segmenter import Segmenter, stages
from maskwire_decoder.sessions.session import Session

NAME = pb.DESCRIPTOR.services_by_name["DecoderService"].full_name
RIGHTS: dict[str, Right | None] = {"Segment": "segment", "SegmentStream": "segment", "GenerateMasks": "segment"}
"""What a token must allow for each method."""


class DecoderService(decoder_pb2_grpc.DecoderServiceServicer):
    """See protos/maskwire/v1/decoder.proto."""

    def __init__(self, settings: DecoderSettings, images: Images, store: Store) -> None:
        self._segmenter = Segmenter(settings, images, store)
        self._session_bytes = settings.session_bytes
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Tells the callers of streams to go on elsewhere, and refuses new streams."""
        self._draining.set()

    async def self_test(self) -> None:
        """Checks that prompts are decoded; see `Segmenter.self_test`."""
        await self._segmenter.self_test()

    def readings(self) -> list[Reading]:
        """What metrics tell."""
        return self._segmenter.readings()

    async def Segment(self, request: pb.SegmentRequest, context: Context) -> pb.SegmentResponse:
        started = time.perf_counter()
        response = pb.SegmentResponse()
        image = await self._segmenter.find(request, response.timings)
        # A caller's requests on different images are probably different people's: gateways share a connection.
        caller = (context.peer(), image.header.namespace, image.header.content_key)
        left_s = context.time_remaining()
        await self._segmenter.segment(caller, image, request, request.image_id, response, left_s)
        response.timings.total_ms = (time.perf_counter() - started) * 1e3
        tracing.ended(stages(response.timings, len(request.prompts)))
        return response

    async def SegmentStream(
        self, requests: AsyncIterator[pb.SegmentStreamRequest], context: Context
    ) -> AsyncIterator[pb.SegmentStreamResponse]:
        if self._draining.is_set():
            raise Unavailable("DRAINING", "this decoder is about to stop; ask another", retry_after_s=0.1)
        session = Session(self._segmenter, self._session_bytes, self._draining)
        async for response in session.answer(requests):
            yield response

    async def GenerateMasks(
        self, request: pb.GenerateMasksRequest, context: Context
    ) -> AsyncIterator[pb.GenerateMasksResponse]:
        async for response in Generator(self._segmenter, context, request).run():
            yield response
