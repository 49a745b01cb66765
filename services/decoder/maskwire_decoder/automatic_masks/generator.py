"""Everything in an image: a grid of clicks, and of their masks the good and distinct ones.

The steps and their order are those of sam2.automatic_mask_generator, from which the same masks come.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core.errors import InvalidArgument
from maskwire_core.models.decoder_bundle import MaskDefaults
from maskwire_core.tenancy import tenant
from numpy.typing import NDArray
from pycocotools import mask as coco

from maskwire_decoder.automatic_masks import nms
from maskwire_decoder.automatic_masks.params import Part, Rules, read_parts
from maskwire_decoder.automatic_masks.summary import Removed, Tally
from maskwire_decoder.images import Image
from maskwire_decoder.masks.rendering import clamp, without_specks
from maskwire_decoder.masks.rle import rle
from maskwire_decoder.prompts.encoding import Prediction
from maskwire_decoder.prompts.parsing import Prompt, read_box
from maskwire_decoder.segmenter import Segmenter, describe


@dataclass(eq=False)
class Candidate:
    """A mask that is good enough by itself.

    Attributes:
        place: In the reference's order: index of the click, then of the mask.
        counts: COCO RLE of the whole image's size.
        area: Pixels inside.
        box: 4 fp32, x and y of the outermost pixels inside, in pixels of the whole image.
        iou: Predicted by the model.
        stability: IoU of the masks at a raised and a lowered threshold.
        point: x and y in pixels of the whole image.
        number: Under which it was sent; negative before.
    """

    place: tuple[int, int]
    counts: str
    area: int
    box: NDArray[np.float32]
    iou: np.float32
    stability: np.float32
    point: NDArray[np.float32]
    number: int = -1

    def message(self, crop: "_Crop") -> pb.GeneratedMask:
        return pb.GeneratedMask(
            number=self.number,
            rle=types_pb2.Rle(size=(crop.height, crop.width), counts=self.counts),
            area_px=self.area,
            box=_message(self.box),
            predicted_iou=float(self.iou),
            stability_score=float(self.stability),
            point=types_pb2.Point(x_px=float(self.point[0]), y_px=float(self.point[1])),
            crop_box=_message(crop.box),
        )


@dataclass(eq=False)
class _Crop:
    """A part that is being segmented, or has been.

    Attributes:
        box: 4 fp32, where it lies in the whole image.
        width: Of the whole image.
        height: Likewise.
        found: Masks that are good enough.
        distinct: What stays of them.
    """

    box: NDArray[np.float32]
    width: int
    height: int
    found: list[Candidate] = field(default_factory=list)
    distinct: list[Candidate] = field(default_factory=list)


class Generator:
    """One call of GenerateMasks.

    Clicks are made in a random order (the same each time), so that the first masks come from all over the image, and
    put into the reference's order for everything that depends on it.

    Args:
        segmenter: Images and worker threads.
        caller: Whose turns are taken.
        request: What is asked.

    Raises:
        InvalidArgument: A parameter is wrong.
    """

    def __init__(self, segmenter: Segmenter, caller: Hashable, request: pb.GenerateMasksRequest) -> None:
        self._segmenter = segmenter
        self._caller = caller
        self._request = request
        self._rules = Rules.read(request, MaskDefaults())  # those of the image's model once it is known
        self._tally = Tally()
        self._batch = request.points_per_batch or 64
        self._parts = list(read_parts(request))
        self._timings = pb.SegmentTimings()
        self._crops: list[_Crop] = []
        self._sent = 0
        self._counting: dict[Candidate, None] = {}

    async def run(self) -> AsyncIterator[pb.GenerateMasksResponse]:
        """Yields what each batch of clicks has brought, and with the last what stays in the end."""
        started = time.perf_counter()
        whole: pb.SegmentedImage | None = None
        done, total = 0, sum(len(part.grid) for part in self._parts)
        tenant.current().charge(requests=total)
        for index, part in enumerate(self._parts):
            image = await self._segmenter.find(part.source, self._timings)
            if whole is None:
                whole = describe(image, part.source.image_id)
                self._rules = Rules.read(self._request, image.predictor.config.everything)
            self._crops.append(_begin(part, f"crops[{index - 1}]", image, whole))
            order = np.random.default_rng(0).permutation(len(part.grid))
            for start in range(0, len(order), self._batch):
                clicks = order[start : start + self._batch]
                await self._click(image, part.grid[clicks], clicks)
                done += len(clicks)
                kept = await asyncio.to_thread(self._keep)
                response = self._response(kept)
                if done == total:
                    response.is_last = True
                    response.kept.extend(candidate.number for _, candidate in kept)
                    response.summary.CopyFrom(self._tally.summary(self._rules, total, len(kept)))
                response.points_done, response.points_total = done, total
                response.image.CopyFrom(whole)
                response.timings.CopyFrom(self._timings)
                response.timings.total_ms = (time.perf_counter() - started) * 1e3
                yield response

    async def _click(self, image: Image, points: NDArray[np.float64], places: NDArray[np.int64]) -> None:
        """Adds the candidates of some clicks. No more of them wait than keep the worker threads busy."""
        free = asyncio.Semaphore(self._segmenter.turns.threads + 1)

        async def click(point: NDArray[np.float64], place: int) -> None:
            async with free:
                (masks, decode_ms, mask_ms), queue_ms = await self._segmenter.turns.run(
                    self._caller, False, self._candidates, image, point, place
                )
            found = [mask for mask in masks if isinstance(mask, Candidate)]
            self._crops[-1].found += found
            self._tally.add(len(masks), [mask for mask in masks if isinstance(mask, Removed)])
            self._timings.queue_ms += queue_ms
            self._timings.decode_ms += decode_ms
            self._timings.mask_ms += mask_ms

        tasks = [asyncio.create_task(click(*each)) for each in zip(points, places.tolist(), strict=True)]
        try:
            await asyncio.gather(*tasks)
        finally:  # after an error or a cancel, what still waits is not decoded
            for task in tasks:
                task.cancel()

    def _candidates(
        self, image: Image, fractions: NDArray[np.float64], place: int
    ) -> tuple[list[Candidate | Removed], float, float]:
        """The masks of one click, and the milliseconds that decoding and judging them took. Runs on a worker thread."""
        started = time.perf_counter()
        width, height = image.header.width, image.header.height
        point = (fractions * np.array([width, height])).astype(np.float32)
        prompt = Prompt("", point[None], np.ones(1, np.int64), None, None)

        def predict(prompt: Prompt, multimask: bool) -> Prediction:
            return image.predictor.predict(image.prepared, prompt, width, height, multimask=multimask)

        prediction = predict(prompt, self._rules.multimask)
        masks = list(zip(prediction.logits, prediction.iou, strict=True))
        if self._rules.use_m2m:
            refined = [predict(replace(prompt, mask=clamp(logits)), False) for logits, _ in masks]
            masks = [(again.logits[0], again.iou[0]) for again in refined]
        decoded = time.perf_counter()
        judged = [
            self._judge(width, height, point, (place, number), logits, iou)
            for number, (logits, iou) in enumerate(masks)
        ]
        return judged, (decoded - started) * 1e3, (time.perf_counter() - decoded) * 1e3

    def _judge(
        self,
        width: int,
        height: int,
        point: NDArray[np.float32],
        place: tuple[int, int],
        logits: NDArray[np.float32],
        iou: np.float32,
    ) -> Candidate | Removed:
        rules, crop = self._rules, self._crops[-1]
        if rules.pred_iou_thresh > 0 and not iou > np.float32(rules.pred_iou_thresh):
            return Removed("low_predicted_iou", float(iou))
        logits = without_specks(logits, 0, rules.min_mask_region_area, rules.min_mask_region_area)

        def above(threshold: float) -> Any:
            return rle(logits - np.float32(threshold), width, height)

        inner = coco.area(above(rules.mask_threshold + rules.stability_score_offset))
        outer = coco.area(above(rules.mask_threshold - rules.stability_score_offset))
        stability = np.float32(inner) / np.float32(outer) if outer else np.float32(0)
        if rules.stability_score_thresh > 0 and not stability >= np.float32(rules.stability_score_thresh):
            return Removed("low_stability", float(stability) if outer else 0)
        runs = above(rules.mask_threshold)
        x, y = crop.box[:2]
        box = _box(runs) + np.array([x, y, x, y], np.float32)
        if nms.near_crop_edge(box, crop.box, crop.width, crop.height):
            return Removed("at_crop_edge")
        counts = _on_canvas(runs, int(x), int(y), crop.width, crop.height)["counts"].decode()
        return Candidate(place, counts, int(coco.area(runs)), box, iou, stability, point + crop.box[:2])

    def _keep(self) -> list[tuple[_Crop, Candidate]]:
        """What stays of all candidates so far, in the reference's order."""
        latest = self._crops[-1]
        candidates = sorted(latest.found, key=lambda candidate: candidate.place)
        ious = np.array([candidate.iou for candidate in candidates], np.float32)
        kept = nms.distinct(_boxes(candidates), ious, self._rules.box_nms_thresh)
        latest.distinct = [candidates[index] for index in kept]
        together = [(crop, candidate) for crop in self._crops for candidate in crop.distinct]
        if len(self._parts) == 1:
            return together
        areas = nms.area(np.array([crop.box for crop, _ in together], np.float32).reshape(-1, 4))
        kept = nms.distinct(_boxes([each for _, each in together]), np.float32(1) / areas, self._rules.crop_nms_thresh)
        return [together[index] for index in kept]

    def _response(self, kept: list[tuple[_Crop, Candidate]]) -> pb.GenerateMasksResponse:
        """How what counts differs from what was said before."""
        response = pb.GenerateMasksResponse()
        now = {candidate: None for _, candidate in kept}
        response.dropped.extend(candidate.number for candidate in self._counting if candidate not in now)
        for crop, candidate in kept:
            if candidate.number < 0:
                candidate.number = self._sent
                self._sent += 1
                response.found.append(candidate.message(crop))
            elif candidate not in self._counting:
                response.revived.append(candidate.number)
        self._counting = now
        return response


