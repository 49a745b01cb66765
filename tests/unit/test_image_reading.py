"""Image files to pixels."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire_core.errors import InvalidArgument
from maskwire_encoder.image_input import reading
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps


def read_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    return reading.read_image(data, max_pixels).pixels


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


def as_pillow_reads(data: bytes) -> NDArray[np.uint8]:
    image = Image.open(io.BytesIO(data))
    return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Noise at two scales, from black to white: clipped colours and sharp edges."""
    random = np.random.default_rng(seed)
    coarse = random.integers(-60, 316, ((height + 7) // 8, (width + 7) // 8, 3))
    pixels = np.kron(coarse, np.ones((8, 8, 1), int))[:height, :width] + random.integers(-20, 21, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(0, 2**32),
    st.integers(1, 100),
    st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    st.sampled_from(["RGB", "L", "CMYK"]),
    st.booleans(),
    st.integers(0, 3),
    st.integers(1, 8),
)
@settings(max_examples=150, deadline=None)
def test_any_jpeg_is_as_pillow_reads_it(
    width: int,
    height: int,
    seed: int,
    quality: int,
    subsampling: str,
    mode: str,
    progressive: bool,
    restart: int,
    orientation: int,
) -> None:
    image = picture(width, height, seed).convert(mode)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(
        image,
        "JPEG",
        quality=quality,
        subsampling=subsampling,
        progressive=progressive,
        restart_marker_blocks=restart,
        exif=exif,
    )
    np.testing.assert_array_equal(read_image(data, 10_000), as_pillow_reads(data))


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32), st.sampled_from(["440", "411", "Gray"]))
@settings(max_examples=80, deadline=None)
def test_rare_subsampling_is_as_pillow_reads_it(width: int, height: int, seed: int, subsampling: str) -> None:
    pixels = np.array(picture(width, height, seed))
    data = simplejpeg.encode_jpeg(pixels, colorsubsampling=subsampling)
    np.testing.assert_array_equal(read_image(data, 10_000), as_pillow_reads(data))


def test_unusual_jpegs_are_as_pillow_reads_them() -> None:
    image = picture(70, 50, 1)
    plain = encoded(image, "JPEG")
    files = {
        "rgb": encoded(image, "JPEG", keep_rgb=True),
        "two pictures": encoded(image, "MPO", save_all=True, append_images=[picture(70, 50, 2)]),
        "thumbnail before the picture": plain[:2] + b"\xff\xe7" + struct.pack(">H", len(plain) + 2) + plain + plain[2:],
        "more behind the end": plain + b"\xff\xd8 and more",
        "more within": plain.replace(b"\xff\xda", b"\0\0\0\xff\xda", 1),  # libjpeg warns of it and goes on
    }
    for name, data in files.items():
        np.testing.assert_array_equal(read_image(data, 10_000), as_pillow_reads(data), err_msg=name)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_jpegs_are_as_pillow_reads_them(data: st.DataObject) -> None:
    """Cut off or altered anywhere, a file has the same pixels, or is refused likewise."""
    file = bytearray(encoded(picture(40, 30, 3), "JPEG", progressive=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(0, 3))):
        file[data.draw(st.integers(2, len(file) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(file[: data.draw(st.integers(2, len(file)))])
    try:
        expected = as_pillow_reads(damaged)
    except Exception:
        with pytest.raises(InvalidArgument) as caught:
            read_image(damaged, 10_000)
        assert caught.value.reason in ("IMAGE_UNREADABLE", "IMAGE_TOO_LARGE")
    else:
        if expected.shape[0] * expected.shape[1] <= 10_000:
            np.testing.assert_array_equal(read_image(damaged, 10_000), expected)


def test_a_jpeg_with_two_sizes_is_not_decoded_beyond_the_limit() -> None:
    """The size that was checked is the size that is decoded."""
    large = encoded(picture(400, 300, 4), "JPEG")
    start = large.index(b"\xff\xc0")
    end = start + 2 + int.from_bytes(large[start + 2 : start + 4])
    frame = bytearray(large[start:end])
    frame[5:9] = struct.pack(">HH", 30, 40)
    for position in (start, end):
        with pytest.raises(InvalidArgument):
            read_image(large[:position] + frame + large[position:], 10_000)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, form: str) -> None:
    image = Image.fromarray(PIXELS)
    exif = image.getexif()
    exif[0x0112] = orientation
    data = encoded(image, form, exif=exif)
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
        (b"", "EMPTY_IMAGE"),
        (b"hello", "IMAGE_UNREADABLE"),
        (b"%PDF-1.4 " + b"x" * 100, "IMAGE_UNREADABLE"),
        (encoded(Image.fromarray(PIXELS), "JPEG")[:-400], "IMAGE_UNREADABLE"),
        (encoded(Image.fromarray(PIXELS), "PNG")[:500], "IMAGE_UNREADABLE"),
        (png_of(100_000, 100_000), "IMAGE_TOO_LARGE"),
        (png_of(50, 50), "IMAGE_UNREADABLE"),
    ],
)
def test_bad_files_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_image(data, 10_000)
    assert caught.value.reason == reason
