"""Decoders of the formats that Pillow reads well. PNG and TIFF have modules of their own."""

import io
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PpmImagePlugin,
    TgaImagePlugin,
    WebPImagePlugin,
)

from maskwire.pictures.bmp import use_own_rle
from maskwire.pictures.colour import transform_of
from maskwire.pictures.decoded import Decoded
from maskwire.pictures.errors import too_costly, unreadable
from maskwire.pictures.jpeg_header import check_jpeg
from maskwire.pictures.levels import Levels
from maskwire.pictures.limits import Limits
from maskwire.pictures.png import decode_png
from maskwire.pictures.tiff import decode_tiff

_PPM_SIZE = re.compile(rb"P[1-6f](?:\s+|#[^\r\n]*[\r\n])+\d+(?:\s+|#[^\r\n]*[\r\n])+\d")
_MAX_PPM_HEADER = 1 << 16  # Pillow reads it byte by byte

DecodeJpeg = Callable[[bytes, int, int], "NDArray[np.uint8] | None"]
"""A faster decoder of ordinary JPEGs whose pixels equal Pillow's. Takes the file, its width and its height; returns
HxWx3 RGB, or None for files that it leaves to Pillow."""


def decode_file(data: bytes, kind: str, limits: Limits, fast_jpeg: DecodeJpeg | None) -> Decoded:
    """Decodes an image file.

    Args:
        data: The file.
        kind: Its format, one of `formats.SUPPORTED`.
        limits: Largest size that is decoded.
        fast_jpeg: Decoder to try first for JPEGs.

    Raises:
        PictureError: The file is damaged, of an unsupported kind, or larger than the limits. The libraries raise other
            exceptions, too, for damaged files.
    """
    if kind == "JPEG":
        return _decode_jpeg(data, limits, fast_jpeg)
    return _DECODERS[kind](data, limits)


def _decode_jpeg(data: bytes, limits: Limits, fast_jpeg: DecodeJpeg | None) -> Decoded:
    """Decodes a JPEG, or the first picture of an MPO."""
    check_jpeg(data)
    image: Any = JpegImagePlugin.jpeg_factory(io.BytesIO(data), "")
    limits.check(*image.size)
    exif, profile = image.info.get("exif"), image.info.get("icc_profile")
    if fast_jpeg is not None and image.mode in ("RGB", "L") and transform_of(profile, image.mode) is None:
        pixels = fast_jpeg(data, *image.size)
        if pixels is not None:
            return Decoded(pixels=pixels, exif=exif)
    image.load()
    return Decoded(image=image, exif=exif, profile=profile)


def _decode_bmp(data: bytes, limits: Limits) -> Decoded:
    plugin = BmpImagePlugin.BmpImageFile if data[:2] == b"BM" else BmpImagePlugin.DibImageFile
    image = plugin(io.BytesIO(data), "")
    limits.check(*image.size)
    use_own_rle(image, data)
    return _load(image, limits)


def _decode_jpeg_2000(data: bytes, limits: Limits) -> Decoded:
    image = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(data), "")
    limits.check(*image.size)
    image.load()
    if image.mode in ("I", "I;16"):  # Pillow has scaled them to 16 bits, whatever their depth
        return Decoded(levels=Levels(np.asarray(image).astype(np.uint16)))
    return Decoded(image=image)


