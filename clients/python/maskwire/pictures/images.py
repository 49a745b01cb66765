"""PIL images to files, without loss."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from maskwire.pictures import colour, orientation
from maskwire.pictures.arrays import as_tiff
from maskwire.pictures.errors import PictureError, words

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_ALPHA_MODES = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
# What every encoder reads: not HEIC, and not what else Pillow or its plugins open.
_SENT_AS_THEY_ARE = (
    "JPEG",
    "MPO",
    "PNG",
    "WEBP",
    "TIFF",
    "BMP",
    "DIB",
    "GIF",
    "AVIF",
    "JPEG2000",
    "PPM",
    "TGA",
    "ICO",
)
_COLOUR_MODES = ("RGBX", "YCbCr", "HSV")


def from_pil(image: Image.Image) -> bytes:
    """A file that holds what a PIL image shows.

    An image that was opened from a file and not changed since is that file: Pillow keeps 8 bits of much that has more.

    Args:
        image: Of any mode. EXIF orientation is applied; a colour profile goes with the file.

    Raises:
        PictureError: BAD_IMAGE: it is closed, empty or of a mode that is not known, or its file is damaged.
    """
    if 0 in image.size:
        raise PictureError("BAD_IMAGE", f"the PIL image has no pixels: its size is {image.width}x{image.height}")
    try:
        try:
            file = _untouched(image)
        except (FileNotFoundError, PermissionError, UnidentifiedImageError):
            file = None  # it was removed, or replaced by something else
        if file is not None:
            return file
        image.load()
    except Exception as error:  # of the decoder, or since the file is closed
        raise PictureError("BAD_IMAGE", f"the PIL image cannot be read: {words(error)}") from error
    image = orientation.turned(image, orientation.of_exif(image.info.get("exif")))
    if image.mode.startswith("I;16"):
        return as_tiff(_with_key(np.asarray(image).astype(np.uint16), image.info.get("transparency")))
    if image.mode == "I":
        levels = np.asarray(image)
        # Of these formats Pillow gives 16-bit samples as 32-bit ones.
        return as_tiff(levels.astype(np.uint16) if image.format in ("PPM", "JPEG2000") else levels)
    if image.mode == "F":
        return as_tiff(np.asarray(image))
    return _saved(image)


def _saved(image: Image.Image) -> bytes:
    """An image of 8 bits a sample, as PNG; CMYK as TIFF, since PNG has none."""
    buffer, profile = io.BytesIO(), image.info.get("icc_profile")
    if image.mode == "CMYK":
        options = {"icc_profile": profile} if profile else {}
        image.save(buffer, "TIFF", compression="tiff_adobe_deflate", **options)
        return buffer.getvalue()
    if image.mode in _ALPHA_MODES:
        image = image.convert(_ALPHA_MODES[image.mode])
    elif image.mode == "LAB":
        image, profile = colour.to_srgb(image, None), None
    elif image.mode in _COLOUR_MODES:
        image = image.convert("RGB")
    elif image.mode == "P" and image.palette is not None and image.palette.mode != "RGB":
        image = image.convert(image.palette.mode if image.palette.mode == "RGBA" else "RGB")
    elif image.mode not in _PNG_MODES:
        raise PictureError("BAD_IMAGE", f"a PIL image of mode {image.mode!r}; convert it to RGB")
    image.save(buffer, "PNG", compress_level=1, icc_profile=profile)
    return buffer.getvalue()


def _with_key(levels: NDArray[np.uint16], key: Any) -> NDArray[np.uint16]:
    """Grey levels, and alpha if one of them is transparent."""
    if not isinstance(key, int):
        return levels
    return np.dstack([levels, np.where(levels == key, 0, 65535).astype(np.uint16)])


def _untouched(image: Image.Image) -> bytes | None:
    """The file of an image that shows just what its file holds; None if it may show something else.

    The pixels of an image that is loaded already are compared with the file's, which takes less time than to compress
    them.
    """
    if not isinstance(image, ImageFile.ImageFile) or image.format not in _SENT_AS_THEY_ARE or image.tell() != 0:
        return None
    is_open = image.fp is not None and not image.fp.closed
    if is_open:
        place = image.fp.tell()  # type: ignore[union-attr]
        image.fp.seek(0)  # type: ignore[union-attr]
        data = image.fp.read()  # type: ignore[union-attr]
        image.fp.seek(place)  # type: ignore[union-attr]
    else:
        image.load()  # raises if it was closed before
        if not image.filename:
            return None
        data = Path(os.fsdecode(image.filename)).read_bytes()
    again = Image.open(io.BytesIO(data))
    is_loaded = not (is_open and image.tile)
    if is_loaded:
        again.load()  # which may turn it
    if (again.format, again.mode, again.size) != (image.format, image.mode, image.size):
        return None
    return data if not is_loaded or image.tobytes() == again.tobytes() else None
