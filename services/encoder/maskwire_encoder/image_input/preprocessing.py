"""Pixels to a model's input, as sam2's SAM2Transforms does: ToTensor, Resize (bilinear, antialiased), Normalize."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

PREPROCESSING = "sam2/3"
"""Version of image file to input, a part of every content key."""

LARGE_PIXELS = 4_000_000
"""Images of more pixels are resized in 8-bit arithmetic by `prepare`."""

# Pixels are only read here; torch would warn once of those that Pillow lends without the right to write.
warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)

_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def preprocess(pixels: Tensor, size: int) -> Tensor:
    """Exact preprocessing of a batch, in fp32.

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
    """Preprocessing of one image on the CPU.

    Up to `LARGE_PIXELS` this is `preprocess`. Larger images are resized in 8-bit arithmetic, several times faster and
    within one level of 255 of it: each of the two passes rounds to a level (0.27 levels on average).

    Args:
        rgb: HxWx3, in any order in memory.
        size: Side of the model's square input in pixels.

    Returns:
        3xSxS, fp32.
    """
    stored, turn = as_stored(rgb)
    pixels = torch.from_numpy(stored)[None]
    if rgb.shape[0] * rgb.shape[1] <= LARGE_PIXELS:
        return turn(preprocess(pixels, size)[0])
    levels = _resize(pixels.permute(0, 3, 1, 2), size)[0]
    # NumPy's large arrays lie in huge pages where the system offers them; torch's do not, and half the time is lost.
    planes = torch.from_numpy(np.empty((3, size, size), np.float32)).copy_(levels)
    return turn(_normalize(planes.div_(255)))


def as_stored(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Callable[[Tensor], Tensor]]:
    """Undoes the turning of a view, so that large pixels are never moved: small planes are turned instead.

    Args:
        rgb: HxWx3, perhaps flipped or transposed in memory.

    Returns:
        The pixels in the order of memory, and a function that turns their planes (...xSxS) as `rgb` is turned.
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
