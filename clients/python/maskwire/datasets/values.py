"""Checks numbers of files that people give: pycocotools trusts them, and would write beyond its memory."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwire.pictures.limits import MAX_PIXELS

_FARTHEST_PX = 1e8
_LONGEST_OUTLINE_PX = 1 << 22  # of which pycocotools takes 80 bytes a pixel


def size_of(width: Any, height: Any) -> tuple[int, int]:
    """Returns the size of an image in pixels, which may be 0 where a file does not know it.

    Raises:
        ValueError: It is none, or of more than 2^31 - 1 pixels.
    """
    try:
        sides = int(width), int(height)
    except OverflowError as error:
        raise ValueError(f"an image of {width}x{height} pixels") from error
    if min(sides) < 0 or max(*sides, sides[0] * sides[1]) > MAX_PIXELS:
        raise ValueError(f"an image of {sides[0]}x{sides[1]} pixels; it may have {MAX_PIXELS}")
    return sides


def finite(values: Iterable[Any], what: str) -> list[float]:
    """Returns numbers of pixels.

    Args:
        values: What a file states.
        what: Its name, for the error.

    Raises:
        ValueError: One of them is no number, not finite, or far outside of all images.
    """
    numbers = list(values)
    for value in numbers:
        if not isinstance(value, int | float) or not abs(value) <= _FARTHEST_PX:
            raise ValueError(f"{what} has {str(value)[:40]!r}; give numbers of pixels")
    return [float(value) for value in numbers]


def polygon(values: Any) -> list[float]:
    """Returns the corners of a polygon, x0, y0, x1, y1, ... in pixels.

    Raises:
        ValueError: It is none, or its outline is so long that filling it would take more than 400 MB.
    """
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) < 6 or len(values) % 2:
        raise ValueError("a polygon is no list of x and y of three corners or more")
    flat = finite(values, "a polygon")
    corners = np.array(flat).reshape(-1, 2)
    length = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum() + len(corners)
    if length > _LONGEST_OUTLINE_PX:
        raise ValueError(
            f"a polygon whose outline has {length:.0f} pixels; at most {_LONGEST_OUTLINE_PX} are filled: use RLE"
        )
    return flat


def lengths(values: Any, height: int, width: int) -> NDArray[np.int64]:
    """Returns the lengths of a mask's runs, outside first, which a file has as a list of numbers.

    Args:
        values: What the file has.
        height: Height of the mask in pixels.
        width: Width of the mask in pixels.

    Raises:
        ValueError: They are none of a mask of this size.
    """
    area = height * width
    for value in values:
        if not isinstance(value, int) or not 0 <= value <= area:
            raise ValueError(f"a mask has a run of {str(value)[:40]} pixels in {height} rows of {width}")
    if sum(values) != area:
        raise ValueError(f"a mask has {sum(values)} pixels instead of {height} rows of {width}")
    return np.array(values, np.int64)
