"""Decodes image files, by the rules of docs/reference/pictures.md."""

import logging
import warnings

import numpy as np
import simplejpeg
from maskwire.pictures import Picture, PictureError, Stretch, decode_picture
from maskwire_core.errors import InvalidArgument
from numpy.typing import NDArray

# Pillow's complaints about a file are sent to its sender; in the log they would name no request.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def read_image(data: bytes, max_pixels: int, stretch: Stretch = "auto") -> Picture:
    """Decodes an image file.

    Args:
        data: The content of the file.
        max_pixels: Largest width x height to decode.
        stretch: How samples of more than 8 bits are mapped to 8 bits.

    Raises:
        InvalidArgument: IMAGE_UNREADABLE, IMAGE_TOO_LARGE or EMPTY_IMAGE, for the field "image".
    """
    try:
        return decode_picture(data, max_pixels=max_pixels, stretch=stretch, fast_jpeg=_ordinary_jpeg)
    except PictureError as error:
        raise InvalidArgument(error.reason, error.message, field="image") from error


def _ordinary_jpeg(data: bytes, width: int, height: int) -> NDArray[np.uint8] | None:
    """Decodes an ordinary JPEG with libjpeg-turbo, as Pillow does, but without Pillow's copies.

    Returns:
        HxWx3, equal to Pillow's; None if libjpeg reports a warning or an error, which are left to Pillow.
    """
    try:
        stored_height, stored_width, *_ = simplejpeg.decode_jpeg_header(data)
        if (stored_width, stored_height) != (width, height):
            return None
        # NumPy allocates large arrays in huge pages where the system offers them.
        room = np.empty(height * width * 3, np.uint8)
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", buffer=room.data)
        return pixels
    except ValueError:
        return None
