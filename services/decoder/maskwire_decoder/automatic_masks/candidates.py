"""Candidates of automatic masks: masks that passed the filters of a single mask, and which of them are duplicates."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core.models.decoder_bundle import MaskDefaults
from numpy.typing import NDArray
from pycocotools import mask as coco

from maskwire_decoder.automatic_masks import nms

_CANDIDATE_BYTES = 1024  # memory of a candidate's objects, beside its counts


@dataclass(eq=False)
class Crop:
    """A part of the image that is being segmented, or has been."""

    box: NDArray[np.float32]  # 4 fp32, where it lies in the whole image
    width: int  # of the whole image in pixels
    height: int  # of the whole image in pixels
    found: "list[Candidate]" = field(default_factory=list)  # the candidates so far
    distinct: "list[Candidate]" = field(default_factory=list)  # those that stay without duplicates within the part


@dataclass(eq=False)
class Candidate:
    """A mask that passed the filters that look at one mask alone."""

    crop: Crop  # the part of the image that it was found in
    place: tuple[int, int]  # its place in the reference's order: index of the click, then of the mask
    counts: str  # counts of its COCO RLE, of the whole image's size
    area: int  # number of pixels inside
    box: NDArray[np.float32]  # 4 fp32, x and y of the outermost pixels inside, in pixels of the whole image
    iou: np.float32  # the IoU that the model predicts
    stability: np.float32  # IoU of the masks at a raised and a lowered threshold
    point: NDArray[np.float32]  # x and y of the click in pixels of the whole image
    number: int = -1  # number under which it was sent; negative before

    @property
    def nbytes(self) -> int:
        """Its memory in bytes."""
        return len(self.counts) + _CANDIDATE_BYTES

    def message(self) -> pb.GeneratedMask:
        return pb.GeneratedMask(
            number=self.number,
            rle=types_pb2.Rle(size=(self.crop.height, self.crop.width), counts=self.counts),
            area_px=self.area,
            box=_message(self.box),
            predicted_iou=float(self.iou),
            stability_score=float(self.stability),
            point=types_pb2.Point(x_px=float(self.point[0]), y_px=float(self.point[1])),
            crop_box=_message(self.crop.box),
        )


def without_duplicates(crops: Sequence[Crop], thresholds: MaskDefaults, has_several: bool) -> list[Candidate]:
    """Returns the candidates so far that are not duplicates, in the reference's order.

    Args:
        crops: The parts so far. Only the last one has new candidates since the call before.
        thresholds: Above which IoU of their boxes masks are duplicates.
        has_several: Whether the image is segmented in several parts, of which candidates may be duplicates, too.
    """
    latest = crops[-1]
    candidates = sorted(latest.found, key=lambda candidate: candidate.place)
    ious = np.array([candidate.iou for candidate in candidates], np.float32)
    kept = nms.distinct(_boxes(candidates), ious, thresholds.box_nms_thresh)
    latest.distinct = [candidates[index] for index in kept]
    together = [candidate for crop in crops for candidate in crop.distinct]
    if not has_several:
        return together
    areas = nms.area(np.array([candidate.crop.box for candidate in together], np.float32).reshape(-1, 4))
    kept = nms.distinct(_boxes(together), np.float32(1) / areas, thresholds.crop_nms_thresh)
    return [together[index] for index in kept]


def box_of(runs: Any) -> NDArray[np.float32]:
    """Returns the outermost pixels of a mask, x_min, y_min, x_max, y_max; zeros for an empty mask, as
    `batched_mask_to_box` of sam2.

    Args:
        runs: Its COCO RLE, as pycocotools has it.
    """
    if not coco.area(runs):
        return np.zeros(4, np.float32)
    x, y, width, height = coco.toBbox(runs)
    return np.array([x, y, x + width - 1, y + height - 1], np.float32)


def _boxes(candidates: Sequence[Candidate]) -> NDArray[np.float32]:
    return np.array([candidate.box for candidate in candidates], np.float32).reshape(-1, 4)


def _message(box: NDArray[np.float32]) -> types_pb2.Box:
    x_min, y_min, x_max, y_max = map(float, box)
    return types_pb2.Box(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max)
