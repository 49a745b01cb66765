"""From a request to its masks: the image, a turn on a worker thread, the answer."""

import asyncio
import time
from collections.abc import Hashable, Sequence
from dataclasses import replace

from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core import names
from maskwire_core.config import DecoderSettings
from maskwire_core.errors import InvalidArgument, ResourceExhausted
from maskwire_core.models.registry import canonical
from maskwire_core.rpc.server import MAX_MESSAGE_BYTES
from maskwire_core.storage.store import Store
from maskwire_core.telemetry import logs, tracing
from maskwire_core.telemetry.metrics import IMAGES, STAGES, Reading
from maskwire_core.tenancy import tenant

from maskwire_decoder.images import Image, Images
from maskwire_decoder.masks import rendering
from maskwire_decoder.prompts.encoding import CANDIDATES, Prediction
from maskwire_decoder.prompts.parsing import LOGITS_DTYPES, Limits, Output, Prompt, read_output, read_prompts
from maskwire_decoder.refinement import Refinement
from maskwire_decoder.turns import Turns

MAX_WAIT_MS = 60_000
MAX_ANSWER_BYTES = MAX_MESSAGE_BYTES * 3 // 4

_FETCH, _DECODE, _MASK = (STAGES.labels(stage) for stage in ("fetch", "decode", "mask"))
_IN_MEMORY, _IN_STORE = (IMAGES.labels(where) for where in ("memory", "store"))

Wanted = pb.SegmentRequest | pb.SetImage


class Segmenter:
    """What all requests share: images, worker threads, limits."""

    def __init__(self, settings: DecoderSettings, images: Images, store: Store) -> None:
        self.limits = Limits(settings.max_prompts, settings.max_points)
        self.turns = Turns("mask decoder", settings.decode_workers, settings.queue_limit)
        self._images = images
        self._refinement = Refinement(settings, store)
        self._done = -1

    async def self_test(self) -> None:
        """Decodes a click on the most recently used image, if there is one; does nothing while prompts are decoded.

        Raises:
            Exception: Whatever the decode raises.
        """
        done, self._done = self._done, self.turns.done
        if self.turns.done != done >= 0:
            return
        image = self._images.latest()
        if image is None:
            await self.turns.run(self, True, lambda: None)  # its threads live
            return
        centre = types_pb2.Point(x_px=image.header.width / 2, y_px=image.header.height / 2)
        (prompt,) = self.read([types_pb2.Prompt(points=[centre])], image)
        await self.turns.run(self, True, predict, image, prompt, True, False)
        self._done = self.turns.done

    def readings(self) -> list[Reading]:
        """What metrics tell."""
        waiting = "Prompts that wait for a turn."
        return [
            Reading("maskwire_queue_waiting", waiting, lambda: self.turns.waiting(True), (("urgency", "interactive"),)),
            Reading("maskwire_queue_waiting", waiting, lambda: self.turns.waiting(False), (("urgency", "bulk"),)),
            Reading("maskwire_workers", "Prompts that are decoded at the same time.", lambda: self.turns.threads),
            Reading("maskwire_workers_busy", "Prompts that are being decoded.", lambda: self.turns.running),
            *self._images.readings(),
        ]

    async def find(self, wanted: Wanted, timings: pb.SegmentTimings) -> Image:
        """The image that a request names.

        Raises:
            ServiceError: See `Images.find`; or the image's name is not allowed, or another model embedded the image.
        """
        if wanted.wait_ms > MAX_WAIT_MS:
            raise InvalidArgument("BAD_WAIT", f"wait_ms is {wanted.wait_ms}; at most {MAX_WAIT_MS}", field="wait_ms")
        started = time.perf_counter()
        namespace, image_id = tenant.current().reading(wanted.namespace), names.image_id(wanted.image_id)
        content_key = names.content_key(wanted.content_key)
        logs.bind(namespace, image_id)
        with tracing.span("fetch"):
            image, timings.in_memory = await self._images.find(namespace, image_id, content_key, wanted.wait_ms)
        if wanted.model and canonical(wanted.model) != image.header.model:
            raise InvalidArgument(
                "OTHER_MODEL",
                f"{image_id!r} was embedded with the model {image.header.model!r}, not with {wanted.model!r}; embed it "
                "with that model, or name no model",
                field="model",
            )
        took_s = time.perf_counter() - started
        timings.fetch_ms = took_s * 1e3
        _FETCH.observe(took_s)
        (_IN_MEMORY if timings.in_memory else _IN_STORE).inc()
        return image

    def read(self, prompts: Sequence[types_pb2.Prompt], image: Image) -> list[Prompt]:
        """Checks prompts; see `read_prompts`."""
        header = image.header
        return read_prompts(prompts, header.width, header.height, image.predictor.config.mask_size, self.limits)

    async def segment(
        self,
        caller: Hashable,
        image: Image,
        request: pb.SegmentRequest | pb.StreamPrompts,
        image_id: str,
        response: pb.SegmentResponse,
        left_s: float | None = None,
    ) -> None:
        """Answers the prompts of a request, filling in the response; within `left_s` seconds if that is given.

        Raises:
            ServiceError: A prompt is wrong, or too much is waiting.
        """
        output = read_output(request.output)
        if any(prompt.HasField("mask_rle") for prompt in request.prompts):  # as large as the image
            prompts = await asyncio.to_thread(self.read, request.prompts, image)
        else:
            prompts = self.read(request.prompts, image)
        tenant.current().charge(requests=len(prompts) - 1)  # the call itself is one
        check_size(len(prompts), output, image)
        saving = isinstance(request, pb.SegmentRequest) and request.save_logits
        loaded: list[bool] = []
        if isinstance(request, pb.SegmentRequest) and request.load_logits:
            size = image.predictor.config.mask_size
            found = await asyncio.to_thread(self._refinement.load, image.header, prompts, size)
            loaded = [logits is not None and prompt.mask is None for prompt, logits in zip(prompts, found, strict=True)]
            prompts = [
                replace(prompt, mask=logits) if use else prompt
                for prompt, logits, use in zip(prompts, found, loaded, strict=True)
            ]
        urgent = len(prompts) == 1  # somebody's click; many prompts are a program's
        self.turns.admit(caller, urgent, len(prompts), left_s)
        jobs = [
            asyncio.ensure_future(self.turns.run(caller, urgent, _answer, image, prompt, output)) for prompt in prompts
        ]
        try:
            decoded = await asyncio.gather(*jobs)
        finally:  # after an error or a cancel, what still waits is not decoded
            for job in jobs:
                job.cancel()
        if saving:
            logits = [prediction.best for (_, prediction, _, _), _ in decoded]
            await asyncio.to_thread(self._refinement.save, image.header, prompts, logits)
        response.image.CopyFrom(describe(image, image_id))
        timings = response.timings
        for (result, _, decode_ms, mask_ms), queue_ms in decoded:
            response.results.append(result)
            timings.queue_ms += queue_ms
            timings.decode_ms += decode_ms
            timings.mask_ms += mask_ms
        for result, use in zip(response.results, loaded, strict=False):
            result.refined = use


