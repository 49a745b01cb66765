"""Automatic masks: a grid of clicks, of whose masks the good and distinct ones are kept.

The algorithm is that of sam2.automatic_mask_generator, which gives the same masks.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Hashable
from dataclasses import replace
from typing import Any

import numpy as np
from maskwire.v1 import decoder_pb2 as pb
from maskwire_core.call_context import current
from maskwire_core.errors import InvalidArgument, ResourceExhausted
from maskwire_core.masks.answer_room import MAX_ANSWER_BYTES
from maskwire_core.masks.geometry import ImageSize, Rectangle, parse_box
from maskwire_core.masks.rle import placed, rle
from maskwire_core.models.decoder_bundle import CANDIDATES, MaskDefaults
from maskwire_core.scheduling.byte_budget import Account
from numpy.typing import NDArray
from pycocotools import mask as coco

from maskwire_decoder.automatic_masks import nms
from maskwire_decoder.automatic_masks.candidates import Candidate, Crop, box_of, without_duplicates
from maskwire_decoder.automatic_masks.params import DEFAULT_BATCH, Part, count_points, parse_parts, parse_thresholds
from maskwire_decoder.automatic_masks.summary import Removed, Tally
from maskwire_decoder.images import Image
from maskwire_decoder.masks.rendering import clamp, without_specks
from maskwire_decoder.messages import image_message, timings_message
from maskwire_decoder.prompts.parsing import Prompt
from maskwire_decoder.segmenter import Segmenter, demand_for
from maskwire_decoder.stages import MASK, Answer, Timings, decode, timed


class Generator:
    """Answers one call of GenerateMasks.

    Clicks are made in a random order (the same each time), so that the first masks come from all over the image, and
    put into the reference's order for everything that depends on it.

    Args:
        segmenter: Finds images and has the worker threads.
        connection: Where the request came from; see `Requester`.
        request: The request.

    Raises:
        InvalidArgument: A parameter is wrong.
    """

    def __init__(self, segmenter: Segmenter, connection: Hashable, request: pb.GenerateMasksRequest) -> None:
        self._segmenter = segmenter
        self._connection = connection
        self._request = request
        self._multimask = request.multimask if request.HasField("multimask") else True
        self._thresholds = parse_thresholds(request, MaskDefaults())  # the model's own once it is known
        self._tally = Tally()
        self._batch = request.points_per_batch or DEFAULT_BATCH
        self._total = count_points(request, segmenter.generation_limits)
        self._parts: list[Part] = []
        self._timings = Timings()
        self._crops: list[Crop] = []
        self._masks = 0  # candidates in all crops
        self._memory: Account | None = None  # theirs, from the first image on
        self._sent = 0
        self._counting: dict[Candidate, None] = {}

    async def generate(self) -> AsyncIterator[pb.GenerateMasksResponse]:
        """Yields the changes after each batch of clicks, and with the last one the masks that stay."""
        try:
            async with contextlib.aclosing(self._generate()) as responses:
                async for response in responses:
                    yield response
        finally:
            if self._memory is not None:
                self._memory.close()

    async def _generate(self) -> AsyncGenerator[pb.GenerateMasksResponse]:
        started = time.perf_counter()
        whole: pb.SegmentedImage | None = None
        done, scheduler = 0, self._segmenter.scheduler
        decodes_per_click = 1 + self._request.use_m2m * (CANDIDATES if self._multimask else 1)
        current().caller.charge(requests=self._total * decodes_per_click)
        # What takes longer for more clicks or more masks runs on threads: the event loop is everybody's.
        self._parts = await asyncio.to_thread(parse_parts, self._request)
        for index, part in enumerate(self._parts):
            found = await self._segmenter.find(part.source)
            image = found.image
            self._timings += found.timings
            if whole is None:
                whole = image_message(found)
                self._memory = self._segmenter.generated.account(image.header.namespace)
                self._thresholds = parse_thresholds(self._request, image.predictor.config.everything)
            self._crops.append(_begin(part, f"crops[{index - 1}]", image, whole))
            grid, order = await asyncio.to_thread(_grid_and_order, part)
            demand = demand_for(image, self._connection, bulk=True)
            for start in range(0, len(order), self._batch):
                clicks = order[start : start + self._batch]
                await self._click(image, grid[clicks], clicks)
                await self._segmenter.confirm(image)
                done += len(clicks)
                served = await scheduler.run(demand, self._respond, done)
                response = served.result
                response.image.CopyFrom(whole)
                response.timings.CopyFrom(
                    timings_message(self._timings, (time.perf_counter() - started) * 1e3, found.in_memory)
                )
                yield response

    async def _click(self, image: Image, points: NDArray[np.float64], places: NDArray[np.int64]) -> None:
        """Decodes some clicks and adds their candidates. No more of them wait than keep the worker threads busy."""
        demand = demand_for(image, self._connection, bulk=True)
        scheduler = self._segmenter.scheduler
        clicks = iter(zip(points, places.tolist(), strict=True))

        async def work() -> None:
            for point, place in clicks:
                served = await scheduler.run(demand, self._candidates, image, point, place)
                masks, timings = served.result
                self._add([mask for mask in masks if isinstance(mask, Candidate)])
                self._tally.add(len(masks), [mask for mask in masks if isinstance(mask, Removed)])
                self._timings += timings + Timings(served.waited_ms)

        tasks = [asyncio.create_task(work()) for _ in range(min(scheduler.at_once + 1, len(points)))]
        try:
            await asyncio.gather(*tasks)
        finally:  # after an error or a cancel, what still waits is not decoded
            for task in tasks:
                task.cancel()

    def _add(self, found: list[Candidate]) -> None:
        assert self._memory is not None
        limits = self._segmenter.generation_limits
        self._masks += len(found)
        nbytes = sum(mask.nbytes for mask in found)
        if self._masks > limits.masks or self._memory.nbytes + nbytes > limits.nbytes:
            raise ResourceExhausted(
                "TOO_MANY_MASKS",
                f"{self._masks} masks of {(self._memory.nbytes + nbytes) >> 20} MiB were found so far; at most "
                f"{limits.masks} of {limits.nbytes >> 20} MiB fit in one call. Raise pred_iou_thresh or "
                "stability_score_thresh, or click less densely",
                field="pred_iou_thresh",
            )
        self._memory.take(nbytes)
        self._crops[-1].found += found

    def _candidates(
        self, image: Image, fractions: NDArray[np.float64], place: int
    ) -> tuple[list[Candidate | Removed], Timings]:
        """Decodes a click and filters its masks. Runs on a worker thread."""
        size = image.header.width, image.header.height
        point = (fractions * np.array(size)).astype(np.float32)
        prompt = Prompt("", point[None], np.ones(1, np.int64), multimask=self._multimask)
        decoded = decode(image, prompt, every=True)
        (prediction,), timings = decoded.predictions, decoded.timings
        masks = list(zip(prediction.logits, prediction.iou, strict=True))
        if self._request.use_m2m:
            again = [replace(prompt, mask=clamp(logits), multimask=False) for logits, _ in masks]
            refined = sum((decode(image, each, every=True) for each in again), Answer())
            masks, timings = [(each.logits[0], each.iou[0]) for each in refined.predictions], timings + refined.timings

        def filtered() -> list[Candidate | Removed]:
            return [self._filter(size, point, (place, number), *mask) for number, mask in enumerate(masks)]

        found, mask_ms = timed(MASK, filtered)
        return found, timings + Timings(mask_ms=mask_ms)

    def _filter(
        self,
        size: tuple[int, int],
        point: NDArray[np.float32],
        place: tuple[int, int],
        logits: NDArray[np.float32],
        iou: np.float32,
    ) -> Candidate | Removed:
        request, thresholds, crop = self._request, self._thresholds, self._crops[-1]
        if thresholds.pred_iou_thresh > 0 and not iou > np.float32(thresholds.pred_iou_thresh):
            return Removed("low_predicted_iou", float(iou))
        logits = without_specks(logits, 0, request.min_mask_region_area, request.min_mask_region_area)

        def above(threshold: float) -> Any:
            return rle(logits - np.float32(threshold), *size)

        inner = coco.area(above(request.mask_threshold + thresholds.stability_score_offset))
        outer = coco.area(above(request.mask_threshold - thresholds.stability_score_offset))
        stability = np.float32(inner) / np.float32(outer) if outer else np.float32(0)
        if thresholds.stability_score_thresh > 0 and not stability >= np.float32(thresholds.stability_score_thresh):
            return Removed("low_stability", float(stability) if outer else 0)
        runs = above(request.mask_threshold)
        x, y = crop.box[:2]
        box = box_of(runs) + np.array([x, y, x, y], np.float32)
        if nms.near_crop_edge(box, crop.box, crop.width, crop.height):
            return Removed("at_crop_edge")
        within = ImageSize(crop.width, crop.height, Rectangle(int(x), int(y), *size))
        counts = placed(runs, within)["counts"].decode()
        return Candidate(crop, place, counts, int(coco.area(runs)), box, iou, stability, point + crop.box[:2])

    def _respond(self, done: int) -> pb.GenerateMasksResponse:
        """Returns how the masks that count differ from those of the response before, and at the end which masks stay.
        Runs on a worker thread.

        Args:
            done: Clicks made so far.

        Raises:
            ResourceExhausted: ANSWER_TOO_LARGE.
        """
        kept = without_duplicates(self._crops, self._thresholds, len(self._parts) > 1)
        response = pb.GenerateMasksResponse(points_done=done, points_total=self._total)
        now = dict.fromkeys(kept)
        response.dropped.extend(candidate.number for candidate in self._counting if candidate not in now)
        new = [candidate for candidate in kept if candidate.number < 0]
        nbytes = sum(len(candidate.counts) for candidate in new)
        if nbytes > MAX_ANSWER_BYTES:
            raise ResourceExhausted(
                "ANSWER_TOO_LARGE",
                f"{len(new)} masks of {nbytes} bytes exceed a response's {MAX_ANSWER_BYTES}; ask for responses more "
                "often",
                field="points_per_batch",
            )
        response.revived.extend(mask.number for mask in kept if mask.number >= 0 and mask not in self._counting)
        for candidate in new:
            candidate.number = self._sent
            self._sent += 1
            response.found.append(candidate.message())
        self._counting = now
        if done == self._total:
            response.is_last = True
            response.kept.extend(candidate.number for candidate in kept)
            response.summary.CopyFrom(self._tally.summary(self._thresholds, self._total, len(kept)))
        return response


def _grid_and_order(part: Part) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns the clicks of a part, and the order in which they are made."""
    grid = part.grid
    return grid, np.random.default_rng(0).permutation(len(grid))


def _begin(part: Part, path: str, image: Image, whole: pb.SegmentedImage) -> Crop:
    size = np.array([0, 0, image.header.width, image.header.height], np.float32)
    if part.box is None:
        region = image.header.size.region
        corner = [] if region is None else [*region[:2], *region[:2]]
        return Crop(size + np.array(corner or [0] * 4, np.float32), whole.width_px, whole.height_px)
    box = parse_box(part.box, f"{path}.box", ImageSize(whole.width_px, whole.height_px))
    if (box[2:] - box[:2] != size[2:]).any() or (box != np.rint(box)).any():
        raise InvalidArgument(
            "BAD_CROP",
            f"the image {part.source.image_id!r} is {size[2]:.0f}x{size[3]:.0f} px; its box must be of that size, "
            "in whole pixels",
            field=f"{path}.box",
        )
    return Crop(box, whole.width_px, whole.height_px)
