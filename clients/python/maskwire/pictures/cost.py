"""What decoding an image file may take, by its header alone.

Headers are parsed here byte by byte and within bounds, so that an estimate costs next to nothing whatever the file is.
The real decoder parses the file again: who decodes strangers' files charges what is estimated here, and holds the
decoder to it.
"""

import mmap
import re
import struct
from dataclasses import dataclass

from maskwire.pictures import formats
from maskwire.pictures.errors import PictureError
from maskwire.pictures.limits import Limits
from maskwire.pictures.tiff_header import Directory, read_directory

_SLACK_BYTES = 64 << 20  # of libraries, whatever the picture's size
_FILE_COPIES = 3
_SLACK_S = 2.0
_S_PER_MB = 0.15
_BMP_RLE_S_PER_MB = 2.0
_TEXT_S_PER_MB = 0.5
_MAX_MARKERS = 4096  # segments before the frame header of a JPEG


Bytes = bytes | bytearray | mmap.mmap


@dataclass(frozen=True)
class Cost:
    """The most that decoding a file may take.

    Attributes:
        pixels: Width x height.
        bytes: Memory, beside the file itself and the result.
        cpu_s: Processor time of all threads, on a slow machine.
    """

    pixels: int
    bytes: int
    cpu_s: float


@dataclass(frozen=True)
class _Kind:
    """A size, and what each pixel may take; factors are measured and rounded up."""

    width: int
    height: int
    bytes_a_pixel: float
    s_per_mp: float
    s_per_mb: float = _S_PER_MB


def estimate(data: Bytes, limits: Limits | None = None) -> Cost:
    """Estimates what decoding a file may take.

    Args:
        data: The file.
        limits: Largest size that is decoded.

    Raises:
        PictureError: The file is no image of a supported format, or it is larger than the limits.
    """
    kind = formats.identify(bytes(data[:4096]))
    try:
        found = _HEADERS[kind](data)
    except PictureError:
        raise
    except (struct.error, IndexError, ValueError):
        found = _Kind(1, 1, 0, 0)  # damaged; the decoder says how
    if limits is not None and found.width > 0 and found.height > 0:
        limits.check(found.width, found.height)
    pixels = max(1, found.width * found.height)
    return Cost(
        pixels,
        int(_SLACK_BYTES + _FILE_COPIES * len(data) + pixels * found.bytes_a_pixel),
        _SLACK_S + pixels / 1e6 * found.s_per_mp + len(data) / 1e6 * found.s_per_mb,
    )


def _find(data: Bytes, wanted: bytes, start: int, end: int | None = None) -> int:
    place = data.find(wanted, start, len(data) if end is None else end)
    if place < 0:
        raise ValueError
    return place


def _jpeg(data: Bytes) -> _Kind:
    place = 2
    for _ in range(_MAX_MARKERS):
        place = _find(data, b"\xff", place)
        while data[place] == 0xFF:
            place += 1
        marker, place = data[place], place + 1
        if marker in (0, 1) or 0xD0 <= marker <= 0xD8:
            continue
        (length,) = struct.unpack_from(">H", data, place)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            _, height, width, components = struct.unpack_from(">BHHB", data, place + 2)
            # A progressive file's coefficients are kept: 2 bytes for each sample.
            return _Kind(width, height, 20 if components == 4 else 16, 0.25)
        if marker in (0xD9, 0xDA):
            break
        place += length
    raise ValueError


def _png(data: Bytes) -> _Kind:
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    has_alpha = colour >= 4 or b"tRNS" in data[: 1 << 16]
    if depth == 16:
        return _Kind(width, height, 48 if has_alpha else 28, 2.0)
    return _Kind(width, height, 12, 1.0 if has_alpha else 0.5)


