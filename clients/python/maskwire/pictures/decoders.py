"""Formats that Pillow decodes well, each with what is peculiar to it. PNG and TIFF have modules of their own."""

import io
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

from maskwire.pictures import png, tiff
from maskwire.pictures.colour import transform_of
from maskwire.pictures.decoded import Decoded
from maskwire.pictures.errors import unreadable
from maskwire.pictures.levels import Levels
from maskwire.pictures.limits import Limits

DecodeJpeg = Callable[[bytes, int, int], "NDArray[np.uint8] | None"]
"""A faster decoder of ordinary JPEGs, equal to Pillow: file, width and height to HxWx3, RGB; None for any that it does
not do."""


def jpeg(data: bytes, limits: Limits, decode: DecodeJpeg | None) -> Decoded:
    """JPEG and MPO, of which the first picture counts."""
    image: Any = JpegImagePlugin.jpeg_factory(io.BytesIO(data), "")
    limits.check(*image.size)
    exif, profile = image.info.get("exif"), image.info.get("icc_profile")
    if decode is not None and image.mode in ("RGB", "L") and transform_of(profile, image.mode) is None:
        pixels = decode(data, *image.size)
        if pixels is not None:
            return Decoded(pixels=pixels, exif=exif)
    image.load()
    return Decoded(image=image, exif=exif, profile=profile)


def webp(data: bytes, limits: Limits) -> Decoded:
    return _plain(WebPImagePlugin.WebPImageFile(io.BytesIO(data), ""), limits)


def gif(data: bytes, limits: Limits) -> Decoded:
    return _plain(GifImagePlugin.GifImageFile(io.BytesIO(data), ""), limits)


def avif(data: bytes, limits: Limits) -> Decoded:
    # Its orientation is the container's (irot and imir), which Pillow puts in the place of EXIF's.
    return _plain(AvifImagePlugin.AvifImageFile(io.BytesIO(data), ""), limits)


def bmp(data: bytes, limits: Limits) -> Decoded:
    if data[:2] == b"BM":
        return _plain(BmpImagePlugin.BmpImageFile(io.BytesIO(data), ""), limits)
    return _plain(BmpImagePlugin.DibImageFile(io.BytesIO(data), ""), limits)


def tga(data: bytes, limits: Limits) -> Decoded:
    return _plain(TgaImagePlugin.TgaImageFile(io.BytesIO(data), ""), limits)


def jpeg_2000(data: bytes, limits: Limits) -> Decoded:
    image = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(data), "")
    limits.check(*image.size)
    image.load()
    if image.mode in ("I", "I;16"):  # Pillow has brought them to 16 bits, however many there were
        return Decoded(levels=Levels(np.asarray(image).astype(np.uint16)))
    return Decoded(image=image)


def ppm(data: bytes, limits: Limits) -> Decoded:
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
    if image.mode == "I":  # Pillow has brought them to 16 bits
        return Decoded(levels=Levels(np.asarray(image).astype(np.uint16)))
    return Decoded(image=image)


def ico(data: bytes, limits: Limits) -> Decoded:
    """Of an icon's pictures the largest, and of those the one with the most colours."""
    (count,) = struct.unpack_from("<H", data, 4)
    entries = [struct.unpack_from("<BBBBHHII", data, 6 + 16 * index) for index in range(count)]
    if not entries:
        raise unreadable("the ICO file has no pictures")
    # A side of 256 is written as 0.
    entry = max(entries, key=lambda entry: ((entry[0] or 256) * (entry[1] or 256), entry[5]))
    body = data[entry[7] : entry[7] + entry[6]]
    if body.startswith(b"\x89PNG\r\n\x1a\n"):
        return png.read(body, limits)
    width, height = struct.unpack_from("<ii", body, 4)
    limits.check(width, abs(height) // 2)
    # A file with this picture alone, which Pillow then takes.
    alone = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", *entry[:6], len(body), 22) + body
    return _plain(IcoImagePlugin.IcoImageFile(io.BytesIO(alone), ""), limits)


def heic(data: bytes, limits: Limits) -> Decoded:
    """Through pi-heif, an extra. Orientation is the container's, which the library applies."""
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


def decoder_of(kind: str, decode: DecodeJpeg | None) -> Callable[[bytes, Limits], Decoded]:
    """What decodes files of a format; see `formats.TAKEN`."""
    if kind == "JPEG":
        return lambda data, limits: jpeg(data, limits, decode)
    return {
        "PNG": png.read,
        "WebP": webp,
        "TIFF": tiff.read,
        "BMP": bmp,
        "GIF": gif,
        "AVIF": avif,
        "HEIC": heic,
        "JPEG 2000": jpeg_2000,
        "PPM": ppm,
        "TGA": tga,
        "ICO": ico,
    }[kind]


def _plain(image: ImageFile.ImageFile, limits: Limits) -> Decoded:
    limits.check(*image.size)
    image.load()
    return Decoded(image=image, exif=image.info.get("exif"), profile=image.info.get("icc_profile"))
