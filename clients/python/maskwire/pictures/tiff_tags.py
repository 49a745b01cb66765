"""TIFF tags, and a writer of TIFF files."""

import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum


class Tag(IntEnum):
    """Numbers of the TIFF tags that are used here."""

    SUBFILE_TYPE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_SIZES = 279
    PLANAR = 284
    PREDICTOR = 317
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_SIZES = 325
    SUB_IFDS = 330
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    ICC_PROFILE = 34675
    DNG_VERSION = 50706


_LONG = 4


def write_tiff(data: bytes, tags: Mapping[Tag, int | Sequence[int]]) -> bytes:
    """Writes a little-endian TIFF file whose only directory is at its end.

    Args:
        data: Content of the file. The header replaces its first 8 bytes; the rest keeps its offsets.
        tags: Value or values of each tag in the directory.
    """
    place = len(data) + len(data) % 2
    entries, more = b"", b""
    after = place + 2 + 12 * len(tags) + 4
    for tag, value in sorted(tags.items()):
        values = [value] if isinstance(value, int) else list(value)
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            packed, more = struct.pack("<I", after + len(more)), more + packed
        entries += struct.pack("<HHI", tag, _LONG, len(values)) + packed
    header = struct.pack("<2sHI", b"II", 42, place)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4) + more
    return b"".join((header, memoryview(data)[8:], bytes(place - len(data)), directory))
