"""Reads masks that callers send as COCO run lengths."""

import numpy as np
from maskwire.rle import pixels
from maskwire.v1 import types_pb2 as pb
from numpy.typing import NDArray

from maskwire_core.errors import InvalidArgument
from maskwire_core.masks.geometry import ImageSize

_MAX_COUNTS = 1 << 20


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
    inside = pixels(rle.counts, height, width)
    if inside is None:
        raise InvalidArgument(
            "BAD_MASK_DATA", f"counts are no compressed COCO runs of {height}x{width} pixels", field=f"{path}.counts"
        )
    mask = inside.view(np.uint8)
    if region is None:
        return mask
    return np.ascontiguousarray(mask[region.y : region.y + region.height, region.x : region.x + region.width])