def _decode_ppm(data: bytes, limits: Limits) -> Decoded:
    if not _PPM_SIZE.match(data[:_MAX_PPM_HEADER]) and len(data) > _MAX_PPM_HEADER:
        raise too_costly(f"the PPM file does not state its size in its first {_MAX_PPM_HEADER} bytes")
    image = PpmImagePlugin.PpmImageFile(io.BytesIO(data), "")
    limits.check(*image.size)
    tile: Any = image.tile[0]
    kind, depth = data[:2], tile.args[1] if isinstance(tile.args, tuple) and len(tile.args) == 2 else 255
    if tile.args == "I;16B":
        depth = 65535
    if kind in (b"P5", b"P6") and depth > 255:
        channels = 1 if kind == b"P5" else 3
        width, height = image.size
        limits.check_bytes(width * height * channels * 2)
        if len(data) < tile.offset + width * height * channels * 2:
            raise unreadable("the PPM file is incomplete: pixels are missing")
        samples = np.frombuffer(data, ">u2", width * height * channels, tile.offset).astype(np.uint16)
        shape = (height, width) if channels == 1 else (height, width, channels)
        return Decoded(levels=Levels(samples.reshape(shape), depth))
    image.load()
    if image.mode == "F":
        return Decoded(levels=Levels(np.asarray(image)))
    if image.mode == "I":  # Pillow has scaled them to 16 bits
        return Decoded(levels=Levels(np.asarray(image).astype(np.uint16)))
    return Decoded(image=image)


def _decode_ico(data: bytes, limits: Limits) -> Decoded:
    """Decodes the largest picture of an icon; among equally large ones, the one with the most colours."""
    (count,) = struct.unpack_from("<H", data, 4)
    entries = [struct.unpack_from("<BBBBHHII", data, 6 + 16 * index) for index in range(count)]
    if not entries:
        raise unreadable("the ICO file has no pictures")
    # A side of 256 pixels is stored as 0.
    entry = max(entries, key=lambda entry: ((entry[0] or 256) * (entry[1] or 256), entry[5]))
    body = data[entry[7] : entry[7] + entry[6]]
    if body.startswith(b"\x89PNG\r\n\x1a\n"):
        return decode_png(body, limits)
    width, height = struct.unpack_from("<ii", body, 4)
    limits.check(width, abs(height) // 2)
    # Pillow chooses by other rules, so it is given a file that holds this picture alone.
    alone = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", *entry[:6], len(body), 22) + body
    return _load(IcoImagePlugin.IcoImageFile(io.BytesIO(alone), ""), limits)


def _decode_heic(data: bytes, limits: Limits) -> Decoded:
    """Decodes HEIC with pi-heif, an optional dependency, which applies the container's orientation itself."""
    try:
        import pi_heif
    except ImportError as error:
        raise unreadable(
            "the file is HEIC, for which pi-heif must be installed where the image is decoded "
            "(pip install 'maskwire[heic]'); or convert it to JPEG or PNG"
        ) from error
    opened = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True, bgr_mode=False)
    primary = opened[opened.primary_index]
    limits.check(*primary.size)
    image = primary.to_pillow()
    return Decoded(image=image, orientation=1, profile=image.info.get("icc_profile"))


def _load(image: ImageFile.ImageFile, limits: Limits) -> Decoded:
    limits.check(*image.size)
    image.load()
    return Decoded(image=image, exif=image.info.get("exif"), profile=image.info.get("icc_profile"))


def _by_pillow(plugin: Callable[[io.BytesIO, str], ImageFile.ImageFile]) -> Callable[[bytes, Limits], Decoded]:
    return lambda data, limits: _load(plugin(io.BytesIO(data), ""), limits)


_DECODERS: dict[str, Callable[[bytes, Limits], Decoded]] = {
    "PNG": decode_png,
    "WebP": _by_pillow(WebPImagePlugin.WebPImageFile),
    "TIFF": decode_tiff,
    "BMP": _decode_bmp,
    "GIF": _by_pillow(GifImagePlugin.GifImageFile),
    "AVIF": _by_pillow(AvifImagePlugin.AvifImageFile),  # Pillow reports irot and imir of the container as EXIF
    "HEIC": _decode_heic,
    "JPEG 2000": _decode_jpeg_2000,
    "PPM": _decode_ppm,
    "TGA": _by_pillow(TgaImagePlugin.TgaImageFile),
    "ICO": _decode_ico,
}
