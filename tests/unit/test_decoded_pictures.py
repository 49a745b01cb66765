"""The pictures of which regions were cut lately."""

import numpy as np
from maskwire.pictures import Picture
from maskwire_core.masks.geometry import Rectangle
from maskwire_encoder.decoded_pictures import DecodedPictures

IMAGE = "tenant", "key"


def picture(height: int, width: int) -> Picture:
    pixels = np.random.default_rng(0).integers(0, 256, (width, height, 3), np.uint8)
    return Picture(pixels.transpose(1, 0, 2)[::-1], "JPEG", "none")  # as a turned one is decoded


def test_parts_are_copied_from_a_copy() -> None:
    pictures, whole = DecodedPictures(1000 * 3), picture(20, 50)
    expected = np.array(whole.pixels)[5:11, 7:40]
    pictures.keep(IMAGE, whole)
    whole.pixels[...] = 0  # the next picture takes its place
    assert IMAGE in pictures
    part = pictures.cut(IMAGE, Rectangle(7, 5, 33, 6))
    assert part is not None
    np.testing.assert_array_equal(part.pixels, expected)
    assert (part.format, part.stretch) == ("JPEG", "none")
    assert part.pixels.base is None  # else the whole picture would stay as long as the part
    assert pictures.cut(("another tenant", "key"), Rectangle(7, 5, 33, 6)) is None
    assert pictures.nbytes == 3000


def test_they_take_no_more_memory_than_they_may() -> None:
    pictures = DecodedPictures(1000 * 3)
    pictures.keep(IMAGE, picture(20, 51))
    assert IMAGE not in pictures
    for number in range(5):
        pictures.keep(("tenant", str(number)), picture(20, 25))
        assert pictures.nbytes <= 3000
    assert [name for name in "01234" if ("tenant", name) in pictures] == ["3", "4"]
    pictures.drop(("tenant", "3"))
    assert pictures.nbytes == 1500
    nothing = DecodedPictures(0)
    nothing.keep(IMAGE, picture(20, 25))
    assert IMAGE not in nothing