def stages(timings: pb.SegmentTimings, prompts: int) -> list[tuple[str, float]]:
    """What came one after another when prompts were answered, in seconds; several prompts are decoded side by side."""
    if prompts > 1:
        return [("prompts", (timings.total_ms - timings.fetch_ms) / 1e3)]
    return [("queue", timings.queue_ms / 1e3), ("decode", timings.decode_ms / 1e3), ("mask", timings.mask_ms / 1e3)]


def predict(image: Image, prompt: Prompt, multimask: bool, every: bool) -> tuple[Prediction, float]:
    """Runs on a worker thread. Returns the masks' logits and the milliseconds that it took."""
    header = image.header
    started = time.perf_counter()
    prediction = image.predictor.predict(
        image.prepared, prompt, header.width, header.height, multimask=multimask, every=every
    )
    took_s = time.perf_counter() - started
    _DECODE.observe(took_s)
    return prediction, took_s * 1e3


def render(
    image: Image, prompt: Prompt, prediction: Prediction, output: Output
) -> tuple[types_pb2.PromptResult, float]:
    """As `predict`, from logits to masks."""
    started = time.perf_counter()
    result = rendering.render(prompt, prediction, output, image.header.width, image.header.height)
    took_s = time.perf_counter() - started
    _MASK.observe(took_s)
    return result, took_s * 1e3


def _answer(image: Image, prompt: Prompt, output: Output) -> tuple[types_pb2.PromptResult, Prediction, float, float]:
    prediction, decode_ms = predict(image, prompt, output.multimask, output.every)
    result, mask_ms = render(image, prompt, prediction, output)
    return result, prediction, decode_ms, mask_ms


def check_size(prompts: int, output: Output, image: Image) -> None:
    """Refuses, before any work, what would not fit into one answer. The other forms of masks are small.

    Raises:
        ResourceExhausted: It would not.
    """
    mask_bytes = 0
    if types_pb2.MASK_FORMAT_PACKED_BITS in output.formats:
        mask_bytes += image.header.height * -(-image.header.width // 8)
    if types_pb2.MASK_FORMAT_LOGITS in output.formats:
        mask_bytes += image.predictor.config.mask_size**2 * LOGITS_DTYPES[output.logits_type].itemsize
    masks = prompts * (CANDIDATES if output.every and output.multimask else 1)
    if masks * mask_bytes > MAX_ANSWER_BYTES:
        raise ResourceExhausted(
            "ANSWER_TOO_LARGE",
            f"{masks} masks of {mask_bytes} bytes exceed an answer's {MAX_ANSWER_BYTES}; ask for RLE or fewer prompts",
            field="output.formats",
        )


def describe(image: Image, image_id: str) -> pb.SegmentedImage:
    header = image.header
    return pb.SegmentedImage(
        image_id=image_id,
        height_px=header.height,
        width_px=header.width,
        model=header.model,
        content_key=header.content_key,
    )
