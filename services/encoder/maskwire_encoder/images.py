"""Image files to pixels, as a viewer shows them."""

import io
from typing import Any

import numpy as np
import simplejpeg
from maskwire_core.errors import InvalidArgument
from numpy.typing import NDArray
from PIL import ExifTags, Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")

# The number of pixels is checked below, before anything is decoded, and refused rather than warned about.
Image.MAX_IMAGE_PIXELS = None


def read_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decodes an image file.

    EXIF orientation is applied. Transparency is laid over white. 16-bit grey keeps its upper 8 bits. Of an animation or
    a multi-page file, the first picture is taken. All else becomes RGB as Pillow converts it.

    Args:
        data: A JPEG, PNG, WebP, BMP or TIFF file.
        max_pixels: Largest width x height that is decoded.

    Returns:
        HxWx3, RGB. EXIF orientation is a view: strides may be negative or in another order, the pixels are not moved.

    Raises:
        InvalidArgument: IMAGE_UNREADABLE or IMAGE_TOO_LARGE.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InvalidArgument(
                    "IMAGE_TOO_LARGE",
                    f"the image has {width}x{height} pixels; at most {max_pixels} are accepted, so scale it down",
                    field="chunk",
                )
            pixels = _plain_jpeg(data, image)
            if pixels is None:
                image.load()
                pixels = _rgb(image)
            return _upright(pixels, image.getexif().get(ExifTags.Base.Orientation))
    except InvalidArgument:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them stumble over
        raise InvalidArgument(
            "IMAGE_UNREADABLE", f"not a readable {', '.join(FORMATS)} file: {error}", field="chunk"
        ) from error


def _plain_jpeg(data: bytes, image: Image.Image) -> NDArray[np.uint8] | None:
    """Pixels of an ordinary JPEG, equal to Pillow's: the same library without Pillow's copies.

    None for what is not one: CMYK, other formats, and files that libjpeg has as much as a warning for. Pillow knows
    which of those can be shown, and says what is wrong with the others.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != image.size:
            return None
        # NumPy's memory lies in huge pages where the system offers them.
        room = np.empty(height * width * 3, np.uint8)
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", buffer=room.data)
        return pixels
    except ValueError:
        return None


def _upright(pixels: NDArray[np.uint8], orientation: int | None) -> NDArray[np.uint8]:
    """A view of stored pixels as a viewer shows them; `orientation` is EXIF's tag."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16") or image.mode == "I":
        levels: NDArray[Any] = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("more than 16 bits a pixel")
        return np.repeat((levels.astype(np.uint32) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)
    return np.array(image.convert("RGB"))
