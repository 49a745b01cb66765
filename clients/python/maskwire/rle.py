"""Reads COCO's compressed run lengths, whoever sent them. pycocotools trusts them: it would read beyond the end of a
damaged text, and write beyond the end of a mask."""

import numpy as np
from numpy.typing import NDArray

_MAX_DIGITS = 7  # of a run's length
_MAX_LENGTH = (1 << 32) - 1  # COCO's lengths have 32 bits; sums of larger ones could exceed 64


def run_lengths(counts: str) -> NDArray[np.int64] | None:
    """Returns the lengths of runs, outside first, or None if the text is not COCO's compressed form."""
    digits = np.frombuffer(counts.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    if not len(digits):
        return digits
    if digits.min() < 0 or digits.max() >= 64 or digits[-1] & 0x20:
        return None
    # A number is a group of digits of five bits, the lowest first; the last one lacks the bit that says "go on".
    ends = np.flatnonzero(digits & 0x20 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > _MAX_DIGITS:
        return None
    shifts = 5 * (np.arange(len(digits)) - np.repeat(starts, sizes))
    lengths = np.add.reduceat((digits & 0x1F) << shifts, starts)
    lengths -= np.where(digits[ends] & 0x10, np.int64(1) << (5 * sizes), 0)  # the sign
    # From the fourth on, they are differences to the length before the last.
    for first in (1, 2):
        lengths[first::2] = np.cumsum(lengths[first::2])
    return None if lengths.min() < 0 or lengths.max() > _MAX_LENGTH else lengths


def are_of_size(counts: str, height: int, width: int) -> bool:
    """Returns whether a text is the compressed run lengths of a mask of this size in pixels."""
    lengths = run_lengths(counts)
    return lengths is not None and int(lengths.sum()) == height * width


def pixels(counts: str, height: int, width: int) -> NDArray[np.bool_] | None:
    """Returns the mask, HxW, column after column in memory; None if the text is not one of a mask of this size."""
    lengths = run_lengths(counts)
    if lengths is None or lengths.sum() != height * width:
        return None
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(width, height).T


def area(counts: str) -> int | None:
    """Returns the number of pixels inside a mask; None if the text is not compressed run lengths."""
    lengths = run_lengths(counts)
    return None if lengths is None else int(lengths[1::2].sum())


def bounding_box(counts: str, height: int) -> tuple[int, int, int, int] | None:
    """Returns x_min, y_min, x_max, y_max of a mask of this height in pixels, the last two exclusive, without making its
    pixels; zeros if it is empty, and None if the text is not compressed run lengths."""
    lengths = run_lengths(counts)
    if lengths is None:
        return None
    ends = np.cumsum(lengths)
    starts, ends = ends[0 : len(ends) - len(ends) % 2 : 2], ends[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not len(starts):
        return 0, 0, 0, 0
    if not height:
        return None
    columns, last_columns = starts // height, (ends - 1) // height
    is_tall = bool((columns != last_columns).any())  # a run that goes on in the next column: from its first row
    top, bottom = (0, height) if is_tall else (int((starts % height).min()), int(((ends - 1) % height).max()) + 1)
    return int(columns[0]), top, int(last_columns[-1]) + 1, bottom
