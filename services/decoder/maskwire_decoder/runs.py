"""Masks of any size straight from low-resolution logits, as run lengths.

Bilinear upsampling is linear along a column between two source rows, so that the mask changes there at most once, and
only if the two rows differ in sign in that column. Only source cells whose corners differ are looked at: a few in a
hundred. The arithmetic is torch's (`maskwire_core.bilinear`): the mask is the same, bit by bit.
"""

from typing import Any, cast

import numpy as np
from maskwire_core.bilinear import Axis, Floats, Integers, between, enlarge, is_small
from numpy.typing import NDArray
from pycocotools import mask as coco


def rle(logits: Floats, width: int, height: int) -> dict[str, Any]:
    """The mask of upsampled logits above 0, as COCO RLE.

    Args:
        logits: SxT fp32.
        width: Of the mask, in pixels.
        height: Likewise.

    Returns:
        {"size": [height, width], "counts": bytes}, as `pycocotools.mask.encode` gives it for the mask.
    """
    if is_small(width, height):  # torch adds in another order there
        small: Any = coco.encode(np.asfortranarray(enlarge(logits, width, height) > 0).view(np.uint8))
        return cast(dict[str, Any], small)
    ends = _changes(logits, width, height)
    if len(ends) and ends[-1] == width * height:
        ends = ends[:-1]
    counts: Any = np.diff(ends, prepend=0, append=width * height).astype(np.uint32)
    encoded: Any = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return cast(dict[str, Any], encoded)


def _changes(logits: Floats, width: int, height: int) -> Integers:
    """Where the mask, read column by column, goes from outside to inside, back, and so on; in increasing order."""
    rows, columns = logits.shape
    x, y = Axis.of(columns, width), Axis.of(rows, height)
    top, bottom = (between(row[x.low], row[x.high], x.weight) for row in (logits[0], logits[-1]))
    # Each column starts and ends outside. What changes twice at one place does not change.
    starts, ends = np.flatnonzero(top > 0) * height, np.flatnonzero(bottom > 0) * height + height
    changes, times = np.unique(np.concatenate([starts, _crossings(logits, x, y), ends]), return_counts=True)
    odd: Integers = changes[times % 2 == 1]
    return odd


def _crossings(logits: Floats, x: Axis, y: Axis) -> Integers:
    """Where columns change sign between their first and last source row."""
    after = np.minimum(np.arange(logits.shape[1]) + 1, logits.shape[1] - 1)
    inside = logits > 0
    sides = inside.view(np.int8) + inside[:, after]  # of the samples left and right of a cell: 0 to 2
    corners = sides[:-1] + sides[1:]
    row, column = np.nonzero((corners > 0) & (corners < 4))
    # One entry for each such cell and pixel column in it.
    columns = x.first[column + 1] - x.first[column]
    cell = np.repeat(np.arange(len(row)), columns)
    pixel = np.arange(len(cell)) + np.repeat(x.first[column] - (np.cumsum(columns) - columns), columns)
    weight, row_of, left, right = x.weight[pixel], row[cell], column[cell], after[column][cell]
    top = between(logits[row_of, left], logits[row_of, right], weight)
    bottom = between(logits[row_of + 1, left], logits[row_of + 1, right], weight)
    crossed = np.flatnonzero((top > 0) != (bottom > 0))
    top, bottom, row_of, pixel = top[crossed], bottom[crossed], row_of[crossed], pixel[crossed]
    start, end = y.first[row_of], y.first[row_of + 1]

    # The first pixel below the crossing: by division first, then by the pixels' own arithmetic.
    def below(at: Integers) -> NDArray[np.bool_]:
        value = between(top, bottom, y.weight[at.clip(0, len(y.weight) - 1)])
        return np.equal(value > 0, bottom > 0)

    place = (row_of + top / (top - bottom) + 0.5) / y.scale - 0.5
    found = np.ceil(place).astype(np.int64).clip(start, end)
    while (early := (found > start) & below(found - 1)).any():
        found -= early
    while (late := (found < end) & ~below(found)).any():
        found += late
    return np.asarray(pixel * len(y.weight) + found)
