"""Reads parts of a TIFF file of any size, a tile or strip at a time, by tifffile.

What the file declares is checked before memory is taken for it: nothing that is read or decoded at once is larger than
`MAX_SEGMENT_BYTES`, whatever it says.
"""

import io
import mmap
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire.pictures.errors import PictureError, decoder_message, too_costly, unreadable
from maskwire.pictures.limits import MAX_PIXELS
from maskwire.pictures.tiff_header import read_directory

"""Of a picture. Servers take no larger one."""

MAX_SEGMENT_BYTES = 128 << 20
"""Of a tile or strip, decoded; compressed ones are not larger either."""

_ROWS_BYTES = 4 << 20  # rows that are read at once of an uncompressed strip, which may be the whole file
_KEPT_BYTES = 128 << 20  # decoded segments that are kept, since neighbouring windows need the same
_NONE, _JPEG = 1, 7
_COMPRESSIONS = (_NONE, 5, _JPEG, 8, 32773, 32946, 34925, 50000)
"""None, LZW, JPEG, deflate, PackBits, deflate, LZMA, Zstandard: of these it is known before how much they give."""
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6

Place = tuple[int, int, int, int]
"""x_min, y_min, x_max, y_max in pixels."""


class TiffWindows:
    """The first picture of a TIFF or BigTIFF file.

    Args:
        path: The file.
        bands: Which samples of each pixel are read, from 0: one or three. None: the first three where there are as many
            colours or bands, else the first.

    Attributes:
        path: The file.
        width: In pixels.
        height: In pixels.
        dtype: Type of the samples.
        white: The largest value that the file declares, where it is less than the type's; else None.
        is_inverted: Whether the largest value is black.
        bands: The samples of each pixel that are read.
        profile: The ICC profile of the colours; None if there is none, or `bands` are given.

    Raises:
        PictureError: IMAGE_UNREADABLE: it is no TIFF, damaged, or of another kind; IMAGE_TOO_LARGE; BAD_BANDS;
            IMAGE_TOO_COSTLY: it declares tags, tiles or strips that take too much memory.
        ImportError: There is no tifffile.
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path, bands: Sequence[int] | None = None) -> None:
        import tifffile

        self.path = path
        _check_tags(path)
        try:
            with tifffile.TiffFile(path) as file:
                page: Any = file.pages[0]
                self._take(page, bands)
                self._decoded, self._jpeg_tables = page.decode, page.jpegtables  # which may read the file
        except (PictureError, OSError):
            raise
        except Exception as error:  # tifffile raises all kinds of exceptions for damaged files
            raise unreadable(f"the file is no TIFF, or damaged: {decoder_message(error)}") from error
        self._kept: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def _take(self, page: Any, bands: Sequence[int] | None) -> None:
        self._page = page
        self.width, self.height = page.imagewidth, page.imagelength
        if self.width < 1 or self.height < 1:
            raise unreadable(f"the TIFF file states a size of {self.width}x{self.height} pixels")
        if self.width * self.height > MAX_PIXELS:
            raise PictureError(
                "IMAGE_TOO_LARGE", f"the picture has {self.width}x{self.height} pixels; at most {MAX_PIXELS} are read"
            )
        _check_kind(page)
        self.dtype = np.dtype(page.dtype)
        bits = page.bitspersample
        self.white = (1 << bits) - 1 if self.dtype.kind == "u" and bits < 8 * self.dtype.itemsize else None
        self.is_inverted = page.photometric == _WHITE_IS_ZERO
        self.profile = page.iccprofile if bands is None and isinstance(page.iccprofile, bytes) else None
        self.bands = _chosen(bands, page)
        self._is_planar = page.planarconfig == 2 and page.samplesperpixel > 1
        stored = 1 if self._is_planar else page.samplesperpixel
        # Rows of an uncompressed strip can be read by themselves.
        self._is_raw = page.compression == _NONE and not page.is_tiled and bits == 8 * self.dtype.itemsize
        self._row_bytes = self.width * stored * self.dtype.itemsize
        self._across = -(-self.width // page.tilewidth) if page.is_tiled else 1
        self._columns = page.tilewidth if page.is_tiled else self.width
        self._rows = page.tilelength if page.is_tiled else min(page.rowsperstrip, self.height)
        self._step = min(self._rows, max(1, _ROWS_BYTES // self._row_bytes)) if self._is_raw else self._rows
        if self._columns < 1 or self._rows < 1:
            raise unreadable("the TIFF file is damaged: its tiles have no size")
        size = self._step * self._columns * stored * self.dtype.itemsize
        if size > MAX_SEGMENT_BYTES:
            raise too_costly(
                f"the TIFF file has strips or tiles of {size >> 20} MiB; at most {MAX_SEGMENT_BYTES >> 20} MiB are "
                "decoded at once. Save it in tiles of 256x256 pixels"
            )
        self._offsets, self._sizes = page.dataoffsets, page.databytecounts
        needed = -(-self.height // self._rows) * self._across * (page.samplesperpixel if self._is_planar else 1)
        if min(len(self._offsets), len(self._sizes)) < needed:
            raise unreadable("the TIFF file is damaged or incomplete: strips or tiles are missing")

    @property
    def kept_bytes(self) -> int:
        """Number of bytes of decoded segments that are in memory."""
        with self._lock:
            return sum(samples.nbytes for samples in self._kept.values())

    def pieces(self, place: Place) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Yields the parts of tiles or strips that lie in a window: x and y of each in the window, and its samples,
        HxWxB. What the file leaves out is 0.

        Raises:
            PictureError: IMAGE_UNREADABLE: the file is damaged, or was replaced.
            OSError: The file cannot be read.
        """
        left, top, right, bottom = place
        with self.path.open("rb") as file:
            for start, end in self._spans(top, bottom):
                for column in range(left // self._columns, -(-right // self._columns)):
                    x = column * self._columns
                    samples = self._segment(file, start, end, column)
                    x0, x1, y0, y1 = max(left, x), min(right, x + self._columns), max(top, start), min(bottom, end)
                    yield x0 - left, y0 - top, samples[y0 - start : y1 - start, x0 - x : x1 - x]

    def window(self, place: Place) -> NDArray[Any]:
        """Reads a part of the picture, HxWxB. Raises as `pieces`."""
        left, top, right, bottom = place
        window = np.empty((bottom - top, right - left, len(self.bands)), self.dtype)
        for x, y, samples in self.pieces(place):
            window[y : y + samples.shape[0], x : x + samples.shape[1]] = samples
        return window

    def _spans(self, top: int, bottom: int) -> Iterator[tuple[int, int]]:
        """Yields first and last row of what is read at once, for the rows of a window."""
        y = top
        while y < bottom:
            block = y // self._rows * self._rows
            start = block + (y - block) // self._step * self._step
            y = min(start + self._step, block + self._rows, self.height)
            yield start, y

    def _segment(self, file: BinaryIO, start: int, end: int, column: int) -> NDArray[Any]:
        """Returns rows of a tile or strip, HxWxB, which lie in the picture."""
        with self._lock:
            known = self._kept.get((start, column))
            if known is not None:
                self._kept.move_to_end((start, column))
                return known
        if self._is_planar:
            per_plane = -(-self.height // self._rows) * self._across
            read = [self._decode(file, start, end, column, band * per_plane) for band in self.bands]
            samples = np.concatenate(read, axis=2)
        else:
            samples = np.ascontiguousarray(self._decode(file, start, end, column, 0)[..., list(self.bands)])
        with self._lock:
            self._kept[start, column] = samples
            kept = sum(each.nbytes for each in self._kept.values())
            while kept > _KEPT_BYTES:
                kept -= self._kept.popitem(last=False)[1].nbytes
        return samples

    def _decode(self, file: BinaryIO, start: int, end: int, column: int, first: int) -> NDArray[Any]:
        """Decodes rows of a tile or strip of the plane whose segments begin at `first`; HxWxS."""
        width = min(self._columns, self.width - column * self._columns)
        index = first + start // self._rows * self._across + column
        offset, size = self._offsets[index], self._sizes[index]
        if not size:
            return np.zeros((end - start, width, 1 if self._is_planar else self._page.samplesperpixel), self.dtype)
        if self._is_raw:
            skipped = start % self._rows * self._row_bytes
            needed = (end - start) * self._row_bytes
            data = _read(file, offset + skipped, min(needed, size - skipped))
            if len(data) < needed:
                raise unreadable("the TIFF file is damaged or incomplete: a strip is cut off")
            order = self._page.parent.byteorder
            return (
                np.frombuffer(data, self.dtype.newbyteorder(order)).reshape(end - start, width, -1).astype(self.dtype)
            )
        if size > MAX_SEGMENT_BYTES:
            raise too_costly(f"the TIFF file has a tile or strip of {size >> 20} MiB")
        data = _read(file, offset, size)
        if self._page.compression == _JPEG:
            self._check_jpeg(data)
        try:
            decoded, _, _ = self._decoded(data, index, jpegtables=self._jpeg_tables)
        except Exception as error:  # codecs raise all kinds of exceptions
            message = decoder_message(error)
            raise unreadable(f"the TIFF file is damaged: a tile or strip cannot be decoded: {message}") from error
        samples: NDArray[Any] = decoded[0, : end - start, :width]
        return samples

    def _check_jpeg(self, data: bytes) -> None:
        """Refuses a JPEG of another size than its tile's: it would be decoded as a whole."""
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                width, height = image.size
        except Exception as error:  # Pillow raises all kinds of exceptions for damaged files
            raise unreadable(f"the TIFF file is damaged: a tile is no JPEG: {decoder_message(error)}") from error
        if width > self._columns or height > self._rows:
            raise unreadable(
                f"the TIFF file is damaged: a JPEG of {width}x{height} px in a tile of {self._columns}x{self._rows}"
            )


def _check_tags(path: Path) -> None:
    """Refuses tags that take memory out of proportion to the file."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < 8:
            raise unreadable("the file is no TIFF")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                raise unreadable("the file is no TIFF")
            try:
                read_directory(data)
            except struct.error as error:
                raise unreadable("the TIFF file is damaged or incomplete: it ends within its tags") from error


def _check_kind(page: Any) -> None:
    """Refuses pictures that would be shown wrongly."""
    if page.dtype is None or page.dtype.kind not in "uif" or page.bitspersample < 8 or page.imagedepth != 1:
        raise unreadable(
            f"the TIFF file has {page.bitspersample} bits a sample of a kind that is not read by windows; save it with "
            "8 or 16 bits a sample"
        )
    if page.compression not in _COMPRESSIONS:
        name = getattr(page.compression, "name", page.compression)
        raise unreadable(f"the TIFF file is compressed as {name}, which is not read by windows; save it with deflate")
    is_colour = page.photometric == _RGB or (page.photometric == _YCBCR and page.compression == _JPEG)
    if not is_colour and page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        raise unreadable("the TIFF file is neither grey nor RGB; convert it")
    orientation = page.tags.get("Orientation")
    if orientation is not None and orientation.value not in (0, 1):
        raise unreadable("the TIFF file is turned by its orientation; save it upright")


def _chosen(bands: Sequence[int] | None, page: Any) -> tuple[int, ...]:
    """Returns the bands that are read."""
    there: int = page.samplesperpixel
    if bands is None:
        return (0, 1, 2) if there >= 3 else (0,)
    if len(bands) not in (1, 3) or any(not isinstance(band, int) or not 0 <= band < there for band in bands):
        raise PictureError("BAD_BANDS", f"bands are {tuple(bands)}; give one or three, from 0 to {there - 1}")
    return tuple(bands)


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(max(0, size))
    if len(data) < size:
        raise unreadable("the TIFF file is damaged or incomplete: strips or tiles extend past its end")
    return data
