"""DecoderService over gRPC."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc, types_pb2
from maskwire_core import names
from maskwire_core.config import DecoderSettings
from maskwire_core.errors import InvalidArgument
from maskwire_core.pool import Pool
from maskwire_core.rpc import Context, answering, status_of, streaming

from maskwire_decoder import masks
from maskwire_decoder.images import Image, Images
from maskwire_decoder.prompts import Limits, Output, Prompt, read_output, read_prompts

NAME = pb.DESCRIPTOR.services_by_name["DecoderService"].full_name
MAX_WAIT_MS = 60_000


class DecoderService(decoder_pb2_grpc.DecoderServiceServicer):
    """See protos/maskwire/v1/decoder.proto."""

    def __init__(self, settings: DecoderSettings, images: Images) -> None:
        self._images = images
        self._limits = Limits(settings.max_prompts, settings.max_points)
        self._pool = Pool("mask decoder", settings.workers, settings.queue_limit)

    @answering
    async def Segment(self, request: pb.SegmentRequest, context: Context) -> pb.SegmentResponse:
        started = time.perf_counter()
        image, timings = await self._find(request.namespace, request.image_id, request.wait_ms)
        response = await self._segment(image, request.image_id, request.prompts, request.output, timings)
        response.timings.total_ms = (time.perf_counter() - started) * 1e3
        return response

    @streaming
    async def SegmentStream(
        self, requests: AsyncIterator[pb.SegmentStreamRequest], context: Context
    ) -> AsyncIterator[pb.SegmentStreamResponse]:
        image: Image | None = None
        image_id = ""
        async for request in requests:
            started = time.perf_counter()
            response = pb.SegmentStreamResponse(request_id=request.request_id)
            try:
                match request.WhichOneof("request"):
                    case "set_image":
                        image_id, wanted = request.set_image.image_id, request.set_image
                        image = None  # a failed change must not leave the prompts that follow on the old image
                        image, timings = await self._find(wanted.namespace, image_id, wanted.wait_ms)
                        timings.total_ms = (time.perf_counter() - started) * 1e3
                        ready = pb.ImageReady(image=_describe(image, image_id), timings=timings)
                        response.image_ready.CopyFrom(ready)
                    case "segment":
                        if image is None:
                            raise InvalidArgument("NO_IMAGE", "no image is set; send set_image first", field="segment")
                        prompts, output = request.segment.prompts, request.segment.output
                        timings = pb.SegmentTimings(in_memory=True)
                        result = await self._segment(image, image_id, prompts, output, timings)
                        result.timings.total_ms = (time.perf_counter() - started) * 1e3
                        response.result.CopyFrom(result)
                    case _:
                        raise InvalidArgument("EMPTY_REQUEST", "send set_image or segment", field="request")
            except Exception as error:  # told to the caller, whose stream lives on
                response.error.CopyFrom(status_of(error))
            yield response

    async def _find(self, namespace: str, image_id: str, wait_ms: int) -> tuple[Image, pb.SegmentTimings]:
        if wait_ms > MAX_WAIT_MS:
            raise InvalidArgument("BAD_WAIT", f"wait_ms is {wait_ms}; at most {MAX_WAIT_MS}", field="wait_ms")
        started = time.perf_counter()
        image, in_memory = await self._images.find(names.namespace(namespace), names.image_id(image_id), wait_ms)
        return image, pb.SegmentTimings(fetch_ms=(time.perf_counter() - started) * 1e3, in_memory=in_memory)

    async def _segment(
        self,
        image: Image,
        image_id: str,
        prompts: Sequence[types_pb2.Prompt],
        options: types_pb2.OutputOptions,
        timings: pb.SegmentTimings,
    ) -> pb.SegmentResponse:
        header = image.header
        output = read_output(options)
        checked = read_prompts(prompts, header.width, header.height, image.predictor.config.mask_size, self._limits)
        jobs = [asyncio.ensure_future(self._pool.run(_decode, image, prompt, output)) for prompt in checked]
        try:
            decoded = await asyncio.gather(*jobs)
        finally:  # after an error or a cancel, what still waits is not decoded
            for job in jobs:
                job.cancel()
        response = pb.SegmentResponse(image=_describe(image, image_id))
        for (result, decode_ms, mask_ms), queue_ms in decoded:
            response.results.append(result)
            timings.queue_ms += queue_ms
            timings.decode_ms += decode_ms
            timings.mask_ms += mask_ms
        response.timings.CopyFrom(timings)
        return response


def _decode(image: Image, prompt: Prompt, output: Output) -> tuple[types_pb2.PromptResult, float, float]:
    """Runs on a worker thread. Returns the answer and the milliseconds of decoding and of making masks."""
    header = image.header
    started = time.perf_counter()
    prediction = image.predictor.predict(image.tensors, prompt, header.width, header.height, output.multimask)
    decoded = time.perf_counter()
    result = masks.render(prompt, prediction, output, header.width, header.height)
    return result, (decoded - started) * 1e3, (time.perf_counter() - decoded) * 1e3


def _describe(image: Image, image_id: str) -> pb.SegmentedImage:
    header = image.header
    return pb.SegmentedImage(
        image_id=image_id,
        height_px=header.height,
        width_px=header.width,
        model=header.model,
        content_key=header.content_key,
    )