def _begin(part: Part, path: str, image: Image, whole: pb.SegmentedImage) -> _Crop:
    size = np.array([0, 0, image.header.width, image.header.height], np.float32)
    if part.box is None:
        return _Crop(size, whole.width_px, whole.height_px)
    box = read_box(part.box, f"{path}.box", whole.width_px, whole.height_px)
    if (box[2:] - box[:2] != size[2:]).any() or (box != np.rint(box)).any():
        raise InvalidArgument(
            "BAD_CROP",
            f"the image {part.source.image_id!r} is {size[2]:.0f}x{size[3]:.0f} px; its box must be of that size, "
            "in whole pixels",
            field=f"{path}.box",
        )
    return _Crop(box, whole.width_px, whole.height_px)


def _boxes(candidates: Sequence[Candidate]) -> NDArray[np.float32]:
    return np.array([candidate.box for candidate in candidates], np.float32).reshape(-1, 4)


def _box(runs: Any) -> NDArray[np.float32]:
    """The outermost pixels of a mask: x_min, y_min, x_max, y_max; zeros for an empty mask, as batched_mask_to_box."""
    if not coco.area(runs):
        return np.zeros(4, np.float32)
    x, y, width, height = coco.toBbox(runs)
    return np.array([x, y, x + width - 1, y + height - 1], np.float32)


def _on_canvas(runs: Any, x: int, y: int, width: int, height: int) -> Any:
    """A crop's mask at its place in the whole image."""
    if runs["size"] == [height, width]:
        return runs
    mask = coco.decode(runs)
    canvas = np.zeros((height, width), np.uint8, order="F")
    canvas[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    return coco.encode(canvas)


def _message(box: NDArray[np.float32]) -> types_pb2.Box:
    x_min, y_min, x_max, y_max = map(float, box)
    return types_pb2.Box(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max)
