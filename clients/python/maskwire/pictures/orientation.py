"""EXIF orientation, as browsers apply it."""

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def of_exif(exif: object) -> int:
    """The orientation that EXIF data state: 1 to 8, and 1 where they state none or nonsense.

    XMP is not looked at, as browsers do not; `Image.getexif` would.

    Args:
        exif: The bytes of an EXIF block, with or without "Exif\\0\\0" in front; anything else counts as none.
    """
    if not isinstance(exif, bytes):
        return 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        return valid(tags.get(ExifTags.Base.Orientation))
    except Exception:  # damaged EXIF data are no reason to refuse a picture
        return 1


def valid(orientation: object) -> int:
    """The orientation if it is one, else 1."""
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """A view of stored pixels (HxW or HxWx3) as a viewer shows them."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The same of a PIL image."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
