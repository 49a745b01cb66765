"""Pixels to model inputs, as sam2's SAM2Transforms: ToTensor, Resize (bilinear, antialiased), Normalize."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

PREPROCESSING = "sam2/3"
"""Version of decoding and preprocessing, a part of every content key."""

FRAMES = "frame/1"
"""Version of what is different for frames of videos, a part of their content keys."""

LARGE_PIXELS = 4_000_000
"""Images of more pixels are resized in 8-bit arithmetic by `prepare`."""

# Pixels are only read here; torch would warn of the read-only arrays that Pillow returns.
warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)

_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def preprocess(pixels: Tensor, size: int) -> Tensor:
    """Preprocesses a batch exactly, in fp32.

    Args:
        pixels: BxHxWx3, uint8, RGB, on any device.
        size: Side of the model's square input in pixels.

    Returns:
        Bx3xSxS, fp32, on the same device.
    """
    planes = pixels.permute(0, 3, 1, 2).contiguous().float().div_(255)
    if planes.shape[2:] != (size, size):
        planes = _resize(planes, size)
    return _normalize(planes)


def prepare(rgb: NDArray[np.uint8], size: int) -> Tensor:
    """Preprocesses one image on the CPU.

    Up to `LARGE_PIXELS` pixels this is `preprocess`. Larger images are resized in 8-bit arithmetic, which is several
    times faster; each of its two passes rounds to a level of 255 (the difference is 0.27 levels on average, 1 at most).

    Args:
        rgb: HxWx3, with any strides.
        size: Side of the model's square input in pixels.

    Returns:
        3xSxS, fp32.
    """
    stored, turn = as_stored(rgb)
    pixels = torch.from_numpy(stored)[None]
    if rgb.shape[0] * rgb.shape[1] <= LARGE_PIXELS:
        return turn(preprocess(pixels, size)[0])
    levels = _resize(pixels.permute(0, 3, 1, 2), size)[0]
    # NumPy allocates large arrays in huge pages where the system offers them, which halves the time; torch does not.
    planes = torch.from_numpy(np.empty((3, size, size), np.float32)).copy_(levels)
    return turn(_normalize(planes.div_(255)))


def resize_frame(rgb: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resizes a frame of a video as `sam2.utils.misc.load_video_frames` does: by Pillow's bicubic filter.

    Args:
        rgb: HxWx3, with any strides.
        size: Side of the model's square input in pixels.

    Returns:
        SxSx3, which `preprocess` and `prepare` take without resizing it again.
    """
    return np.array(Image.fromarray(np.ascontiguousarray(rgb)).resize((size, size)))


def as_stored(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Callable[[Tensor], Tensor]]:
    """Undoes the flips and the transposition of a view, so that the resized image can be turned instead of its pixels.

    Args:
        rgb: HxWx3, possibly a flipped or transposed view.

    Returns:
        The pixels in the order in which they lie in memory, and a function that turns planes (...xSxS) like `rgb`.
    """
    flipped = [axis for axis in (0, 1) if rgb.strides[axis] < 0]
    stored = np.flip(rgb, tuple(flipped))
    swapped = stored.strides[0] < stored.strides[1]
    if swapped:
        stored = stored.transpose(1, 0, 2)

    def turn(planes: Tensor) -> Tensor:
        if swapped:
            planes = planes.transpose(-2, -1)
        return planes.flip([axis - 2 for axis in flipped]) if flipped else planes.contiguous()

    return stored, turn


def _normalize(planes: Tensor) -> Tensor:
    return planes.sub_(_MEAN.to(planes.device)).div_(_STD.to(planes.device))


def _resize(planes: Tensor, size: int) -> Tensor:
    return F.interpolate(planes, (size, size), mode="bilinear", align_corners=False, antialias=True)
