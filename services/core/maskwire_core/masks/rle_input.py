"""Reads masks that callers send as COCO run lengths."""

import numpy as np
from maskwire.v1 import types_pb2 as pb
from numpy.typing import NDArray

from maskwire_core.errors import InvalidArgument
from maskwire_core.masks.geometry import ImageSize

_MAX_COUNTS = 1 << 20
_MAX_DIGITS = 7  # of a run's length


def decode_rle(rle: pb.Rle, path: str, size: ImageSize) -> NDArray[np.uint8]:
    """Reads a mask that a caller sent as compressed COCO run lengths.

    Args:
        rle: The mask.
        path: Path of its field, for errors.
        size: Size of the image, which the mask must have.

    Returns:
        HxW, 1 inside and 0 outside; of the image's region, if it has one.

    Raises:
        InvalidArgument: BAD_MASK_SIZE or BAD_MASK_DATA.
    """
    width, height, region = size
    if list(rle.size[:3]) != [height, width]:
        raise InvalidArgument(
            "BAD_MASK_SIZE",
            f"the mask has size {list(rle.size[:3])}; the image has {[height, width]}: rows and columns",
            field=path,
        )
    if len(rle.counts) > _MAX_COUNTS:
        raise InvalidArgument(
            "BAD_MASK_DATA", f"a mask of more than {_MAX_COUNTS} characters; smooth it", field=f"{path}.counts"
        )
    lengths = run_lengths(rle.counts)
    if lengths is None or lengths.sum() != width * height:
        raise InvalidArgument(
            "BAD_MASK_DATA", f"counts are no compressed COCO runs of {height}x{width} pixels", field=f"{path}.counts"
        )
    values = np.arange(len(lengths)) % 2
    mask = np.repeat(values.astype(np.uint8), lengths).reshape(width, height).T
    if region is None:
        return mask
    return np.ascontiguousarray(mask[region.y : region.y + region.height, region.x : region.x + region.width])


def run_lengths(counts: str) -> NDArray[np.int64] | None:
    """Returns the lengths of runs, outside first, or None if the text is not COCO's compressed form. pycocotools would
    read beyond the end of such a text, and write beyond the end of a mask."""
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
    return None if lengths.min() < 0 else lengths
