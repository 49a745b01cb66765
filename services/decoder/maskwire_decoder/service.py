"""DecoderService over gRPC."""

import asyncio
import time
from collections.abc import AsyncIterator

from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc, types_pb2
from maskwire_core import names
from maskwire_core.config import DecoderSettings
from maskwire_core.errors import InvalidArgument, ResourceExhausted
from maskwire_core.pool import Pool
from maskwire_core.rpc import MAX_MESSAGE_BYTES, Context, answering, status_of, streaming

from maskwire_decoder import masks
from maskwire_decoder.images import Image, Images
from maskwire_decoder.prompts import LOGITS_DTYPES, Limits, Output, Prompt, read_output, read_prompts

NAME = pb.DESCRIPTOR.services_by_name["DecoderService"].full_name
MAX_WAIT_MS = 60_000
MAX_ANSWER_BYTES = MAX_MESSAGE_BYTES * 3 // 4


class DecoderService(decoder_pb2_grpc.DecoderServiceServicer):
    """See protos/maskwire/v1/decoder.proto."""

    def __init__(self, settings: DecoderSettings, images: Images) -> None:
        self._images = images
        self._limits = Limits(settings.max_prompts, settings.max_points)
        self._pool = Pool("mask decoder", settings.workers, settings.queue_limit)

    @answering
    async def Segment(self, request: pb.SegmentRequest, context: Context) -> pb.SegmentResponse:
        started = time.perf_counter()
        response = pb.SegmentResponse()
        image = await self._find(request, response.timings)
        await self._segment(image, request, request.image_id, response)
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
                        image = None  # a failed change must not leave the prompts that follow on the old image
                        image = await self._find(request.set_image, response.image_ready.timings)
                        image_id = request.set_image.image_id
                        response.image_ready.image.CopyFrom(_describe(image, image_id))
                        response.image_ready.timings.total_ms = (time.perf_counter() - started) * 1e3
                    case "segment":
                        if image is None:
                            raise InvalidArgument("NO_IMAGE", "no image is set; send set_image first", field="segment")
                        response.result.timings.in_memory = True
                        await self._segment(image, request.segment, image_id, response.result)
                        response.result.timings.total_ms = (time.perf_counter() - started) * 1e3
                    case _:
                        raise InvalidArgument("EMPTY_REQUEST", "send set_image or segment", field="request")
            except Exception as error:  # told to the caller, whose stream lives on
                response.error.CopyFrom(status_of(error))
            yield response

    async def _find(self, wanted: pb.SegmentRequest | pb.SetImage, timings: pb.SegmentTimings) -> Image:
        if wanted.wait_ms > MAX_WAIT_MS:
            raise InvalidArgument("BAD_WAIT", f"wait_ms is {wanted.wait_ms}; at most {MAX_WAIT_MS}", field="wait_ms")
        started = time.perf_counter()
        namespace, image_id = names.namespace(wanted.namespace), names.image_id(wanted.image_id)
        content_key = names.content_key(wanted.content_key)
        image, timings.in_memory = await self._images.find(namespace, image_id, content_key, wanted.wait_ms)
        timings.fetch_ms = (time.perf_counter() - started) * 1e3
        return image

    async def _segment(
        self, image: Image, request: pb.SegmentRequest | pb.StreamPrompts, image_id: str, response: pb.SegmentResponse
    ) -> None:
        """Fills in the response."""
        header, mask_size = image.header, image.predictor.config.mask_size
        output = read_output(request.output)
        prompts = read_prompts(request.prompts, header.width, header.height, mask_size, self._limits)
        _check_size(len(prompts), output, image)
        jobs = [asyncio.ensure_future(self._pool.run(_decode, image, prompt, output)) for prompt in prompts]
        try:
            decoded = await asyncio.gather(*jobs)
        finally:  # after an error or a cancel, what still waits is not decoded
            for job in jobs:
                job.cancel()
        response.image.CopyFrom(_describe(image, image_id))
        timings = response.timings
        for (result, decode_ms, mask_ms), queue_ms in decoded:
            response.results.append(result)
            timings.queue_ms += queue_ms
            timings.decode_ms += decode_ms
            timings.mask_ms += mask_ms


def _check_size(prompts: int, output: Output, image: Image) -> None:
    """Refuses, before any work, what would not fit into one answer. The other forms of masks are small."""
    mask_bytes = 0
    if types_pb2.MASK_FORMAT_PACKED_BITS in output.formats:
        mask_bytes += image.header.height * -(-image.header.width // 8)
    if types_pb2.MASK_FORMAT_LOGITS in output.formats:
        mask_bytes += image.predictor.config.mask_size**2 * LOGITS_DTYPES[output.logits_type].itemsize
    masks = prompts * (image.predictor.candidates if output.every and output.multimask else 1)
    if masks * mask_bytes > MAX_ANSWER_BYTES:
        raise ResourceExhausted(
            "ANSWER_TOO_LARGE",
            f"{masks} masks of {mask_bytes} bytes exceed an answer's {MAX_ANSWER_BYTES}; ask for RLE or fewer prompts",
            field="output.formats",
        )


def _decode(image: Image, prompt: Prompt, output: Output) -> tuple[types_pb2.PromptResult, float, float]:
    """Runs on a worker thread. Returns the answer and the milliseconds of decoding and of making masks."""
    header = image.header
    started = time.perf_counter()
    prediction = image.predictor.predict(
        image.prepared, prompt, header.width, header.height, multimask=output.multimask, every=output.every
    )
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
