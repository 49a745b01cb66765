"""Encodes PIL images as image files without loss."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from maskwire.pictures import colour, orientation
from maskwire.pictures.arrays import as_tiff
from maskwire.pictures.errors import PictureError, decoder_message

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_ALPHA_MODES = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
_COLOUR_MODES = ("RGBX", "YCbCr", "HSV")
# Formats that every encoder decodes: neither HEIC nor anything else that Pillow or its plugins open.
_SENT_UNCHANGED = (
    *("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO"),
)


def from_pil(image: Image.Image) -> bytes:
    """Encodes a PIL image as a file.

    An image that was opened from a file and not changed since is returned as that file, since Pillow reduces many
    formats with deeper samples to 8 bits.

    Args:
        image: Image of any mode. EXIF orientation is applied; a colour profile is embedded in the file.

    Raises:
        PictureError: BAD_IMAGE: the image is closed, empty or of an unknown mode, or its file is damaged.
    """
    if 0 in image.size:
        raise PictureError("BAD_IMAGE", f"the PIL image has no pixels: its size is {image.width}x{image.height}")
    try:
        try:
            file = _original_file(image)
        except (FileNotFoundError, PermissionError, UnidentifiedImageError):
            file = None  # it was removed, or replaced by something else
        if file is not None:
            return file
        image.load()
    except Exception as error:  # raised by the decoder, or because the file is closed
        raise PictureError("BAD_IMAGE", f"the PIL image cannot be read: {decoder_message(error)}") from error
    image = orientation.upright_image(image, orientation.from_exif(image.info.get("exif")))
    if image.mode.startswith("I;16"):
        return as_tiff(_with_alpha(np.asarray(image).astype(np.uint16), image.info.get("transparency")))
    if image.mode == "I":
        levels = np.asarray(image)
        # Pillow widens the 16-bit samples of these formats to 32 bits.
        return as_tiff(levels.astype(np.uint16) if image.format in ("PPM", "JPEG2000") else levels)
    if image.mode == "F":
        return as_tiff(np.asarray(image))
    return _encode_8_bits(image)


def _encode_8_bits(image: Image.Image) -> bytes:
    """Encodes an image with 8 bits a sample as PNG, or as TIFF if it is CMYK, which PNG does not support."""
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


def _with_alpha(levels: NDArray[np.uint16], transparent: Any) -> NDArray[np.uint16]:
    """Adds an alpha channel if one grey level is declared transparent."""
    if not isinstance(transparent, int):
        return levels
    return np.dstack([levels, np.where(levels == transparent, 0, 65535).astype(np.uint16)])


def _original_file(image: Image.Image) -> bytes | None:
    """Returns the file that an image was opened from, or None if the image may have been changed since.

    If the image is already loaded, its pixels are compared with the file's; this is faster than compressing them.
    """
    if not hasattr(image, "fp"):
        return None  # it came from another process, with its pixels alone
    if not isinstance(image, ImageFile.ImageFile) or image.format not in _SENT_UNCHANGED or image.tell() != 0:
        return None
    is_open = image.fp is not None and not image.fp.closed
    if is_open:
        place = image.fp.tell()  # type: ignore[union-attr]
        image.fp.seek(0)  # type: ignore[union-attr]
        data = image.fp.read()  # type: ignore[union-attr]
        image.fp.seek(place)  # type: ignore[union-attr]
    else:
        image.load()  # raises if the file was closed before it was loaded
        if not image.filename:
            return None
        data = Path(os.fsdecode(image.filename)).read_bytes()
    again = Image.open(io.BytesIO(data))
    is_loaded = not (is_open and image.tile)
    if is_loaded:
        again.load()  # may apply the orientation
    if (again.format, again.mode, again.size) != (image.format, image.mode, image.size):
        return None
    return data if not is_loaded or image.tobytes() == again.tobytes() else None
