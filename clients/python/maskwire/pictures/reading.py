"""Image files to pixels: the one reader of encoder and client. docs/pictures.md has its rules."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire.pictures import colour, formats, orientation
from maskwire.pictures.decoded import Decoded
from maskwire.pictures.decoders import DecodeJpeg, decoder_of
from maskwire.pictures.errors import PictureError, unreadable, words
from maskwire.pictures.levels import Levels, Stretch, check, to_8_bits, transparency
from maskwire.pictures.limits import Limits


@dataclass(frozen=True)
class Picture:
    """An image file's picture, as a viewer shows it.

    Attributes:
        pixels: HxWx3, uint8, sRGB. EXIF orientation is a view: strides may be negative or in another order.
        format: One of `formats.TAKEN`.
        stretch: How the samples were mapped to 8 bits: none, range or percentile.
    """

    pixels: NDArray[np.uint8]
    format: str
    stretch: Stretch


def read(
    data: bytes,
    *,
    max_pixels: int | None = None,
    stretch: Stretch = "auto",
    decode_jpeg: DecodeJpeg | None = None,
) -> Picture:
    """Decodes an image file.

    Args:
        data: The file.
        max_pixels: Largest width x height that is decoded; None: any.
        stretch: How samples are mapped to 8 bits.
        decode_jpeg: A faster decoder of ordinary JPEGs.

    Raises:
        PictureError: It cannot be read, or is refused.
    """
    check(stretch)
    kind = formats.identify(data)
    try:
        decoded = decoder_of(kind, decode_jpeg)(data, Limits(max_pixels))
        pixels, applied = _finished(decoded, stretch)
    except PictureError:
        raise
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        raise unreadable(f"the {kind} file is damaged, incomplete or of an unusual kind: {words(error)}") from error
    turn = orientation.of_exif(decoded.exif) if decoded.orientation is None else decoded.orientation
    return Picture(orientation.upright(pixels, turn), kind, applied)


def _finished(decoded: Decoded, stretch: Stretch) -> tuple[NDArray[np.uint8], Stretch]:
    """Levels to 8 bits, profile to sRGB, then transparency over white."""
    if decoded.pixels is not None:
        return _stretched(decoded.pixels, None, stretch)
    if decoded.image is not None:
        image, alpha = _split(decoded.image)
        pixels, applied = _stretched(np.asarray(colour.to_srgb(image, decoded.profile)), alpha, stretch)
        return _over_white(pixels, alpha), applied
    assert decoded.levels is not None
    alpha = None
    if decoded.alpha is not None:
        alpha = transparency(decoded.alpha)
        decoded.levels.opaque = alpha > 0
    mapped, applied = to_8_bits(decoded.levels, stretch)
    picture = colour.to_srgb(Image.fromarray(np.ascontiguousarray(mapped)), decoded.profile)
    return _over_white(np.asarray(picture), alpha), applied


def _stretched(
    pixels: NDArray[np.uint8], alpha: NDArray[np.uint8] | None, stretch: Stretch
) -> tuple[NDArray[np.uint8], Stretch]:
    if stretch in ("auto", "none"):
        return pixels, "none"
    return to_8_bits(Levels(pixels, opaque=None if alpha is None else alpha > 0), stretch)


def _split(image: Image.Image) -> tuple[Image.Image, NDArray[np.uint8] | None]:
    """Colours, and transparency where there is any."""
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
