"""Image files to pixels, by the rules of docs/pictures.md."""

import logging
import warnings

import numpy as np
import simplejpeg
from maskwire.pictures import Picture, PictureError, Stretch, decode_picture
from maskwire_core.errors import InvalidArgument
from numpy.typing import NDArray

# What Pillow has to say about a file is told to whoever sent it. In the log it would name no request.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def read_image(data: bytes, max_pixels: int, stretch: Stretch = "auto") -> Picture:
    """Decodes an image file.

    Args:
        data: The file.
        max_pixels: Largest width x height that is decoded.
        stretch: How samples are mapped to 8 bits.

    Raises:
        InvalidArgument: IMAGE_UNREADABLE, IMAGE_TOO_LARGE or EMPTY_IMAGE, of the field "image".
    """
    try:
        return decode_picture(data, max_pixels=max_pixels, stretch=stretch, fast_jpeg=_ordinary_jpeg)
    except PictureError as error:
        raise InvalidArgument(error.reason, error.message, field="image") from error


def _ordinary_jpeg(data: bytes, width: int, height: int) -> NDArray[np.uint8] | None:
    """Pixels of an ordinary JPEG, equal to Pillow's: the same library without Pillow's copies.

    None for files that libjpeg has as much as a warning for. Pillow knows which of those can be shown, and says what is
    wrong with the others.
    """
    try:
        stored_height, stored_width, *_ = simplejpeg.decode_jpeg_header(data)
        if (stored_width, stored_height) != (width, height):
            return None
        # NumPy's memory lies in huge pages where the system offers them.
        room = np.empty(height * width * 3, np.uint8)
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", buffer=room.data)
        return pixels
    except ValueError:
        return None
