"""Decodes image files for the encoder and the client, by the rules of docs/reference/pictures.md."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire.pictures import colour, formats, orientation
from maskwire.pictures.decoded import Decoded
from maskwire.pictures.decoders import DecodeJpeg, decode_file
from maskwire.pictures.errors import PictureError, decoder_message, too_costly, unreadable
from maskwire.pictures.levels import Levels, Stretch, alpha_to_8_bits, check_stretch, to_8_bits
from maskwire.pictures.limits import Limits

_PIXELS_AT_ONCE = 1 << 20

Room = Callable[[int], NDArray[np.uint8]]
"""Gives room for a number of bytes, once."""


def allocated(size: int) -> NDArray[np.uint8]:
    """Allocates memory."""
    return np.empty(size, np.uint8)  # large arrays in huge pages, where the system offers them


@dataclass(frozen=True)
class Picture:
    """A decoded image file, as a viewer shows it.

    Attributes:
        pixels: HxWx3, uint8, sRGB. EXIF orientation is applied as a view, so strides may be negative or permuted.
        format: Format of the file, one of `formats.SUPPORTED`.
        stretch: How the samples were mapped to 8 bits: none, range or percentile.
    """

    pixels: NDArray[np.uint8]
    format: str
    stretch: Stretch


def decode_picture(
    data: bytes,
    *,
    max_pixels: int | None = None,
    stretch: Stretch = "auto",
    fast_jpeg: DecodeJpeg | None = None,
    room: Room = allocated,
) -> Picture:
    """Decodes an image file.

    Args:
        data: Bytes of the file.
        max_pixels: Largest width x height that is decoded; None for no limit.
        stretch: How samples are mapped to 8 bits.
        fast_jpeg: Decoder to try first for JPEGs; its pixels must equal Pillow's.
        room: Gives memory for a number of bytes, where most pictures' pixels are put.

    Raises:
        PictureError: The file cannot be decoded or exceeds the limit, or the stretch is unknown.
    """
    check_stretch(stretch)
    kind = formats.identify(data)
    try:
        decoded = decode_file(data, kind, Limits(max_pixels), fast_jpeg)
        pixels, applied = _to_srgb(decoded, stretch, room)
    except PictureError:
        raise
    except MemoryError as error:
        raise too_costly(
            f"decoding the {kind} file takes more memory than there is for a picture of its size"
        ) from error
    except Exception as error:  # decoders raise all kinds of exceptions for damaged files
        message = decoder_message(error)
        raise unreadable(
            f"the {kind} file is damaged, incomplete or of an unusual kind: {message}; copy it again from where it "
            "came from, or save it again as an ordinary JPEG or PNG"
        ) from error
    turn = orientation.from_exif(decoded.exif) if decoded.orientation is None else decoded.orientation
    return Picture(orientation.upright(pixels, turn), kind, applied)


def _to_srgb(decoded: Decoded, stretch: Stretch, room: Room) -> tuple[NDArray[np.uint8], Stretch]:
    """Stretches to 8 bits, converts to sRGB, and blends transparency over white. Returns the stretch applied, too."""
    if decoded.pixels is not None:
        return _stretched(decoded.pixels, None, stretch)
    if decoded.image is not None and stretch in ("auto", "none"):
        return _in_bands(decoded.image, decoded.profile, room), "none"
    if decoded.image is not None:
        image, alpha = _split_alpha(decoded.image)
        pixels, applied = _stretched(np.asarray(colour.to_srgb(image, decoded.profile)), alpha, stretch)
        return _over_white(pixels, alpha), applied
    assert decoded.levels is not None
    alpha = None
    if decoded.alpha is not None:
        alpha = alpha_to_8_bits(decoded.alpha)
        decoded.levels.opaque = alpha > 0
    mapped, applied = to_8_bits(decoded.levels, stretch)
    picture = colour.to_srgb(Image.fromarray(np.ascontiguousarray(mapped)), decoded.profile)
    return _over_white(np.asarray(picture), alpha), applied


def _in_bands(image: Image.Image, profile: bytes | None, room: Room) -> NDArray[np.uint8]:
    """Converts to sRGB and blends over white, some rows at a time: each step would else copy the whole picture."""
    width, height = image.im.size  # of a TIFF's image, `size` may be as its orientation turns it
    pixels = room(height * width * 3).reshape(height, width, 3)
    rows = max(1, _PIXELS_AT_ONCE // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        colours, alpha = _split_alpha(image.crop((0, top, width, bottom)))
        pixels[top:bottom] = _over_white(np.asarray(colour.to_srgb(colours, profile)), alpha)
    return pixels


def _stretched(
    pixels: NDArray[np.uint8], alpha: NDArray[np.uint8] | None, stretch: Stretch
) -> tuple[NDArray[np.uint8], Stretch]:
    if stretch in ("auto", "none"):
        return pixels, "none"
    return to_8_bits(Levels(pixels, opaque=None if alpha is None else alpha > 0), stretch)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, NDArray[np.uint8] | None]:
    """Separates the colours from the alpha channel, which is None for images without transparency."""
    if image.mode in ("RGBa", "La"):
        image = image.convert(f"{image.mode[:-1]}A")
    if not image.has_transparency_data:
        return image, None
    if image.mode == "LA":
        return image.getchannel("L"), np.asarray(image.getchannel("A"))
    image = image.convert("RGBA")
    return image.convert("RGB"), np.asarray(image.getchannel("A"))


def _over_white(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    if alpha is None or alpha.min() == 255:
        return pixels
    layered = Image.fromarray(np.dstack([pixels, alpha]))
    white = Image.new("RGBA", layered.size, "white")
    return np.asarray(Image.alpha_composite(white, layered).convert("RGB"))
