"""Answers prompts: finds the image, decodes what is missing on worker threads, and makes masks."""

import asyncio
import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import numpy as np
from maskwire.model_names import canonical
from maskwire.v1 import types_pb2
from maskwire_core import names
from maskwire_core.call_context import current
from maskwire_core.config import DecoderSettings
from maskwire_core.errors import InvalidArgument, ResourceExhausted
from maskwire_core.masks.answer_room import MAX_ANSWER_BYTES, AnswerRoom
from maskwire_core.models.decoder_bundle import CANDIDATES
from maskwire_core.scheduling import fair_queue
from maskwire_core.scheduling.byte_budget import ByteBudget
from maskwire_core.scheduling.executors import ThreadScheduler
from maskwire_core.scheduling.scheduler import Demand
from maskwire_core.storage.store import Store
from maskwire_core.telemetry import logs, tracing
from maskwire_core.telemetry.metrics import IMAGES, LiveMetric

from maskwire_decoder.automatic_masks.limits import GenerationLimits
from maskwire_decoder.images import Image, Images
from maskwire_decoder.masks.rendering import clamp
from maskwire_decoder.object_decoding import ObjectDecoder, Plan, decode_and_render
from maskwire_decoder.prefix_cache import PrefixCache
from maskwire_decoder.prompts.mask_input import LOGITS_DTYPES
from maskwire_decoder.prompts.parsing import Limits, Output, Prompt
from maskwire_decoder.saved_logits import SavedLogits
from maskwire_decoder.stages import FETCH, Answer, Timings, decode

_MAX_WAIT_MS = 60_000

_IN_MEMORY, _IN_STORE = (IMAGES.labels(where) for where in ("memory", "store"))


@dataclass(frozen=True)
class ImageReference:
    """The image that a request names."""

    namespace: str  # namespace as the caller gave it; may be empty
    image_id: str  # name of the image
    content_key: str = ""  # identity of the embedding, or empty to take what the name stands for now
    wait_ms: int = 0  # how long to wait for the embedding, in milliseconds
    model: str = ""  # model that must have embedded it, or empty for any


@dataclass(frozen=True)
class FoundImage:
    """An image, and how it was found."""

    image: Image
    image_id: str  # its name as the caller gave it
    timings: Timings  # how long it took
    in_memory: bool  # whether it was in memory


@dataclass(frozen=True)
class Query:
    """Prompts on an image."""

    prompts: tuple[Prompt, ...]  # at least one
    output: Output  # what is returned for each
    save_logits: bool = False  # whether the logits are shared through the store
    load_logits: bool = False  # whether prompts without a mask refine saved logits of an earlier request


