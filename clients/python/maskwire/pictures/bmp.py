"""Decodes run-length encoded BMPs; Pillow's decoder fills rows byte by byte."""

import struct
from typing import Any

from PIL import Image, ImageFile

from maskwire.pictures.errors import unreadable

_MOST_A_BYTE = 128  # two bytes of a file make at most 255 pixels
_HIGH, _LOW = bytes(value >> 4 for value in range(256)), bytes(value & 15 for value in range(256))
_DECODER = "maskwire_bmp_rle"


def use_own_rle(image: ImageFile.ImageFile, data: bytes) -> None:
    """Has an opened BMP decoded by `_RleDecoder` if it is run-length encoded.

    Raises:
        PictureError: IMAGE_UNREADABLE: the file's data cannot fill the size that it states.
    """
    for tile in image.tile:
        if tile.codec_name != "bmp_rle":
            continue
        most = max(0, len(data) - tile.offset) * _MOST_A_BYTE
        if image.width * image.height > most:
            raise unreadable(
                f"the BMP file states {image.width}x{image.height} pixels, but its run-length encoded data can fill at "
                f"most {most}; save it again, uncompressed or as PNG"
            )
    image.tile = [tile._replace(codec_name=_DECODER) if tile.codec_name == "bmp_rle" else tile for tile in image.tile]


class _RleDecoder(ImageFile.PyDecoder):
    """BI_RLE8 and BI_RLE4, with the same pixels as Pillow's decoder."""

    _pulls_fd = True

    def decode(self, buffer: Any) -> tuple[int, int]:
        assert self.fd is not None
        start = self.fd.tell()
        pixels = _expand(self.fd.read(), start, self.state.xsize, self.state.ysize, bool(self.args[1]))
        self.set_as_raw(pixels, "L" if self.mode in {"1", "L"} else "P", (0, self.args[-1]))
        return -1, 0


Image.register_decoder(_DECODER, _RleDecoder)


def _expand(data: bytes, start: int, width: int, height: int, is_rle4: bool) -> bytes:
    """Expands run-length encoded rows.

    Args:
        data: The rows, as they are encoded.
        start: Where they begin in the file; absolute runs end at even places of the file.
        width: Width in pixels.
        height: Height in pixels.
        is_rle4: Whether a byte holds two pixels.

    Returns:
        A byte a pixel; fewer than width x height if the data end before.
    """
    most, pixels, column, place = width * height, bytearray(), 0, 0
    while len(pixels) < most and place + 2 <= len(data):
        count, value = data[place], data[place + 1]
        place += 2
        if count:
            count = max(0, min(count, width - column))
            if is_rle4:
                pixels += (bytes((value >> 4, value & 15)) * ((count + 1) // 2))[:count]
            else:
                pixels += data[place - 1 : place] * count
            column += count
        elif value == 0:  # end of the row
            pixels += bytes(-len(pixels) % width)
            column = 0
        elif value == 1:  # end of the picture
            break
        elif value == 2:  # a jump
            if place + 2 > len(data):
                break
            right, up = struct.unpack_from("BB", data, place)
            place += 2
            pixels += bytes(min(most - len(pixels), right + up * width))
            column = len(pixels) % width
        else:  # pixels as they are
            count = min(most - len(pixels), value)
            size = (count + 1) // 2 if is_rle4 else count
            part = data[place : place + size]
            place += len(part)
            if is_rle4:
                both = bytearray(2 * len(part))
                both[0::2], both[1::2] = part.translate(_HIGH), part.translate(_LOW)
                pixels += both[:count]
            else:
                pixels += part
            if len(part) < size or len(pixels) == most:
                break
            column += value
            place += (start + place) % 2
    return bytes(pixels)
