"""Run-length encodes masks of any size straight from low-resolution logits.

Bilinear upsampling is linear along a column between two source rows, so that the mask changes there at most once, and
only if the two rows differ in sign in that column. Only source cells whose corners differ are looked at: a few in a
hundred. The arithmetic is torch's (`maskwire.bilinear`): the mask is the same, bit by bit.
"""

from typing import Any, cast

import numpy as np
from maskwire.bilinear import Axis, Floats, Integers, between, enlarge, is_small
from maskwire.rle import run_lengths
from numpy.typing import NDArray
from pycocotools import mask as coco

from maskwire_core.masks.geometry import ImageSize

_TINY = 1e-30  # differences below are of numbers that may have lost digits


def rle(logits: Floats, width: int, height: int) -> dict[str, Any]:
    """Encodes the mask where upsampled logits are above 0 as COCO RLE.

    Args:
        logits: SxT fp32.
        width: Width of the mask in pixels.
        height: Height of the mask in pixels.

    Returns:
        {"size": [height, width], "counts": bytes}, as `pycocotools.mask.encode` gives it for the mask.
    """
    if is_small(width, height):  # torch adds in another order there
        small: Any = coco.encode(np.asfortranarray(enlarge(logits, width, height) > 0).view(np.uint8))
        return cast(dict[str, Any], small)
    return _encode(_changes(logits, width, height), width, height)


def placed(runs: dict[str, Any], size: ImageSize) -> dict[str, Any]:
    """Places the mask of a region in the whole image, without a pixel of either in memory.

    Args:
        runs: COCO RLE of the region's size.
        size: Size of the image, and the region.

    Returns:
        COCO RLE of the image's size; `runs` itself where the region is the image.
    """
    region = size.region
    if region is None or region[2:] == (size.width, size.height):
        return runs
    lengths = run_lengths(runs["counts"].decode())
    assert lengths is not None
    ends = np.cumsum(lengths)
    starts, ends = ends[0 : len(ends) - len(ends) % 2 : 2], ends[1::2]  # of the runs inside
    starts, ends = starts[ends > starts], ends[ends > starts]
    # A run is cut where a column of the region ends.
    first = starts // region.height
    columns = (ends - 1) // region.height - first + 1
    column = np.repeat(first - (np.cumsum(columns) - columns), columns) + np.arange(columns.sum())
    top = column * region.height
    moved = (column + region.x) * size.height + region.y - top
    cut_starts = np.maximum(np.repeat(starts, columns), top) + moved
    cut_ends = np.minimum(np.repeat(ends, columns), top + region.height) + moved
    return _encode(_odd(np.concatenate([cut_starts, cut_ends])), size.width, size.height)


def _encode(changes: Integers, width: int, height: int) -> dict[str, Any]:
    """Encodes a mask by the places where it changes, in increasing order."""
    if len(changes) and changes[-1] == width * height:
        changes = changes[:-1]
    counts: Any = np.diff(changes, prepend=0, append=width * height).astype(np.uint32)
    encoded: Any = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return cast(dict[str, Any], encoded)


def _odd(places: Integers) -> Integers:
    """Returns the places that are there an odd number of times, in increasing order: what changes twice at one place
    does not change."""
    found, times = np.unique(places, return_counts=True)
    odd: Integers = found[times % 2 == 1]
    return odd


def _changes(logits: Floats, width: int, height: int) -> Integers:
    """Returns the places where the mask, read column by column, changes between outside and inside, in increasing
    order."""
    rows, columns = logits.shape
    x, y = Axis.of(columns, width), Axis.of(rows, height)
    top, bottom = (between(row[x.low], row[x.high], x.weight) for row in (logits[0], logits[-1]))
    # Each column starts and ends outside.
    starts, ends = np.flatnonzero(top > 0) * height, np.flatnonzero(bottom > 0) * height + height
    return _odd(np.concatenate([starts, _crossings(logits, x, y), ends]))


def _crossings(logits: Floats, x: Axis, y: Axis) -> Integers:
    """Returns the places where columns change sign between their first and last source row."""
    after = np.minimum(np.arange(logits.shape[1]) + 1, logits.shape[1] - 1)
    inside = logits > 0
    sides = inside.view(np.int8) + inside[:, after]  # of the samples left and right of a cell: 0 to 2
    corners = sides[:-1] + sides[1:]
    row, column = np.nonzero((corners > 0) & (corners < 4))
    # One entry for each such cell and pixel column in it.
    columns = np.diff(x.first)[column]
    pixel = np.repeat(x.first[column] - (np.cumsum(columns) - columns), columns)
    pixel += np.arange(len(pixel))
    weight = x.weight[pixel]

    def along(rows: Integers) -> Floats:
        left, right = logits[rows, column], logits[rows, after[column]]
        return between(np.repeat(left, columns), np.repeat(right, columns), weight)

    top, bottom = along(row), along(row + 1)
    crossed = np.flatnonzero((top > 0) != (bottom > 0))
    found = _first_below(top[crossed], bottom[crossed], np.repeat(row, columns)[crossed], y)
    return np.asarray(pixel[crossed] * len(y.weight) + found)


def _first_below(top: Floats, bottom: Floats, row: Integers, y: Axis) -> Integers:
    """Returns the first pixels with the sign of `bottom`, between samples at `row` and after it that differ in sign."""
    start, end = y.first[row], y.first[row + 1]
    with np.errstate(all="ignore"):
        place = (row + top / (top - bottom) + 0.5) / y.scale - 0.5
        found: Integers = np.ceil(place).astype(np.int64).clip(start, end)
        # The quotient is right unless the crossing is at a pixel's centre, as far as fp32 can tell: weights are off by
        # up to 5e-5 samples. There the pixels' own arithmetic decides.
        apart = np.abs(place - np.rint(place))
        unsure = np.flatnonzero(~((apart > 0.01 + 1e-4 / y.scale) & (np.abs(top - bottom) > _TINY)))
    first, last, above, under, at = start[unsure], end[unsure], top[unsure], bottom[unsure], found[unsure]

    def below(at: Integers) -> NDArray[np.bool_]:
        value = between(above, under, y.weight[at.clip(0, len(y.weight) - 1)])
        return np.equal(value > 0, under > 0)

    while (early := (at > first) & below(at - 1)).any():
        at -= early
    while (late := (at < last) & ~below(at)).any():
        at += late
    found[unsure] = at
    return found
