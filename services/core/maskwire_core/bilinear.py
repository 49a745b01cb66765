"""Bilinear enlargement, bit by bit as `torch.nn.functional.interpolate` (align_corners False) does it in fp32 on a CPU.

Its compiled code rounds a product and a sum once; so does this. It has two forms, which round differently.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_BLOCK_PIXELS = 1 << 18
_SMALL = 128


@dataclass(frozen=True)
class Axis:
    """Where the pixels of an axis lie between source samples.

    Attributes:
        weight: Weight of the source sample after each pixel, fp32.
        low: Index of the source sample before each pixel.
        high: Index of the one after it; at the end the last once more.
        first: For each source sample, and one beyond: the first pixel whose `low` is not less.
        scale: Source samples per pixel.
    """

    weight: Floats
    low: Integers
    high: Integers
    first: Integers
    scale: np.float32

    @classmethod
    def of(cls, samples: int, pixels: int) -> "Axis":
        """As `compute_source_index_and_lambda` in torch's UpSample.h."""
        scale = np.float32(samples) / np.float32(pixels)
        centres = np.arange(pixels, dtype=np.float32) + np.float32(0.5)
        place = _sum(centres, scale, np.float32(-0.5)).clip(min=0)
        low = np.minimum(place.astype(np.int64), samples - 1)
        weight = np.clip(place - low.astype(np.float32), 0, 1, dtype=np.float32)
        high = np.minimum(low + 1, samples - 1)
        return cls(weight, low, high, np.searchsorted(low, np.arange(samples + 1)), scale)


def between(before: Floats, after: Floats, weight: Floats) -> Floats:
    """The value between two samples; `weight` is that of the latter."""
    return _sum(before, np.float32(1) - weight, after * weight)


def is_small(width: int, height: int) -> bool:
    """Whether torch takes the other form (`_use_vectorized_kernel_cond_2d` in its UpSampleKernel.cpp)."""
    return width + height <= _SMALL


def enlarge(samples: Floats, width: int, height: int) -> Floats:
    """SxT samples as height x width pixels."""
    x, y = Axis.of(samples.shape[1], width), Axis.of(samples.shape[0], height)
    if is_small(width, height):
        return _weighted(samples, x, y)
    rows = between(samples[:, x.low], samples[:, x.high], x.weight)
    pixels = np.empty((height, width), np.float32)
    step = max(1, _BLOCK_PIXELS // width)
    for start in range(0, height, step):  # the products are in fp64: block by block, they stay in the cache
        part = slice(start, start + step)
        pixels[part] = between(rows[y.low[part]], rows[y.high[part]], y.weight[part, None])
    return pixels


def _weighted(samples: Floats, x: Axis, y: Axis) -> Floats:
    """Four samples, each with its weight: `cpu_upsample_linear_channels_last`."""
    across, down = x.weight, y.weight[:, None]
    before, above = np.float32(1) - across, np.float32(1) - down
    upper, lower = samples[y.low], samples[y.high]
    total = above * across * upper[:, x.high]
    total = _sum(above * before, upper[:, x.low], total)
    total = _sum(down * before, lower[:, x.low], total)
    return _sum(down * across, lower[:, x.high], total)


def _sum(factor: Floats, other: Floats | np.float32, onto: Floats | np.float32) -> Floats:
    """factor * other + onto, rounded once. `factor` has the result's shape."""
    total = factor.astype(np.float64)
    total *= other
    total += onto
    return total.astype(np.float32)
