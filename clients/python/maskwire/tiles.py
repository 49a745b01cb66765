"""Tiles: regions that cover a large picture at several scales."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskwire.regions import MOST, Place

SIDE_PX = 1024
"""Side of the smallest tiles."""


class Tile(NamedTuple):
    """A region, and the part of it that is its alone."""

    place: Place
    core: Place  # what no other tile of this size has, in pixels of the picture


def tiles_of(width: int, height: int, side: int = SIDE_PX) -> Iterator[Tile]:
    """Yields the tiles of a picture, the smallest first, row by row; then those twice as long, and so on.

    Tiles of a size overlap by half at least, so that whatever is at most half as long as they are, and has its middle
    in a tile's core, lies within that tile. They end where they would not be much smaller than the picture.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        side: Side of the smallest tiles in pixels.
    """
    while side <= MOST * max(width, height):
        columns, rows = (_spans(length, side) for length in (width, height))
        for top, bottom, core_top, core_bottom in rows:
            for left, right, core_left, core_right in columns:
                yield Tile((left, top, right, bottom), (core_left, core_top, core_right, core_bottom))
        side *= 2


def _spans(length: int, side: int) -> list[tuple[int, int, int, int]]:
    """Returns start, end, and start and end of the core, of the tiles along one side of a picture."""
    if length <= side:
        return [(0, length, 0, length)]
    count = math.ceil((length - side) / (side // 2)) + 1
    starts = [round(index * (length - side) / (count - 1)) for index in range(count)]
    # Half-way between one tile's start and the end of the tile before it.
    bounds = [0, *((left + side + right) // 2 for left, right in pairwise(starts)), length]
    return [(start, start + side, low, high) for start, (low, high) in zip(starts, pairwise(bounds), strict=True)]


def clicks_in(tile: Tile, points_per_side: int) -> NDArray[np.float64]:
    """Returns the clicks of a grid over a tile that are in its core, Nx2, as fractions of the tile's sides."""
    left, top, right, bottom = tile.place
    x, y = ((np.arange(points_per_side) + 0.5) / points_per_side for _ in range(2))
    inside_x = _within(left + x * (right - left), tile.core[0], tile.core[2])
    inside_y = _within(top + y * (bottom - top), tile.core[1], tile.core[3])
    return np.stack(np.meshgrid(x[inside_x], y[inside_y]), axis=-1).reshape(-1, 2)


def _within(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.bool_]:
    return (values >= low) & (values < high)
