"""Masks of any size straight from low-resolution logits, as run lengths.

Bilinear upsampling is linear along a column between two source rows, so that the mask changes there at most once, and
only if the two rows differ in sign in that column. Only source cells whose corners differ are looked at: a few in a
hundred. The arithmetic is that of `torch.nn.functional.interpolate` (bilinear, align_corners False) in fp32, compiled
so that a product and a sum are rounded once: the mask is the same, bit by bit. For small masks torch adds in another
order, and they are made in full.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

_SMALL = 128
"""Width and height together up to which torch takes its other kernel (`_use_vectorized_kernel_cond_2d`)."""

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


def rle(logits: Floats, width: int, height: int) -> dict[str, Any]:
    """The mask of upsampled logits above 0, as COCO RLE.

    Args:
        logits: SxT fp32.
        width: Of the mask, in pixels.
        height: Likewise.

    Returns:
        {"size": [height, width], "counts": bytes}, as `pycocotools.mask.encode` gives it for the mask.
    """
    if width + height <= _SMALL:
        small: Any = coco.encode(np.asfortranarray(_upsampled(logits, width, height) > 0).view(np.uint8))
        return cast(dict[str, Any], small)
    ends = _changes(logits, width, height)
    if len(ends) and ends[-1] == width * height:
        ends = ends[:-1]
    counts: Any = np.diff(ends, prepend=0, append=width * height).astype(np.uint32)
    encoded: Any = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return cast(dict[str, Any], encoded)


@dataclass(frozen=True)
class _Axis:
    """Where the pixels of an axis lie between source samples.

    Attributes:
        weight: Weight of the source sample after each pixel, fp32.
        low: Index of the source sample before each pixel.
        first: For each source sample, and one beyond: the first pixel whose `low` is not less.
        scale: Source samples per pixel.
    """

    weight: Floats
    low: Integers
    first: Integers
    scale: np.float32

    @classmethod
    def of(cls, samples: int, pixels: int) -> "_Axis":
        """As `compute_source_index_and_lambda` in torch's UpSample.h."""
        scale = np.float32(samples) / np.float32(pixels)
        centres = np.arange(pixels, dtype=np.float32) + np.float32(0.5)
        place = _sum(centres, scale, np.float32(-0.5)).clip(min=0)
        low = np.minimum(place.astype(np.int64), samples - 1)
        weight = np.clip(place - low.astype(np.float32), 0, 1, dtype=np.float32)
        return cls(weight, low, np.searchsorted(low, np.arange(samples + 1)), scale)


def _sum(factor: Floats, other: Floats | np.float32, onto: Floats | np.float32) -> Floats:
    """factor * other + onto, rounded once."""
    return (factor.astype(np.float64) * other + onto).astype(np.float32)


def _between(before: Floats, after: Floats, weight: Floats) -> Floats:
    return _sum(before, np.float32(1) - weight, after * weight)


def _upsampled(logits: Floats, width: int, height: int) -> Floats:
    """As `cpu_upsample_linear_channels_last` in torch's UpSampleKernel.cpp."""
    rows, columns = logits.shape
    x, y = _Axis.of(columns, width), _Axis.of(rows, height)
    right, below = np.minimum(x.low + 1, columns - 1), np.minimum(y.low + 1, rows - 1)
    across, down = x.weight, y.weight[:, None]
    before, above = np.float32(1) - across, np.float32(1) - down
    total = above * across * logits[y.low][:, right]
    total = _sum(above * before, logits[y.low][:, x.low], total)
    total = _sum(down * before, logits[below][:, x.low], total)
    return _sum(down * across, logits[below][:, right], total)


def _changes(logits: Floats, width: int, height: int) -> Integers:
    """Where the mask, read column by column, goes from outside to inside, back, and so on; in increasing order."""
    rows, columns = logits.shape
    x, y = _Axis.of(columns, width), _Axis.of(rows, height)
    after = np.minimum(np.arange(columns) + 1, columns - 1)
    top, bottom = (_between(row[x.low], row[after[x.low]], x.weight) for row in (logits[0], logits[-1]))
    # Each column starts and ends outside. What changes twice at one place does not change.
    starts, ends = np.flatnonzero(top > 0) * height, np.flatnonzero(bottom > 0) * height + height
    changes, times = np.unique(np.concatenate([starts, _crossings(logits, x, y, after), ends]), return_counts=True)
    odd: Integers = changes[times % 2 == 1]
    return odd


def _crossings(logits: Floats, x: _Axis, y: _Axis, after: Integers) -> Integers:
    """Where columns change sign between their first and last source row."""
    inside = logits > 0
    sides = inside.view(np.int8) + inside[:, after]  # of the samples left and right of a cell: 0 to 2
    corners = sides[:-1] + sides[1:]
    row, column = np.nonzero((corners > 0) & (corners < 4))
    # One entry for each such cell and pixel column in it.
    columns = x.first[column + 1] - x.first[column]
    cell = np.repeat(np.arange(len(row)), columns)
    pixel = np.arange(len(cell)) + np.repeat(x.first[column] - (np.cumsum(columns) - columns), columns)
    weight, row_of, left, right = x.weight[pixel], row[cell], column[cell], after[column][cell]
    top = _between(logits[row_of, left], logits[row_of, right], weight)
    bottom = _between(logits[row_of + 1, left], logits[row_of + 1, right], weight)
    crossed = np.flatnonzero((top > 0) != (bottom > 0))
    top, bottom, row_of, pixel = top[crossed], bottom[crossed], row_of[crossed], pixel[crossed]
    start, end = y.first[row_of], y.first[row_of + 1]

    # The first pixel below the crossing: by division first, then by the pixels' own arithmetic.
    def below(at: Integers) -> NDArray[np.bool_]:
        value = _between(top, bottom, y.weight[at.clip(0, len(y.weight) - 1)])
        return np.equal(value > 0, bottom > 0)

    place = (row_of + top / (top - bottom) + 0.5) / y.scale - 0.5
    found = np.ceil(place).astype(np.int64).clip(start, end)
    while (early := (found > start) & below(found - 1)).any():
        found -= early
    while (late := (found < end) & ~below(found)).any():
        found += late
    return np.asarray(pixel * len(y.weight) + found)
