"""Parses the masks that prompts bring: low-resolution logits, or COCO RLE of the image's size."""

from typing import Any

import cv2
import numpy as np
from maskwire.v1 import types_pb2 as pb
from maskwire_core.errors import InvalidArgument
from numpy.typing import NDArray

from maskwire_decoder.prompts.geometry import ImageSize

LOGITS_DTYPES: dict[int, np.dtype[Any]] = {pb.DATA_TYPE_FP16: np.dtype("<f2"), pb.DATA_TYPE_FP32: np.dtype("<f4")}

_MAX_COUNTS = 1 << 20
_MAX_DIGITS = 7  # of a run's length
_BAND_PIXELS = 1 << 22


def parse_mask(prompt: pb.Prompt, path: str, size: ImageSize, mask_size: int) -> NDArray[np.float32] | None:
    """Returns the mask of a prompt as SxS logits, or None where it has none.

    Args:
        prompt: The prompt, which may have logits or a mask of the image's size.
        path: Path of the prompt's field, for errors.
        size: Size of the image.
        mask_size: S, the side of the model's low-resolution masks.

    Raises:
        InvalidArgument: With the path of the field that is wrong.
    """
    if prompt.HasField("mask") and prompt.HasField("mask_rle"):
        raise InvalidArgument("TWO_MASKS", "give mask or mask_rle, not both", field=f"{path}.mask_rle")
    if prompt.HasField("mask"):
        return _parse_logits(prompt.mask, f"{path}.mask", mask_size)
    if prompt.HasField("mask_rle"):
        return mask_to_logits(_decode_rle(prompt.mask_rle, f"{path}.mask_rle", size), mask_size)
    return None


def mask_to_logits(mask: NDArray[np.uint8], mask_size: int) -> NDArray[np.float32]:
    """Turns a mask into logits of -10 outside and 10 inside, as `SAM2Base._use_mask_as_output` of sam2 does, averaged
    over each low-resolution pixel.

    Args:
        mask: HxW, 1 inside and 0 outside, of the image's size.
        mask_size: S, the side of the model's low-resolution masks.

    Returns:
        SxS.
    """
    return np.asarray(_shares(mask, mask_size) * 20 - 10, np.float32)


def _shares(mask: NDArray[np.uint8], mask_size: int) -> NDArray[np.float32]:
    """Returns what `cv2.resize` gives with INTER_AREA, SxS. A large mask is averaged in bands of rows, since its fp32
    copies would take eight times its own memory: bands of whole low-resolution pixels, or where these are no whole
    pixels of the image, along x and then along y, as OpenCV does itself. Where only one side is a multiple of S, shares
    differ by up to 3e-7."""

    def resized(band: NDArray[np.uint8] | NDArray[np.float32], height: int) -> NDArray[np.float32]:
        size = (mask_size, height)
        return np.asarray(cv2.resize(band.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.float32)

    height, width = mask.shape
    if height * width <= _BAND_PIXELS or height < mask_size or width < mask_size:
        return resized(mask, mask_size)
    whole = height % mask_size == 0 and width % mask_size == 0
    unit = height // mask_size if whole else 1
    rows = max(1, _BAND_PIXELS // (width * unit)) * unit
    bands = [mask[top : top + rows] for top in range(0, height, rows)]
    averaged = np.concatenate([resized(band, len(band) // unit) for band in bands])
    return averaged if whole else resized(averaged, mask_size)


def _parse_logits(mask: pb.Logits, path: str, mask_size: int) -> NDArray[np.float32]:
    if (mask.height, mask.width) != (mask_size, mask_size):
        raise InvalidArgument(
            "BAD_MASK_SIZE",
            f"mask logits are {mask.height}x{mask.width}; this image's model takes {mask_size}x{mask_size}",
            field=path,
        )
    dtype = LOGITS_DTYPES.get(mask.data_type)
    if dtype is None:
        raise InvalidArgument("BAD_DATA_TYPE", "mask logits need a data_type: FP16 or FP32", field=f"{path}.data_type")
    if len(mask.data) != mask_size * mask_size * dtype.itemsize:
        raise InvalidArgument(
            "BAD_MASK_DATA",
            f"mask logits have {len(mask.data)} bytes instead of {mask_size * mask_size * dtype.itemsize}",
            field=f"{path}.data",
        )
    logits: NDArray[np.float32] = np.frombuffer(mask.data, dtype).reshape(mask_size, mask_size).astype(np.float32)
    if not np.isfinite(logits).all():
        raise InvalidArgument("NOT_FINITE", "mask logits hold NaN or infinity", field=f"{path}.data")
    return logits


def _decode_rle(rle: pb.Rle, path: str, size: ImageSize) -> NDArray[np.uint8]:
    """Returns HxW, 1 inside and 0 outside."""
    width, height = size
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
    lengths = _decode_run_lengths(rle.counts)
    if lengths is None or lengths.sum() != width * height:
        raise InvalidArgument(
            "BAD_MASK_DATA", f"counts are no compressed COCO runs of {height}x{width} pixels", field=f"{path}.counts"
        )
    values = np.arange(len(lengths)) % 2
    return np.repeat(values.astype(np.uint8), lengths).reshape(width, height).T


def _decode_run_lengths(counts: str) -> NDArray[np.int64] | None:
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
