"""Where in a tile something is to be seen: clicks on what is flat up to the edge find nothing that ends in the tile."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_PARTS = 4  # averaged parts to each side of the square between clicks, so that noise and texture count little
_BESIDE = 1  # how many of them, on each side of that square, count too
_LEAST = 10  # levels of 255 by which parts differ at least around a click that is made


def is_busy(window: Image.Image, points_per_side: int, clicks: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns which clicks have something around them, near by or farther away. Near by: within three quarters of the
    distance of clicks, along x and y, averages over a quarter of that distance differ by ten levels or more in some
    channel. Farther away: such clicks enclose them, so that they may be within something that lies whole in the tile.

    Args:
        window: The tile, or a smaller version of it, RGB.
        points_per_side: Clicks along a side of the tile's grid.
        clicks: Some clicks of that grid, Nx2, as fractions of the tile's sides.

    Returns:
        N bools.
    """
    side = _PARTS * points_per_side
    parts = np.asarray(window.resize((side, side), Image.Resampling.BOX), np.int16)
    padded: Any = np.pad(parts, ((_BESIDE, _BESIDE), (_BESIDE, _BESIDE), (0, 0)), "edge")
    high, low = padded, padded
    for axis in (0, 1):
        high, low = _around(high, axis).max(-1), _around(low, axis).min(-1)
    differs = (high - low).max(2) >= _LEAST
    column, row = (clicks * points_per_side).astype(int).T
    return np.asarray(~_reached_from_edge(~differs)[row, column])


def _reached_from_edge(free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which free cells, HxW, are connected with one at the edge by others."""
    reached = free.copy()
    reached[1:-1, 1:-1] = False
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= free
        if (grown == reached).all():
            return reached
        reached = grown


def _around(values: Any, axis: int) -> Any:
    """The values along an axis that count for each click, in a further axis."""
    windows = np.lib.stride_tricks.sliding_window_view(values, _PARTS + 2 * _BESIDE, axis)
    return windows[::_PARTS] if axis == 0 else windows[:, ::_PARTS]