class Segmenter:
    """What all requests share: images, worker threads, known predictions, limits."""

    def __init__(self, settings: DecoderSettings, images: Images, store: Store) -> None:
        self.limits = Limits(settings.max_prompts, settings.max_points, settings.max_mask_pixels)
        self.generation_limits = GenerationLimits.of(settings)
        self.generated = ByteBudget(settings.generated_mask_bytes, self.generation_limits.nbytes)
        """Memory of the masks that calls for automatic masks have found so far."""
        self.scheduler = ThreadScheduler(
            "mask decoder", settings.decode_workers, fair_queue.Limits(settings.queue_limit)
        )
        self.parser = ThreadScheduler("parser of prompts", 1, fair_queue.Limits())
        """For requests whose prompts take long to read."""
        self._images = images
        self._saved = SavedLogits(settings, store)
        self._cache = PrefixCache(settings.logits_cache_bytes)
        images.deletions.tell(self._cache)
        self._decoder = ObjectDecoder(self.scheduler, self._cache, self._saved)
        self._done = -1

    async def self_test(self) -> None:
        """Decodes a click on the image that was used last, if there is any, unless other work has been done meanwhile.

        Raises:
            Exception: Whatever the decode raises.
        """
        done, self._done = self._done, self.scheduler.tally.done
        if self._done != done >= 0:
            return
        image, demand = self._images.latest(), Demand(fair_queue.Requester("", self))
        if image is None:
            await self.scheduler.run(demand, lambda: None)  # shows that the threads live
            return
        centre = np.array([[image.header.width / 2, image.header.height / 2]], np.float32)
        await self.scheduler.run(demand, decode, image, Prompt("", centre, np.ones(1, np.int64)), False)
        self._done = self.scheduler.tally.done

    def live_metrics(self) -> list[LiveMetric]:
        """Returns the gauges of a decoder."""
        scheduler = self.scheduler

        def waiting(urgency: str, count: Callable[[], int]) -> LiveMetric:
            return LiveMetric("maskwire_queue_waiting", "Prompts that wait for a turn.", count, (("urgency", urgency),))

        return [
            waiting("interactive", lambda: scheduler.waiting - scheduler.waiting_bulk),
            waiting("bulk", lambda: scheduler.waiting_bulk),
            LiveMetric("maskwire_workers", "Prompts that are decoded at the same time.", lambda: scheduler.at_once),
            LiveMetric("maskwire_workers_busy", "Prompts that are being decoded.", lambda: scheduler.running),
            LiveMetric("maskwire_logits_cache_bytes", "Memory of kept logits.", lambda: self._cache.nbytes),
            LiveMetric("maskwire_logits_cache_limit_bytes", "What it may be.", lambda: self._cache.max_bytes),
            *self.generated.live_metrics("generated masks"),
            *self._images.live_metrics(),
        ]

    async def find(self, reference: ImageReference) -> FoundImage:
        """Finds the image that a request names.

        Raises:
            ServiceError: See `Images.find`; or the image's name is not allowed, or another model embedded the image.
        """
        wait_ms = reference.wait_ms
        if wait_ms > _MAX_WAIT_MS:
            raise InvalidArgument("BAD_WAIT", f"wait_ms is {wait_ms}; at most {_MAX_WAIT_MS}", field="wait_ms")
        started = time.perf_counter()
        caller = current().caller
        namespace, image_id = caller.reading(reference.namespace), names.image_id(reference.image_id)
        content_key = names.content_key(reference.content_key)
        logs.bind(namespace, image_id)
        with tracing.span("fetch"):
            image, in_memory = await self._images.find(namespace, image_id, content_key, wait_ms, caller.tenant)
        if reference.model and canonical(reference.model) != image.header.model:
            raise InvalidArgument(
                "OTHER_MODEL",
                f"{image_id!r} was embedded with the model {image.header.model!r}, not with {reference.model!r}; embed "
                "it with that model, or name no model",
                field="model",
            )
        seconds = time.perf_counter() - started
        FETCH.observe(seconds)
        (_IN_MEMORY if in_memory else _IN_STORE).inc()
        return FoundImage(image, image_id, Timings(fetch_ms=seconds * 1e3), in_memory)

    async def confirm(self, image: Image) -> None:
        """Checks that an image was not deleted while it was worked on; see `Images.confirm`."""
        if image.may_be_deleted:
            await self._images.confirm(image)

    async def segment(self, connection: Hashable, image: Image, query: Query, deadline: float = math.inf) -> Answer:
        """Answers prompts.

        Args:
            connection: Where the request came from; see `Requester`.
            image: The image.
            query: What is asked.
            deadline: When nobody wants the answer any more, in the event loop's time.

        Raises:
            ServiceError: The answer or what is to be saved is too large, the tenant's rate is used up, or too much is
                waiting or in progress.
        """
        prompts, output, call = query.prompts, query.output, current()
        room = AnswerRoom(call.memory, known_bytes=_known_bytes(query, image))
        plans = [self._decoder.plan(image, prompt, output) for prompt in prompts]
        if query.save_logits:
            fields = await asyncio.to_thread(self._saved.fields, image, prompts)
            call.memory.take(_count_masks(query) * image.predictor.config.mask_size**2 * 4)  # until they are saved
            plans = await asyncio.to_thread(self._decoder.find_saved, image, plans)
        if query.load_logits:
            plans = await asyncio.to_thread(self._decoder.find_earlier, image, plans)
        decodes = sum(len(plan.missing) + 1 for plan in plans)
        call.caller.charge(requests=decodes - 1)  # the call itself is one
        # One prompt is somebody's click; several are a program's.
        demand = demand_for(image, connection, bulk=len(prompts) > 1, deadline=deadline)
        self.scheduler.admit(demand, decodes)
        jobs = [
            asyncio.ensure_future(
                self._decoder.answer(demand, image, plan, output, room, with_prediction=query.save_logits)
            )
            for plan in plans
        ]
        try:
            answer = sum(await asyncio.gather(*jobs), Answer())
        finally:  # after an error or a cancel, what still waits is not decoded
            for job in jobs:
                job.cancel()
        await self.confirm(image)
        if query.save_logits:
            best = [clamp(prediction.best) for prediction in answer.predictions]
            await asyncio.to_thread(self._saved.save, image, fields, best)
        return answer

    async def prepare(self, connection: Hashable, image: Image, query: Query) -> Plan:
        """Decodes what has led to the only prompt of a query, so that `preview` need not."""
        plan = self._decoder.plan(image, query.prompts[0], query.output)
        if query.save_logits:
            (plan,) = await asyncio.to_thread(self._decoder.find_saved, image, [plan])
        current().caller.charge(requests=len(plan.missing))
        return await self._decoder.complete(demand_for(image, connection), image, plan)

    def preview(
        self, image: Image, query: Query, prepared: Plan, room: AnswerRoom, is_wanted: Callable[[], bool]
    ) -> Answer | None:
        """Answers the only prompt of a query, and keeps nothing. Runs on a worker thread.

        Args:
            image: The image.
            query: What is asked.
            prepared: What `prepare` gave for this query, or for one before.
            room: For the masks.
            is_wanted: Asked after decoding; if it says no, no masks are made.

        Returns:
            The masks; None if what has led to the object is not in memory, so that the query must be prepared.
        """
        _known_bytes(query, image)
        plan = self._decoder.plan(image, query.prompts[0], query.output)
        before, now = prepared.prompt.history, plan.prompt.history
        if plan.missing and prepared.feedback is not None and before and now and before.fed_by == now.fed_by:
            plan = replace(plan, feedback=prepared.feedback, missing=range(0))
        return None if plan.missing else decode_and_render(image, plan, query.output, room, is_wanted)


