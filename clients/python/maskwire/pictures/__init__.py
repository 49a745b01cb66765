"""Decodes image files, PIL images and arrays by one set of rules (docs/reference/pictures.md).

Shared by the client and the encoder; needs only NumPy and Pillow. `decode_picture` turns the bytes of an image file
into pixels. `from_pil` and `from_array` encode what a program holds as a file that `decode_picture` shows the same way.
"""

from maskwire.pictures.arrays import Channels, check_channels, from_array, is_array
from maskwire.pictures.decoders import DecodeJpeg
from maskwire.pictures.errors import PictureError
from maskwire.pictures.images import from_pil
from maskwire.pictures.levels import Stretch, check_stretch
from maskwire.pictures.picture import Picture, Room, allocated, decode_picture

__all__ = [
    "Channels",
    "DecodeJpeg",
    "Picture",
    "PictureError",
    "Room",
    "Stretch",
    "allocated",
    "check_channels",
    "check_stretch",
    "decode_picture",
    "from_array",
    "from_pil",
    "is_array",
]