def _webp(data: Bytes) -> _Kind:
    form = data[12:16]
    if form == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return _Kind(width & 0x3FFF, height & 0x3FFF, 24, 1.0)
    if form == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return _Kind((bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1, 24, 1.0)
    width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
    return _Kind(width, height, 28, 1.5)


def _tiff(data: Bytes) -> _Kind:
    return _tiff_picture(read_directory(data))


def _tiff_picture(tags: Directory) -> _Kind:
    width, height = tags.first(256, 0), tags.first(257, 0)
    bits, samples, form = tags.first(258, 1), max(1, tags.first(277, 1)), tags.first(339, 1)
    stored = samples * max(1, bits // 8)
    if bits <= 8 and form in (1, 4):
        return _Kind(width, height, 16, 1.0)
    return _Kind(width, height, 16 + stored * (12 if samples in (2, 4, 5) else 6), 1.0 + stored * 0.5)


def _bmp(data: Bytes) -> _Kind:
    place = 14 if data[:2] == b"BM" else 0
    (header,) = struct.unpack_from("<I", data, place)
    if header == 12:
        width, height, _, _ = struct.unpack_from("<HHHH", data, place + 4)
        return _Kind(width, height, 12, 0.5)
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, place + 4)
    per_mb = _BMP_RLE_S_PER_MB if compression in (1, 2) else _S_PER_MB
    return _Kind(width, abs(height), 12, 0.5, per_mb)


def _gif(data: Bytes) -> _Kind:
    width, height = struct.unpack_from("<HH", data, 6)
    return _Kind(width, height, 12, 0.6)


def _iso(data: Bytes) -> _Kind:
    """AVIF and HEIC: the largest size that is stated near the beginning; tiles are smaller than the picture."""
    sizes = [struct.unpack_from(">II", data, found.end() + 4) for found in re.finditer(b"ispe", data[: 1 << 20])]
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return _Kind(width, height, 24, 1.2)


def _jpeg_2000(data: Bytes) -> _Kind:
    place = _find(data, b"\xff\x4f\xff\x51", 0, 1 << 20)
    right, bottom, left, top = struct.unpack_from(">IIII", data, place + 8)
    (components,) = struct.unpack_from(">H", data, place + 40)
    return _Kind(right - left, bottom - top, 16 + 6 * min(components, 5), 2.5)


def _ppm(data: Bytes) -> _Kind:
    plain = rb"(?:\s+|#[^\n]*\n)+"
    found = re.match(rb"P[1-6f]" + plain + rb"(\d{1,10})" + plain + rb"(\d{1,10})", data[:4096])
    if found is None:
        raise ValueError
    width, height = int(found[1]), int(found[2])
    return _Kind(width, height, 20, 1.0, _TEXT_S_PER_MB if data[1:2] in b"123" else _S_PER_MB)


def _tga(data: Bytes) -> _Kind:
    width, height = struct.unpack_from("<HH", data, 12)
    return _Kind(width, height, 14, 0.5)


def _ico(data: Bytes) -> _Kind:
    (count,) = struct.unpack_from("<H", data, 4)
    found = _Kind(256, 256, 44, 1.0)
    for index in range(min(count, 256)):
        size, place = struct.unpack_from("<II", data, 6 + 16 * index + 8)
        body = data[place : place + min(size, 64)]
        kind = found
        if body.startswith(b"\x89PNG\r\n\x1a\n"):
            kind = _png(body)
        elif len(body) >= 12:
            width, height = struct.unpack_from("<ii", body, 4)
            kind = _Kind(max(0, width), abs(height) // 2, 44, 1.0)
        found = max(found, kind, key=lambda one: one.width * one.height * one.bytes_a_pixel)
    return found


_HEADERS = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WebP": _webp,
    "TIFF": _tiff,
    "BMP": _bmp,
    "GIF": _gif,
    "AVIF": _iso,
    "HEIC": _iso,
    "JPEG 2000": _jpeg_2000,
    "PPM": _ppm,
    "TGA": _tga,
    "ICO": _ico,
}
