"""Reads the first directory of a TIFF file, or of an EXIF block, within bounds."""

import mmap
import struct
from dataclasses import dataclass

from maskwire.pictures.errors import too_costly

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_BYTES = (1, 2, 6, 7)  # types whose values stay bytes
_MAX_ENTRIES = 4096
_MAX_NUMBERS = 1 << 21  # values of all tags that become Python numbers: two for each row of a million
_FILE_TIMES = 2  # all values together may take this many times the file; tags may share bytes, but not over and over


@dataclass(frozen=True)
class Directory:
    """Where the values of each tag are."""

    data: bytes | bytearray | mmap.mmap
    order: str  # "<" or ">"
    entries: dict[int, tuple[int, int, int]]  # by tag: type, number of values, offset

    def first(self, tag: int, default: int) -> int:
        """Returns a tag's first value; the default if it is missing or not an integer."""
        kind, count, place = self.entries.get(tag, (0, 0, 0))
        if kind not in _NUMBERS or not count:
            return default
        value: int = struct.unpack_from(self.order + _NUMBERS[kind], self.data, place)[0]
        return value


def read_directory(data: bytes | bytearray | mmap.mmap) -> Directory:
    """Reads the first directory of a TIFF file (or BigTIFF).

    Raises:
        PictureError: IMAGE_TOO_COSTLY: its tags have far more values than a picture needs.
        struct.error: The file is cut off.
    """
    order = ">" if data[:2] == b"MM" else "<"
    if data[2:3] == b"+" or data[3:4] == b"+":
        (start,) = struct.unpack_from(order + "Q", data, 8)
        (count,) = struct.unpack_from(order + "Q", data, start)
        start, entry, inline, word = start + 8, 20, 8, "Q"
    else:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        start, entry, inline, word = start + 2, 12, 4, "I"
    entries: dict[int, tuple[int, int, int]] = {}
    size = numbers = 0
    if count > _MAX_ENTRIES:
        raise too_costly(f"the file has {count} tags, far more than a picture needs")
    for place in range(start, start + entry * count, entry):
        tag, kind, values = struct.unpack_from(f"{order}HH{word}", data, place)
        taken = values * _SIZES.get(kind, 1)
        size += taken
        numbers += 0 if kind in _BYTES else values
        if numbers > _MAX_NUMBERS or size > _FILE_TIMES * len(data) + (1 << 16):
            raise too_costly(f"the tags of the file state {size} bytes of values, far more than a picture needs")
        at = place + entry - inline
        entries[tag] = kind, values, at if taken <= inline else struct.unpack_from(order + word, data, at)[0]
    return Directory(data, order, entries)
