"""Maps samples of any type to the 8 bits that the model takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from maskwire.pictures.errors import PictureError, unreadable
from maskwire.suggest import no_such

Stretch = Literal["auto", "none", "range", "percentile"]
"""How samples are mapped to 8 bits; see docs/reference/pictures.md."""


_AUTO_FRACTION = 4  # `auto` stretches pictures that stay below 1 / _AUTO_FRACTION of their type's range
PERCENTILES = (1.0, 99.0)  # what `percentile` maps to black and to white
_SAMPLES_AT_ONCE = 1 << 20  # bounds the size of temporary arrays


@dataclass
class Levels:
    """Samples as a file or an array stores them.

    Attributes:
        samples: HxW or HxWx3, of any integer or floating-point type.
        white: Largest value that the file declares, such as 4095 for 12 bits a sample. If None, it is that of the
            array's type; for floating point and integers of 32 bits or more, that of the narrowest usual range that
            holds all samples.
        is_inverted: Whether the largest value is black.
        opaque: HxW, the pixels from which a stretch takes its range; None for all.
    """

    samples: NDArray[Any]
    white: int | None = None
    is_inverted: bool = False
    opaque: NDArray[np.bool_] | None = None


def check_stretch(stretch: str) -> None:
    """Checks the name of a stretch.

    Raises:
        PictureError: BAD_STRETCH: it is not one of `Stretch`.
    """
    if stretch not in get_args(Stretch):
        raise PictureError("BAD_STRETCH", no_such("stretch", stretch, get_args(Stretch)))


def to_8_bits(levels: Levels, stretch: Stretch) -> tuple[NDArray[np.uint8], Stretch]:
    """Maps samples to 0 (black) to 255 (white).

    Args:
        levels: The samples and their range.
        stretch: The mapping to use.

    Returns:
        The picture, of the samples' shape, and the mapping that was applied: none, range or percentile.

    Raises:
        PictureError: IMAGE_UNREADABLE: the stretch is `none`, and the samples have no conventional range.
    """
    samples = levels.samples
    mapping = choose_mapping(
        samples.dtype,
        levels.white,
        _extremes(samples, levels.opaque),
        lambda: _percentiles(samples, levels.opaque),
        stretch,
    )
    picture = mapping.apply(samples)
    return (255 - picture if levels.is_inverted else picture), mapping.stretch


@dataclass(frozen=True)
class Mapping:
    """How samples become 8 bits: floor((sample - black) * scale + rounding), clipped to 0..255; NaN becomes black."""

    black: float
    scale: float
    rounding: float
    stretch: Stretch  # its name: none, range or percentile

    @classmethod
    def between(cls, low: float, high: float, stretch: Stretch = "range") -> "Mapping":
        """Maps `low` to black and `high` to white."""
        return cls(low, 255 / (high - low), 0.5, stretch)

    def apply(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """Maps samples of any shape."""
        if samples.dtype == np.uint8 and (self.black, self.scale, self.rounding) == (0, 1, 0):
            return samples
        return _mapped(samples, self.black, self.scale, self.rounding)


def choose_mapping(
    dtype: np.dtype[Any],
    white: int | None,
    extremes: tuple[float, float],
    percentiles: Callable[[], tuple[float, float]],
    stretch: Stretch,
) -> Mapping:
    """Chooses how the samples of a picture are mapped.

    Args:
        dtype: Their type.
        white: Largest value that the file declares; see `Levels`.
        extremes: The lowest and the highest of them.
        percentiles: Computes the two between which `percentile` maps.
        stretch: The stretch that is asked for.

    Raises:
        PictureError: IMAGE_UNREADABLE: the stretch is `none`, and the samples have no conventional range.
    """
    lowest, highest = extremes
    is_float = dtype.kind == "f"
    span = _span(dtype, lowest, highest) if white is None else (0.0, float(white))
    applied: Stretch = "none" if stretch == "auto" else stretch
    if stretch == "auto" and dtype != np.uint8:
        # Negative samples have no conventional black: mapping the whole signed range would leave most pictures grey.
        beyond = span is None or lowest < 0 or highest * _AUTO_FRACTION < span[1] + (0 if is_float else 1)
        applied = "range" if beyond else "none"
    low, high = extremes
    if applied == "percentile":
        low, high = percentiles()
        if low == high:  # nearly all samples are equal
            low, high = extremes
    if low == high:
        applied = "none"
    if applied == "none" and span is None and low != high:
        raise unreadable(
            f"floating-point samples from {lowest:g} to {highest:g} have no range that is agreed on; "
            "use the stretch auto, range or percentile, or give samples within 0 to 1 or 0 to 255"
        )
    if applied != "none":
        return Mapping.between(low, high, applied)
    if span is None:
        return Mapping(0, 0, 0, applied)
    if is_float:
        return Mapping.between(*span, applied)
    return Mapping(span[0], 256 / (span[1] - span[0] + 1), 0, applied)


def alpha_to_8_bits(alpha: NDArray[Any]) -> NDArray[np.uint8]:
    """Maps alpha to 0 (transparent) to 255 (opaque).

    Opaque is the largest value of the type, or that of the array if it is far smaller, as with 12 bits stored in 16.
    """
    if alpha.dtype == np.uint8:
        return alpha
    lowest, highest = _extremes(alpha, None)
    if highest <= 0:
        return np.zeros(alpha.shape, np.uint8)
    span = _span(alpha.dtype, max(0, lowest), highest)
    opaque = highest if span is None or highest * _AUTO_FRACTION < span[1] else span[1]
    return _mapped(alpha, 0, 255 / opaque, 0.5)


def _span(dtype: np.dtype[Any], lowest: float, highest: float) -> tuple[float, float] | None:
    """Returns the values of black and white by convention of the sample type; None if there is no convention."""
    if dtype.kind == "f":
        if lowest >= 0 and highest <= 1:
            return 0.0, 1.0
        return (0.0, 255.0) if lowest >= 0 and highest <= 255 else None
    info = np.iinfo(dtype)
    if info.bits >= 32:
        if lowest >= 0 and highest <= 255:
            return 0.0, 255.0
        if lowest >= 0 and highest <= 65535:
            return 0.0, 65535.0
        if lowest >= -32768 and highest <= 32767:
            return -32768.0, 32767.0
    return float(info.min if lowest < 0 else 0), float(info.max)


def _extremes(samples: NDArray[Any], opaque: NDArray[np.bool_] | None) -> tuple[float, float]:
    """Returns the lowest and highest finite samples of opaque pixels; 0 and 0 if there are none."""
    lowest, highest = np.inf, -np.inf
    for rows in _row_bands(samples):
        band = _visible(samples, opaque, rows)
        if band.size:
            lowest, highest = min(lowest, float(band.min())), max(highest, float(band.max()))
    return (lowest, highest) if lowest <= highest else (0.0, 0.0)


def _percentiles(samples: NDArray[Any], opaque: NDArray[np.bool_] | None) -> tuple[float, float]:
    band = _visible(samples, opaque, slice(None))
    if not band.size:
        return 0.0, 0.0
    low, high = np.percentile(band, PERCENTILES)
    return float(low), float(high)


def _visible(samples: NDArray[Any], opaque: NDArray[np.bool_] | None, rows: slice) -> NDArray[Any]:
    band = samples[rows]
    if opaque is not None:
        band = band[opaque[rows]]
    if band.dtype.kind == "f":
        band = band[np.isfinite(band)]
    return band


def _mapped(samples: NDArray[Any], black: float, scale: float, rounding: float) -> NDArray[np.uint8]:
    if samples.dtype.itemsize <= 2 and samples.dtype.kind in "iu":
        bits = 8 * samples.dtype.itemsize
        unsigned = np.arange(1 << bits).astype(f"u{samples.dtype.itemsize}")
        table = _scaled(unsigned.view(samples.dtype), black, scale, rounding)
        mapped: NDArray[np.uint8] = table[np.ascontiguousarray(samples).view(unsigned.dtype)]
        return mapped
    picture = np.empty(samples.shape, np.uint8)
    for rows in _row_bands(samples):
        picture[rows] = _scaled(samples[rows], black, scale, rounding)
    return picture


def _scaled(samples: NDArray[Any], black: float, scale: float, rounding: float) -> NDArray[np.uint8]:
    wide = samples.astype(np.float64)
    wide -= black
    wide *= scale
    wide += rounding
    if samples.dtype.kind == "f":
        np.nan_to_num(wide, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    return np.floor(wide, out=wide).clip(0, 255, out=wide).astype(np.uint8)


def _row_bands(samples: NDArray[Any]) -> list[slice]:
    step = max(1, _SAMPLES_AT_ONCE // max(1, samples[0].size if len(samples) else 1))
    return [slice(first, first + step) for first in range(0, len(samples), step)]
