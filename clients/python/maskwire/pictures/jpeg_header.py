"""Refuses JPEGs that take work out of proportion to their size."""

import re
import struct

from maskwire.pictures.errors import too_costly

MAX_SCANS = 100
"""Most scans of a picture. Each is a pass over all of its blocks; usual progressive files have about 10."""

_MAX_SEGMENTS = 4096
_MAX_EXIF_BYTES = 8 << 20  # Pillow joins the parts one by one
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # within entropy-coded data, only RSTn and stuffed zeros follow 0xFF
_START_OF_SCAN, _END = 0xDA, 0xD9


def check_jpeg(data: bytes) -> None:
    """Checks the number of scans and of other segments of the first picture.

    Raises:
        PictureError: IMAGE_TOO_COSTLY.
    """
    scans = segments = exif_bytes = 0
    place = 2
    while (found := _MARKER.search(data, place)) is not None:
        place, marker = found.end(), data[found.end() - 1]
        if marker == _END:
            return
        if marker in (0x01, 0xD8):
            continue
        if place + 2 > len(data):
            return
        (length,) = struct.unpack_from(">H", data, place)
        segments += 1
        if marker == _START_OF_SCAN:
            scans += 1
            if scans == 1 and data.count(b"\xff\xda", place) < MAX_SCANS and segments <= _MAX_SEGMENTS:
                return  # the usual case, without a look at each marker that follows
        elif marker == 0xE1:
            exif_bytes += length
        if scans > MAX_SCANS:
            raise too_costly(f"the JPEG has more than {MAX_SCANS} scans")
        if segments > _MAX_SEGMENTS:
            raise too_costly(f"the JPEG has more than {_MAX_SEGMENTS} segments")
        if exif_bytes > _MAX_EXIF_BYTES:
            raise too_costly(f"the JPEG has more than {_MAX_EXIF_BYTES >> 20} MiB of EXIF and XMP")
        place += length
