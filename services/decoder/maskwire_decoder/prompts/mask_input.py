"""Parses the masks that prompts bring: low-resolution logits, or COCO RLE of the image's size."""

from typing import Any

import cv2
import numpy as np
from maskwire.v1 import types_pb2 as pb
from maskwire_core.errors import InvalidArgument
from maskwire_core.masks.geometry import ImageSize
from maskwire_core.masks.rle_input import decode_rle
from numpy.typing import NDArray

LOGITS_DTYPES: dict[int, np.dtype[Any]] = {pb.DATA_TYPE_FP16: np.dtype("<f2"), pb.DATA_TYPE_FP32: np.dtype("<f4")}

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
        return mask_to_logits(decode_rle(prompt.mask_rle, f"{path}.mask_rle", size), mask_size)
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
