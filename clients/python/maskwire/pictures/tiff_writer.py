"""Writes TIFF files."""

import struct
from collections.abc import Mapping, Sequence

from PIL.ExifTags import Base as Tag

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
