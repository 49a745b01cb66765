"""DecoderService over gRPC."""

import asyncio
import math
import time
from collections.abc import AsyncIterator

from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc
from maskwire_core.errors import Unavailable
from maskwire_core.rpc.interceptor import Context
from maskwire_core.telemetry import tracing
from maskwire_core.tenancy.tokens import Right

from maskwire_decoder.automatic_masks.generator import Generator
from maskwire_decoder.downloads import Downloads
from maskwire_decoder.messages import answer_message, parse_query_aside, parse_reference, trace_stages
from maskwire_decoder.segmenter import Segmenter
from maskwire_decoder.sessions.session import Session

NAME = pb.DESCRIPTOR.services_by_name["DecoderService"].full_name
RIGHTS: dict[str, Right | None] = dict.fromkeys(
    ("Segment", "SegmentStream", "GenerateMasks", "GetEmbedding", "GetDecoder"), "segment"
)
"""The right that a token needs for each method."""


class DecoderService(decoder_pb2_grpc.DecoderServiceServicer):
    """See protos/maskwire/v1/decoder.proto."""

    def __init__(self, segmenter: Segmenter, downloads: Downloads) -> None:
        self._segmenter = segmenter
        self._downloads = downloads
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Tells the callers of streams to go on elsewhere, and refuses new streams."""
        self._draining.set()

    async def Segment(self, request: pb.SegmentRequest, context: Context) -> pb.SegmentResponse:
        started = time.perf_counter()
        found = await self._segmenter.find(parse_reference(request))
        image, header = found.image, found.image.header
        # A caller's requests on different images are probably different people's: gateways share a connection.
        connection, left_s = (context.peer(), header.content_key), context.time_remaining()
        query = await parse_query_aside(request, image, self._segmenter, connection)
        deadline = math.inf if left_s is None else asyncio.get_running_loop().time() + left_s
        answer = await self._segmenter.segment(connection, image, query, deadline)
        total_ms = (time.perf_counter() - started) * 1e3
        tracing.ended(trace_stages(answer, found, total_ms))
        return answer_message(answer, found, total_ms)

    async def SegmentStream(
        self, requests: AsyncIterator[pb.SegmentStreamRequest], context: Context
    ) -> AsyncIterator[pb.SegmentStreamResponse]:
        if self._draining.is_set():
            raise Unavailable("DRAINING", "this decoder is about to stop; ask another", retry_after_s=0.1)
        async for response in Session(self._segmenter, self._draining).answer(requests):
            yield response

    async def GenerateMasks(
        self, request: pb.GenerateMasksRequest, context: Context
    ) -> AsyncIterator[pb.GenerateMasksResponse]:
        async for response in Generator(self._segmenter, context, request).generate():
            yield response

    async def GetEmbedding(
        self, request: pb.GetEmbeddingRequest, context: Context
    ) -> AsyncIterator[pb.GetEmbeddingResponse]:
        file = await self._downloads.embedding(request, context.peer())
        yield pb.GetEmbeddingResponse(info=file.info)
        for chunk in file.chunks(request.part):
            yield pb.GetEmbeddingResponse(chunk=chunk)

    async def GetDecoder(self, request: pb.GetDecoderRequest, context: Context) -> AsyncIterator[pb.GetDecoderResponse]:
        file = await self._downloads.decoder(request, context.peer())
        yield pb.GetDecoderResponse(info=file.info)
        for chunk in file.chunks(request.part):
            yield pb.GetDecoderResponse(chunk=chunk)
