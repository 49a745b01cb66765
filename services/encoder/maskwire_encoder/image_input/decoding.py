"""Decodes image files by the client's rules, with libjpeg-turbo for ordinary JPEGs.

Imports neither torch nor gRPC, since the processes that read files import it, too.
"""

import numpy as np
import simplejpeg
from maskwire.pictures import Picture, Room, Stretch, allocated, decode_picture
from numpy.typing import NDArray


def decode(data: bytes, max_pixels: int, stretch: Stretch = "auto", room: Room = allocated) -> Picture:
    """Decodes an image file.

    Args:
        data: Content of the file.
        max_pixels: Largest width x height to decode.
        stretch: How samples of more than 8 bits are mapped to 8 bits.
        room: Gives memory for the pixels of most pictures.

    Raises:
        PictureError: The file cannot be decoded, or exceeds a limit.
    """
    return decode_picture(
        data,
        max_pixels=max_pixels,
        stretch=stretch,
        fast_jpeg=lambda file, width, height: _ordinary_jpeg(file, width, height, room),
        room=room,
    )


def _ordinary_jpeg(data: bytes, width: int, height: int, room: Room) -> NDArray[np.uint8] | None:
    """Decodes an ordinary JPEG with libjpeg-turbo, as Pillow does, but without Pillow's copies.

    Returns:
        HxWx3, equal to Pillow's; None if libjpeg reports a warning or an error, which are left to Pillow.
    """
    try:
        stored_height, stored_width, *_ = simplejpeg.decode_jpeg_header(data)
        if (stored_width, stored_height) != (width, height):
            return None
        buffer = room(height * width * 3)
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", buffer=buffer.data)
        return pixels
    except ValueError:
        return None
