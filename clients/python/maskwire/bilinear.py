"""Bilinear upsampling, bit for bit as `torch.nn.functional.interpolate` (align_corners=False) does it in fp32 on a CPU.

torch's compiled code uses fused multiply-add, which rounds once; so does this. It has two variants, which round
differently.
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
    """Where the pixels of an axis lie between the source samples."""

    weight: Floats  # for each pixel the weight of the source sample after it, fp32
    low: Integers  # for each pixel the index of the source sample before it
    high: Integers  # for each pixel the index of the source sample after it; at the end that of the last sample
    first: Integers  # for each source sample, and for one beyond the last, the first pixel whose `low` is not less
    scale: np.float32  # source samples per pixel

    @classmethod
    def of(cls, samples: int, pixels: int) -> "Axis":
        """Computes an axis as `compute_source_index_and_lambda` in torch's UpSample.h does."""
        scale = np.float32(samples) / np.float32(pixels)
        centres = np.arange(pixels, dtype=np.float32) + np.float32(0.5)
        place = _sum(centres, scale, np.float32(-0.5)).clip(min=0)
        low = np.minimum(place.astype(np.int64), samples - 1)
        weight = np.clip(place - low.astype(np.float32), 0, 1, dtype=np.float32)
        high = np.minimum(low + 1, samples - 1)
        return cls(weight, low, high, np.searchsorted(low, np.arange(samples + 1)), scale)


def between(before: Floats, after: Floats, weight: Floats) -> Floats:
    """Interpolates between two samples; `weight` is that of `after`."""
    return _sum(before, np.float32(1) - weight, after * weight)


def is_small(width: int, height: int) -> bool:
    """Whether torch uses its other variant (`_use_vectorized_kernel_cond_2d` in UpSampleKernel.cpp)."""
    return width + height <= _SMALL


def enlarge(samples: Floats, width: int, height: int) -> Floats:
    """Upsamples an array of samples (rows x columns, fp32) to height x width pixels."""
    x, y = Axis.of(samples.shape[1], width), Axis.of(samples.shape[0], height)
    if is_small(width, height):
        return _weighted(samples, x, y)
    rows = between(samples[:, x.low], samples[:, x.high], x.weight)
    pixels = np.empty((height, width), np.float32)
    step = max(1, _BLOCK_PIXELS // width)
    for start in range(0, height, step):  # in blocks, so that the fp64 products stay in the CPU's cache
        part = slice(start, start + step)
        pixels[part] = between(rows[y.low[part]], rows[y.high[part]], y.weight[part, None])
    return pixels


def _weighted(samples: Floats, x: Axis, y: Axis) -> Floats:
    """Weights four samples for each pixel, as `cpu_upsample_linear_channels_last` in UpSampleKernel.cpp."""
    across, down = x.weight, y.weight[:, None]
    before, above = np.float32(1) - across, np.float32(1) - down
    upper, lower = samples[y.low], samples[y.high]
    total = above * across * upper[:, x.high]
    total = _sum(above * before, upper[:, x.low], total)
    total = _sum(down * before, lower[:, x.low], total)
    return _sum(down * across, lower[:, x.high], total)


def _sum(factor: Floats, other: Floats | np.float32, onto: Floats | np.float32) -> Floats:
    """Returns factor * other + onto, rounded to fp32 once. `factor` has the result's shape."""
    total = factor.astype(np.float64)
    total *= other
    total += onto
    return total.astype(np.float32)


def resize_antialiased(samples: Floats, width: int, height: int) -> Floats:
    """Resizes an array of samples (rows x columns, fp32) to height x width pixels, bit for bit as
    `torch.nn.functional.interpolate` with antialias=True does: along rows first, each sample weighted by a triangle
    that is as wide as a pixel where samples are finer (UpSampleKernel.cpp, `_compute_indices_weights_aa`)."""
    return _weighted_rows(_weighted_rows(samples, width).T, height).T


def _weighted_rows(samples: Floats, pixels: int) -> Floats:
    """Resizes each row to `pixels`."""
    first, counts, weights = _triangles(samples.shape[1], pixels)
    total = samples[:, first] * weights[:, 0]
    # torch's compiled code multiplies four further samples at a time, and adds what is left with fused multiply-add.
    unfused = (counts - 1) // 4 * 4
    for place in range(1, weights.shape[1]):
        seen, weight = samples[:, np.minimum(first + place, samples.shape[1] - 1)], weights[:, place]
        total = np.where(place <= unfused, total + seen * weight, _sum(seen, weight, total))
    return total


def _triangles(samples: int, pixels: int) -> tuple[Integers, Integers, Floats]:
    """Returns for each pixel the first sample that it sees, the number of samples, and their weights (pixels x most);
    those beyond its last are 0."""
    scale, one = np.float32(samples) / np.float32(pixels), np.float32(1)
    support, inverse = (scale, one / scale) if scale >= 1 else (one, one)
    # torch's code adds 0.5 as a double and rounds what it keeps.
    centres = (np.float64(scale) * (np.arange(pixels) + 0.5)).astype(np.float32)
    first = np.maximum(((centres - support) + 0.5).astype(np.int64), 0)
    counts = np.minimum(((centres + support) + 0.5).astype(np.int64), samples) - first
    places = np.arange(int(counts.max()))
    distance = (places + first[:, None]).astype(np.float32) - centres[:, None]
    distance = ((distance + np.float64(0.5)) * np.float64(inverse)).astype(np.float32)
    weights = np.where(places < counts[:, None], np.maximum(one - np.abs(distance), np.float32(0)), np.float32(0))
    total = np.zeros(pixels, np.float32)
    for place in places:  # one after the other, since rounding depends on the order
        total += weights[:, place]
    return first, counts, np.asarray(weights / total[:, None], np.float32)
