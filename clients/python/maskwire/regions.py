"""Regions: parts of large pictures that the model sees at its full resolution."""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maskwire.errors import InvalidRequest, bad_answer
from maskwire.rle import bounding_box
from maskwire.v1 import types_pb2

Region = Literal["auto"] | Sequence[int] | NDArray[Any]
"""A region as callers give it."""
Place = tuple[int, int, int, int]
"""Where a region is: x_min, y_min, x_max, y_max in whole pixels of the image."""

_FILLED = 0.5  # largest share of a region's side that the object takes; the smallest is a square root of 2 less
_LEAST_PX = 192  # a smaller region would be enlarged more than the model has ever seen
_FARTHER = 4  # how much larger the next region is in which clicks are answered
MOST = 0.7  # share of the image's longer side from which on a region shows little more than the image
_STEPS = 8  # regions of a size lie so many to a side, so that prompts near one another share one


def check_region(value: Any) -> Literal["auto"] | Place | None:
    """Checks the argument `region`.

    Raises:
        InvalidRequest: BAD_REGION.
    """
    if value is None:
        return None
    if isinstance(value, str) and value == "auto":
        return "auto"
    try:
        if isinstance(value, str):  # its characters are no sides
            raise TypeError
        sides = [float(side) for side in value]
        left, top, right, bottom = (int(side) for side in sides)
    except (TypeError, ValueError, OverflowError):
        left = top = right = bottom = -1
        sides = []
    if sides != [left, top, right, bottom] or not (0 <= left < right and 0 <= top < bottom):
        raise InvalidRequest(
            f"a region is 'auto' or (x_min, y_min, x_max, y_max) in whole pixels; got {value!r}", "BAD_REGION", "region"
        )
    return left, top, right, bottom


def extent_of(prompt: types_pb2.Prompt) -> NDArray[np.float64] | None:
    """Returns the box around all that a prompt has, x_min, y_min, x_max, y_max; None if it has nothing.

    Raises:
        InvalidRequest: BAD_REGION: it has logits, which belong to the picture or the region that they were made for.
    """
    if prompt.HasField("mask"):
        raise InvalidRequest(
            "logits belong to what they were made from; give the mask itself (Result.mask), or the region they are of",
            "BAD_REGION",
            "region",
        )
    corners = [(point.x_px, point.y_px) for point in prompt.points]
    if prompt.HasField("box"):
        box = prompt.box
        corners += [(box.x_min_px, box.y_min_px), (box.x_max_px, box.y_max_px)]
    if prompt.HasField("mask_rle"):
        box_of_mask = box_of(prompt.mask_rle)
        corners += [box_of_mask[:2], box_of_mask[2:]] if any(box_of_mask) else []
    return np.concatenate([np.min(corners, axis=0), np.max(corners, axis=0)]) if corners else None


def box_of(rle: types_pb2.Rle) -> Place:
    """Returns the box around a mask that a server sent or has checked, without making its pixels: x_min, y_min, x_max,
    y_max, as `Result.box`; zeros if it is empty.

    Raises:
        MaskwireError: BAD_ANSWER: it is not compressed run lengths.
    """
    box = bounding_box(rle.counts, rle.size[0] if rle.size else 0)
    if box is None:
        raise bad_answer("a mask is no run lengths")
    return box


async def choose_regions(
    prompts: Sequence[types_pb2.Prompt],
    size: tuple[int, int],
    look: Callable[[Place, Sequence[types_pb2.Prompt]], Awaitable[Sequence[Place]]],
) -> list[Place | None]:
    """Chooses a region for each prompt. Around its box or its mask, if it has one. Clicks alone do not say how large
    their object is: they are answered from near by, then from four times as far each time, until the mask lies within
    the region; then it is around clicks and mask.

    Args:
        prompts: The prompts.
        size: Width and height of the image in pixels.
        look: Answers prompts in a region: returns the box around the best mask of each, x_min, y_min, x_max, y_max in
            pixels of the image; zeros for an empty mask.

    Returns:
        The regions; None where the whole image does as well, and for prompts without clicks, box and mask.

    Raises:
        InvalidRequest: BAD_REGION: a prompt has logits.
    """
    extents = [extent_of(prompt) for prompt in prompts]
    chosen = [None if extent is None else choose_region(*size, extent) for extent in extents]
    unsure = {
        index: extent
        for index, (prompt, extent) in enumerate(zip(prompts, extents, strict=True))
        if extent is not None and not prompt.HasField("box") and not prompt.HasField("mask_rle")
    }
    least = _LEAST_PX
    while unsure:
        looks: dict[Place, list[int]] = {}
        for index, extent in list(unsure.items()):
            place = chosen[index] = choose_region(*size, extent, least)
            if place is None:
                del unsure[index]
            else:
                looks.setdefault(place, []).append(index)
        for place, indices in looks.items():
            for index, box in zip(indices, await look(place, [prompts[each] for each in indices]), strict=True):
                if _lies_within(box, place, size):
                    extent = unsure.pop(index)
                    low, high = np.minimum(extent[:2], box[:2]), np.maximum(extent[2:], box[2:])
                    chosen[index] = choose_region(*size, np.concatenate([low, high]))
        least *= _FARTHER
    return chosen


def _lies_within(box: Place, place: Place, size: tuple[int, int]) -> bool:
    """Whether a mask that was found in a region ends before the region does, except where the image ends."""
    starts = all(low == 0 or box[axis] > low for axis, low in enumerate(place[:2]))
    ends = all(high == size[axis] or box[2 + axis] < high for axis, high in enumerate(place[2:]))
    return any(box) and starts and ends


def choose_region(width: int, height: int, extent: NDArray[np.float64], least: float = _LEAST_PX) -> Place | None:
    """Chooses the region of an image in which something is to be segmented: a square around it, of whose side it takes
    a third to a half.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        extent: Box around the object and its prompt: x_min, y_min, x_max, y_max.
        least: Least side of the region in pixels.

    Returns:
        The region, smaller than that only where the image is; None where it would not be much smaller than the image.
    """
    needed = max(*(extent[2:] - extent[:2]) / _FILLED, least)
    side = round(_LEAST_PX * 2 ** (math.ceil(2 * math.log2(needed / _LEAST_PX) - 1e-9) / 2))
    if side > MOST * max(width, height):
        return None
    starts = []
    for length, low, high in zip((width, height), extent[:2], extent[2:], strict=True):
        start = round(((low + high) / 2 - side / 2) * _STEPS / side) * side / _STEPS
        starts.append(max(0, min(round(start), length - side)))
    return starts[0], starts[1], min(starts[0] + side, width), min(starts[1] + side, height)