def demand_for(image: Image, connection: Hashable, *, bulk: bool = False, deadline: float = math.inf) -> Demand:
    """Returns the demand for work on an image of a connection of the tenant that the image belongs to; see `Demand`."""
    return Demand(fair_queue.Requester(image.header.namespace, connection), bulk, deadline)


def _known_bytes(query: Query, image: Image) -> int:
    """Returns the size of an answer as far as it is known before any work: that of bits, logits and ids. `AnswerRoom`
    counts the other forms while they are made. Refuses what would not fit into one answer (ANSWER_TOO_LARGE)."""
    prompts, output = query.prompts, query.output
    mask_bytes = 0
    if types_pb2.MASK_FORMAT_PACKED_BITS in output.formats:
        mask_bytes += image.header.size.height * -(-image.header.size.width // 8)
    if types_pb2.MASK_FORMAT_LOGITS in output.formats:
        mask_bytes += image.predictor.config.mask_size**2 * LOGITS_DTYPES[output.logits_type].itemsize
    masks = _count_masks(query)
    ids_bytes = sum(len(prompt.prompt_id) for prompt in prompts)
    known_bytes = masks * mask_bytes + ids_bytes
    if known_bytes > MAX_ANSWER_BYTES:
        raise ResourceExhausted(
            "ANSWER_TOO_LARGE",
            f"{masks} masks of {mask_bytes} bytes and {ids_bytes} bytes of ids exceed an answer's {MAX_ANSWER_BYTES}. "
            "Ask for RLE, or for fewer prompts at once",
            field="output.formats",
        )
    return known_bytes


def _count_masks(query: Query) -> int:
    """Returns how many masks a query is answered with."""
    return sum(CANDIDATES if prompt.gives_all(query.output.every) else 1 for prompt in query.prompts)
