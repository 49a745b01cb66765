"""Window order: image tokens such that windows, 2x2 pooling and 2x2 transposed convolutions are plain views.

A raster is cut into cells of 32x32 input pixels, row by row. Within a cell tokens are numbered by quarters: the four
quarters row by row, each again by quarters, down to single tokens. Four consecutive tokens are thus always a 2x2 block.
"""

from torch import Tensor

CELL = 32
"""Side of a cell in pixels of the input."""


def order(raster: Tensor, side: int) -> Tensor:
    """BxHxWxC to B x cells x side² x C; side: tokens on a side of a cell, a power of two."""
    batch, height, width, channels = raster.shape
    levels = side.bit_length() - 1
    split = raster.reshape(batch, height // side, *[2] * levels, width // side, *[2] * levels, channels)
    quarters = [axis for level in range(levels) for axis in (2 + level, 3 + levels + level)]
    ordered = split.permute(0, 1, 2 + levels, *quarters, 3 + 2 * levels)
    return ordered.reshape(batch, height * width // side**2, side**2, channels)


def unorder(ordered: Tensor, height: int, width: int, side: int) -> Tensor:
    """B x ... x C in window order, however grouped, back to BxHxWxC; side as in `order`."""
    batch, channels = ordered.shape[0], ordered.shape[-1]
    levels = side.bit_length() - 1
    split = ordered.reshape(batch, height // side, width // side, *[2] * (2 * levels), channels)
    rows, columns = ([first + 2 * level for level in range(levels)] for first in (3, 4))
    return split.permute(0, 1, *rows, 2, *columns, 3 + 2 * levels).reshape(batch, height, width, channels)
