"""TIFF files that are read by windows: pictures larger than memory, or than an encoder accepts as a whole."""

import io
import os
import threading
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire.errors import InvalidRequest
from maskwire.pictures import PictureError, Stretch, check_stretch
from maskwire.pictures.colour import to_srgb
from maskwire.pictures.levels import PERCENTILES, Mapping, choose_mapping
from maskwire.pictures.tiff_windows import Place, TiffWindows
from maskwire.sources import Source, invalid_picture, unreadable_file

_MOST_PX = 2048  # longer side of what is embedded: twice what a model sees


class _Survey(NamedTuple):
    """What is known of a picture when all of it has been read."""

    mapping: Mapping  # of its samples to 8 bits
    overview: bytes  # the version that is embedded as the whole, a PNG


class LargeTiff(Source):
    """A TIFF or BigTIFF of any size, for `embed`, `segment`, `everything` and so on. It is read by tifffile:
    `pip install "maskwire[tiff]"`.

    Encoders get a version of it of at most 2,048 pixels as the whole, and regions at full resolution up to that size,
    larger ones likewise smaller. Of the file, only the tiles or strips that a region touches are read; once, for the
    whole and the stretch, all of it. Prompts and masks are in pixels of the file.

    Args:
        path: The file: its first page, grey, RGB or of any number of bands, upright; alpha is ignored. It must not
            change while this object is used.
        stretch: How samples are mapped to 8 bits: as for other pictures, "auto", "none", "range" or "percentile", of
            all the picture's samples (percentiles of types of more than 16 bits are those of its smaller version); or
            the two values that become black and white.
        bands: Which samples of each pixel are shown, from 0: three as red, green and blue, or one as grey. None: the
            first three if there are as many, else the first.

    Raises:
        InvalidRequest: NO_TIFFFILE, NO_SUCH_FILE, BAD_STRETCH, BAD_BANDS; IMAGE_UNREADABLE, IMAGE_TOO_LARGE or
            IMAGE_TOO_COSTLY: it is another kind of file, or declares more than 2^31 - 1 pixels, or tiles or strips of
            more than 128 MiB.
    """

    full_size: tuple[int, int]

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        stretch: Stretch | tuple[float, float] = "auto",
        bands: Sequence[int] | None = None,
    ) -> None:
        super().__init__(Path(path))
        self._given = _checked(stretch)
        try:
            self._tiff = TiffWindows(Path(path), bands)
        except ImportError as error:
            raise InvalidRequest('large TIFFs need tifffile: pip install "maskwire[tiff]"', "NO_TIFFFILE") from error
        except PictureError as error:
            raise invalid_picture(error) from error
        except OSError as error:
            raise unreadable_file(Path(path), error) from error
        self.full_size = self._tiff.width, self._tiff.height
        self._surveying = threading.Lock()
        self._known: _Survey | None = None

    def __repr__(self) -> str:
        width, height = self.full_size
        return f"<LargeTiff {self.name}, {width}x{height}, {self._tiff.dtype}>"

    def identify(self) -> Hashable:
        """Returns a key that is equal for equal content read in the same way; see `Source.identify`."""
        return super().identify(), self._given, self._tiff.bands

    def read(self) -> bytes:
        """Returns the version that is embedded as the whole, as a PNG."""
        return self._survey().overview

    @property
    def held_bytes(self) -> int:
        """Number of bytes that this object keeps in memory."""
        return self._tiff.kept_bytes + (len(self._known.overview) if self._known is not None else 0)

    def picture(self) -> Image.Image:
        """Reads all of the picture into memory, as RGB."""
        return self._shown(self._windowed((0, 0, *self.full_size)))

    def window(self, place: Place) -> Image.Image:
        """Reads a part of the picture: x_min, y_min, x_max, y_max in pixels of it, as RGB; of more than 4,096 pixels, a
        smaller version.

        Raises:
            InvalidRequest: IMAGE_UNREADABLE: the file is damaged.
        """
        scale = max(place[2] - place[0], place[3] - place[1]) // _MOST_PX
        return self._shown(self._windowed(place) if scale <= 1 else self._reduced(place, scale))

    def _windowed(self, place: Place) -> NDArray[Any]:
        try:
            return self._tiff.window(place)
        except PictureError as error:
            raise invalid_picture(error) from error
        except OSError as error:
            raise unreadable_file(self._tiff.path, error) from error

    def _reduced(self, place: Place, scale: int, seen: "_Statistics | None" = None) -> NDArray[Any]:
        """Averages `scale` x `scale` pixels each of a window. `seen` gets all samples."""
        left, top, right, bottom = place
        width, height = (-(-length // scale) for length in (right - left, bottom - top))
        sums = np.zeros((height, width, len(self._tiff.bands)))
        try:
            for x, y, samples in self._tiff.pieces(place):
                if seen is not None:
                    seen.add(samples)
                rows, columns = (
                    _starts(first, length, scale) for first, length in zip((y, x), samples.shape, strict=False)
                )
                part = np.add.reduceat(np.add.reduceat(samples, rows, 0, np.float64), columns, 1)
                sums[y // scale : y // scale + len(rows), x // scale : x // scale + len(columns)] += part
        except PictureError as error:
            raise invalid_picture(error) from error
        except OSError as error:
            raise unreadable_file(self._tiff.path, error) from error
        counts = [
            np.minimum(np.arange(1, n + 1) * scale, length) - np.arange(n) * scale
            for n, length in ((height, bottom - top), (width, right - left))
        ]
        means = sums / np.outer(*counts)[..., None]
        return (means if self._tiff.dtype.kind == "f" else np.rint(means)).astype(self._tiff.dtype)

    def _shown(self, samples: NDArray[Any]) -> Image.Image:
        return self._to_rgb(samples, self._survey().mapping)

    def _to_rgb(self, samples: NDArray[Any], mapping: Mapping) -> Image.Image:
        mapped = mapping.apply(samples)
        if self._tiff.is_inverted:
            mapped = 255 - mapped
        if mapped.shape[2] == 1:
            mapped = mapped[..., 0]
        return to_srgb(Image.fromarray(np.ascontiguousarray(mapped)), self._tiff.profile)

    def _survey(self) -> _Survey:
        """Reads all of the picture, once."""
        with self._surveying:
            if self._known is None:
                width, height = self.full_size
                seen = _Statistics(self._tiff.dtype) if self._depends else None
                scale = -(-max(width, height) // _MOST_PX)
                samples = self._reduced((0, 0, width, height), scale, seen)
                mapping = self._chosen_mapping(seen, samples)
                file = io.BytesIO()
                self._to_rgb(samples, mapping).save(file, "PNG", compress_level=1)
                self._known = _Survey(mapping, file.getvalue())
            return self._known

    @property
    def _depends(self) -> bool:
        """Whether the mapping depends on the samples."""
        is_fixed = self._tiff.dtype == np.uint8 and self._given in ("auto", "none")
        return isinstance(self._given, str) and not is_fixed

    def _chosen_mapping(self, seen: "_Statistics | None", overview: NDArray[Any]) -> Mapping:
        if not isinstance(self._given, str):
            return Mapping.between(*self._given)
        tiff = self._tiff
        extremes = (0.0, 255.0) if seen is None else seen.extremes

        def percentiles() -> tuple[float, float]:
            return extremes if seen is None else seen.percentiles(overview)

        try:
            return choose_mapping(tiff.dtype, tiff.white, extremes, percentiles, self._given)
        except PictureError as error:
            raise invalid_picture(error) from error


class _Statistics:
    """The range of samples that come in parts."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._lowest, self._highest = np.inf, -np.inf
        self._info = np.iinfo(dtype) if dtype.kind in "iu" and dtype.itemsize <= 2 else None
        self._counts = np.zeros(0 if self._info is None else 1 << self._info.bits, np.int64)

    def add(self, samples: NDArray[Any]) -> None:
        """Adds a part."""
        if self._info is not None:
            indices = samples.ravel().astype(np.int32) - self._info.min
            self._counts += np.bincount(indices, minlength=len(self._counts))
            return
        finite = samples[np.isfinite(samples)]
        if finite.size:
            self._lowest = min(self._lowest, float(finite.min()))
            self._highest = max(self._highest, float(finite.max()))

    @property
    def extremes(self) -> tuple[float, float]:
        """The lowest and the highest finite sample; 0 and 0 if there are none."""
        if self._info is not None:
            there = np.flatnonzero(self._counts) + self._info.min
            return float(there[0]), float(there[-1])
        return (self._lowest, self._highest) if self._lowest <= self._highest else (0.0, 0.0)

    def percentiles(self, overview: NDArray[Any]) -> tuple[float, float]:
        """The 1st and the 99th percentile, exactly where values were counted, else of the picture's smaller version."""
        if self._info is None:
            finite = overview[np.isfinite(overview)]
            low, high = np.percentile(finite, PERCENTILES) if finite.size else (0.0, 0.0)
            return float(low), float(high)
        upto = np.cumsum(self._counts)
        low, high = (self._at(upto, share / 100 * (int(upto[-1]) - 1)) for share in PERCENTILES)
        return low, high

    def _at(self, upto: NDArray[np.int64], place: float) -> float:
        """The sample at a place in their order, between two of them in proportion."""
        assert self._info is not None
        before, after = np.searchsorted(upto, [int(place), int(np.ceil(place))], side="right") + self._info.min
        return float(before + (after - before) * (place % 1))


def _starts(first: int, length: int, scale: int) -> NDArray[np.intp]:
    """Where, of samples from `first` on, those of each larger pixel begin."""
    return np.maximum(np.arange(first // scale, -(-(first + length) // scale)) * scale - first, 0)


def _checked(stretch: Any) -> Stretch | tuple[float, float]:
    if isinstance(stretch, str):
        try:
            check_stretch(stretch)
        except PictureError as error:
            raise invalid_picture(error) from error
        return stretch  # type: ignore[return-value]
    try:
        low, high = (float(value) for value in stretch)
    except (TypeError, ValueError):
        low = high = 0.0
    if not -np.inf < low < high < np.inf:
        raise InvalidRequest(
            f"a stretch is a name or two values, black and white, the lower first; got {stretch!r}",
            "BAD_STRETCH",
            "stretch",
        )
    return low, high
