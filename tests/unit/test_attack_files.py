"""The files that the attacks send are what they say: small, and with many pixels."""

import io

import pytest
from PIL import Image

from tests.faults.attacks import pictures
from tests.faults.attacks.http2 import header


@pytest.mark.parametrize(
    ("data", "kind", "size", "most_bytes"),
    [
        (pictures.webp(500), "WEBP", (500, 500), 40),
        (pictures.bmp(3000, 7), "BMP", (3000, 1), 1100),
        (pictures.jpeg(200, 30), "JPEG", (200, 200), 1000),
        (pictures.png(300, 7), "PNG", (300, 300), 3000),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_small_files_hold_many_pixels(data: bytes, kind: str, size: tuple[int, int], most_bytes: int) -> None:
    assert len(data) <= most_bytes
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert (image.format, image.size) == (kind, size)


def test_lengths_of_long_headers() -> None:
    """Integers of RFC 7541, 5.1, with a prefix of 7 bits."""
    assert header(b"a", b"b") == b"\x00\x01a\x01b"
    assert header(b"a", b"x" * 127)[3:5] == b"\x7f\x00"
    assert header(b"a", b"x" * 1337)[3:6] == b"\x7f\xba\x09"
