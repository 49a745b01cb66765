"""Image files to pixels."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from maskwire_core.errors import InvalidArgument
from maskwire_encoder.images import read_image
from PIL import Image, ImageOps

RANDOM = np.random.default_rng(3)
PIXELS = RANDOM.integers(0, 256, (40, 60, 3), np.uint8)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(PIXELS), form, **options), 10_000), PIXELS)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_equals_pillow(progressive: bool) -> None:
    data = encoded(Image.fromarray(PIXELS), "JPEG", progressive=progressive)
    np.testing.assert_array_equal(read_image(data, 10_000), np.array(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    image = Image.fromarray(PIXELS)
    exif = image.getexif()
    exif[0x0112] = orientation
    data = encoded(image, "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    read = read_image(data, 10_000)
    np.testing.assert_array_equal(read, np.array(expected))
    assert read.shape == ((60, 40, 3) if orientation >= 5 else (40, 60, 3))


def test_transparency_lies_over_white() -> None:
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0, :] = (200, 10, 10, 255)
    pixels[1, 0] = (200, 10, 10, 0)
    read = read_image(encoded(Image.fromarray(pixels), "PNG"), 100)
    assert (read[0] == (200, 10, 10)).all()
    assert (read[1] == 255).all()
    palette = Image.fromarray(pixels).convert("RGB").quantize(4)
    data = encoded(palette, "PNG", transparency=palette.getpixel((0, 0)))
    assert (read_image(data, 100)[0] == 255).all()


def test_grey_palette_cmyk_and_16_bit() -> None:
    grey = PIXELS[..., 0]
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(grey), "PNG"), 10_000), np.dstack([grey] * 3))
    deep = grey.astype(np.uint16) * 256 + 77
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(deep), "PNG"), 10_000), np.dstack([grey] * 3))
    palette = Image.fromarray(PIXELS).quantize(16)
    np.testing.assert_array_equal(read_image(encoded(palette, "PNG"), 10_000), np.array(palette.convert("RGB")))
    cmyk = encoded(Image.fromarray(PIXELS).convert("CMYK"), "TIFF")
    np.testing.assert_array_equal(read_image(cmyk, 10_000), np.array(Image.open(io.BytesIO(cmyk)).convert("RGB")))


def test_an_animation_is_its_first_picture() -> None:
    second = Image.fromarray(255 - PIXELS)
    data = encoded(Image.fromarray(PIXELS), "WEBP", lossless=True, save_all=True, append_images=[second], duration=100)
    np.testing.assert_array_equal(read_image(data, 10_000), PIXELS)


def png_of(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "IMAGE_UNREADABLE"),
        (b"hello", "IMAGE_UNREADABLE"),
        (b"%PDF-1.4 " + b"x" * 100, "IMAGE_UNREADABLE"),
        (encoded(Image.fromarray(PIXELS), "JPEG")[:-400], "IMAGE_UNREADABLE"),
        (encoded(Image.fromarray(PIXELS), "PNG")[:500], "IMAGE_UNREADABLE"),
        (encoded(Image.fromarray(PIXELS), "GIF"), "IMAGE_UNREADABLE"),
        (encoded(Image.fromarray(RANDOM.random((4, 4), np.float32)), "TIFF"), "IMAGE_UNREADABLE"),
        (png_of(100_000, 100_000), "IMAGE_TOO_LARGE"),
        (png_of(50, 50), "IMAGE_UNREADABLE"),
    ],
)
def test_bad_files_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_image(data, 10_000)
    assert caught.value.reason == reason
