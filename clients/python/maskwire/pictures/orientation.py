"""Applies EXIF orientation as browsers do."""

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from maskwire.pictures.tiff_header import read_directory

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def from_exif(exif: object) -> int:
    """Returns the orientation that an EXIF block states, 1 to 8; 1 if it states none or an invalid one.

    XMP is ignored, as browsers do; `Image.getexif` would read it.

    Args:
        exif: Bytes of the EXIF block, with or without the prefix "Exif\\0\\0"; anything else counts as no block.
    """
    if not isinstance(exif, bytes):
        return 1
    tags = Image.Exif()
    try:
        read_directory(exif.removeprefix(b"Exif\0\0"))  # its bounds
        tags.load(exif)
        return valid_or_1(tags.get(ExifTags.Base.Orientation))
    except Exception:  # a damaged EXIF block is no reason to refuse the picture
        return 1


def valid_or_1(orientation: object) -> int:
    """Returns a valid orientation unchanged, and 1 for anything else."""
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Returns a view of stored pixels (HxW or HxWx3) as a viewer shows them."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def upright_image(image: Image.Image, orientation: int) -> Image.Image:
    """Returns a PIL image as a viewer shows it."""
    return image.transpose(_TRANSPOSES[orientation]) if orientation in _TRANSPOSES else image
