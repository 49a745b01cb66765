"""Files that take work or memory out of proportion to what they show are refused; the others are decoded as before."""

import io
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire.pictures import PictureError, decode_picture
from maskwire.pictures.cost import estimate
from maskwire.pictures.jpeg_header import MAX_SCANS
from PIL import Image

from testing.picture_files import by_pillow, deep_tiffs, pngs

MOST = 120_000_000


def rle_bmp(width: int, height: int, body: bytes, bits: int = 8) -> bytes:
    colours = 1 << bits
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 1 if bits == 8 else 2, len(body), 0, 0, colours, 0)
    palette = np.random.default_rng(0).integers(0, 256, 4 * colours, np.uint8).tobytes()
    start = 54 + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


def many_scans(count: int, width: int = 64, height: int = 64) -> bytes:
    """A grey progressive JPEG whose scans after the first are empty."""
    blocks = -(-width // 8) * -(-height // 8)
    parts = [
        b"\xff\xd8\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([16] * 64),
        b"\xff\xc2" + struct.pack(">HBHHBBBB", 11, 8, height, width, 1, 1, 0x11, 0),
        b"\xff\xc4" + struct.pack(">HB", 20, 0x00) + bytes([1] + [0] * 15) + b"\0",
        b"\xff\xc4" + struct.pack(">HB", 21, 0x10) + bytes([1, 1] + [0] * 14) + b"\xe0\0",
        b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 0, 0, 0) + bytes(blocks // 8 + 1),
    ]
    scan = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 1, 0) + b"\x00\x00" * -(-blocks // 32767)
    return b"".join(parts) + scan * (count - 1) + b"\xff\xd9"


def exif_with_much_data(entries: int, size: int) -> bytes:
    """An EXIF block whose entries all point to the same bytes."""
    directory = b"".join(struct.pack("<HHII", 0x9000 + index, 7, size, 8) for index in range(entries))
    place = 8 + size
    return b"Exif\0\0" + struct.pack("<2sHI", b"II", 42, place) + bytes(size) + struct.pack("<H", entries) + directory


def refusal(data: bytes) -> PictureError:
    started = time.thread_time()
    with pytest.raises(PictureError) as caught:
        decode_picture(data, max_pixels=MOST)
    assert time.thread_time() - started < 2
    return caught.value


def test_a_bmp_whose_runs_cannot_fill_it() -> None:
    error = refusal(rle_bmp(MOST, 1, b"\1\7\0\0\0\1"))
    assert error.reason == "IMAGE_UNREADABLE"
    assert "PNG" in error.message


def test_rows_of_a_bmp_that_end_early_are_filled_at_once() -> None:
    """A megabyte that ends each of its rows after a pixel; Pillow fills them byte by byte."""
    rows = 20_000
    started = time.thread_time()
    pixels = decode_picture(rle_bmp(400, rows, b"\1\7\0\0" * rows), max_pixels=MOST).pixels
    assert pixels.shape == (rows, 400, 3)
    assert time.thread_time() - started < 2


_PARTS = st.one_of(
    st.tuples(st.integers(1, 255), st.integers(0, 255)).map(bytes),
    st.sampled_from([b"\0\0", b"\0\1"]),
    st.tuples(st.integers(0, 4), st.integers(0, 3)).map(lambda jump: b"\0\2" + bytes(jump)),
    st.binary(min_size=3, max_size=20).map(lambda body: bytes([0, len(body)]) + body + b"\0" * (len(body) % 2)),
)


@given(
    st.integers(1, 40), st.integers(1, 8), st.sampled_from([4, 8]), st.lists(_PARTS, max_size=60), st.binary(max_size=3)
)
@settings(max_examples=200, deadline=None)
def test_run_lengths_are_as_pillow_reads_them(
    width: int, height: int, bits: int, parts: list[bytes], rest: bytes
) -> None:
    data = rle_bmp(width, height, b"".join(parts) + rest, bits)
    try:
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except Exception:
        with pytest.raises(PictureError):
            decode_picture(data)
        return
    try:
        np.testing.assert_array_equal(decode_picture(data).pixels, expected)
    except PictureError as error:
        assert "can fill at most" in error.message  # noqa: PT017


def test_scans_of_a_jpeg() -> None:
    assert decode_picture(many_scans(MAX_SCANS)).pixels.shape == (64, 64, 3)
    error = refusal(many_scans(5000, 2000, 2000))
    assert error.reason == "IMAGE_TOO_COSTLY"
    assert "scans" in error.message


def test_segments_of_a_jpeg() -> None:
    plain = by_pillow(Image.new("RGB", (60, 40)), "JPEG")
    assert "segments" in refusal(plain[:2] + b"\xff\xfe\0\2" * 1_000_000 + plain[2:]).message
    part = b"\xff\xe1" + struct.pack(">H", 60_000) + b"Exif\0\0" + bytes(59_992)
    assert "EXIF" in refusal(plain[:2] + part * 500 + plain[2:]).message


def test_scans_within_other_segments_do_not_count() -> None:
    plain = by_pillow(Image.new("RGB", (60, 40)), "JPEG", progressive=True)
    noise = b"\xff\xe7" + struct.pack(">H", 2 + 2 * 1000) + b"\xff\xda" * 1000
    np.testing.assert_array_equal(decode_picture(plain[:2] + noise + plain[2:]).pixels, decode_picture(plain).pixels)
    behind = plain + many_scans(500)  # the second picture of a file
    np.testing.assert_array_equal(decode_picture(behind).pixels, decode_picture(plain).pixels)


def test_exif_with_tags_that_share_bytes_is_ignored() -> None:
    started = time.thread_time()
    exif = exif_with_much_data(4000, 1 << 20)
    for form in ("PNG", "WEBP"):
        data = by_pillow(Image.new("RGB", (60, 40)), form, exif=exif)
        assert decode_picture(data).pixels.shape == (40, 60, 3)
    assert time.thread_time() - started < 3


def test_tiff_with_tags_that_share_bytes() -> None:
    block = exif_with_much_data(4000, 1 << 20)[6:]
    error = refusal(block)
    assert error.reason == "IMAGE_TOO_COSTLY"


def test_tiff_with_a_huge_tile() -> None:
    entries = [
        (256, 1),
        (257, 1),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 65520),
        (323, 65520),
        (324, 8),
        (325, 8),
    ]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    data = struct.pack("<2sHI", b"II", 42, 16) + bytes(8) + struct.pack("<H", len(entries)) + directory + bytes(4)
    assert refusal(data).reason == "IMAGE_TOO_COSTLY"


def test_png_of_a_million_chunks() -> None:
    plain = by_pillow(Image.new("RGB", (60, 40)), "PNG")
    place = plain.index(b"IDAT") - 4
    empty = b"\0\0\0\0IDAT\x35\xaf\x06\x1e"
    assert refusal(plain[:place] + empty * 1_000_000 + plain[place:]).reason == "IMAGE_TOO_COSTLY"


def test_a_ppm_with_an_endless_comment() -> None:
    assert refusal(b"P6\n#" + b"x" * 20_000_000 + b"\n2 2\n255\n" + bytes(12)).reason == "IMAGE_TOO_COSTLY"


def test_estimates_know_the_size_of_each_kind() -> None:
    files = {name: data for name, (data, _) in {**deep_tiffs(), **pngs()}.items()}
    image = Image.new("RGB", (63, 45))
    for form in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "PPM", "TGA"):
        files[form] = by_pillow(image, form)
        files[f"{form} 2"] = by_pillow(image.convert("L"), form)
    for name, data in files.items():
        height, width, _ = decode_picture(data).pixels.shape
        assert estimate(data).pixels == width * height, name
