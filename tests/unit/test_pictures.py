"""Pictures: the rules of docs/reference/pictures.md, for the client and the encoder alike."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from maskwire import InvalidRequest
from maskwire.pictures import PictureError, Stretch, decode_picture
from maskwire.sources import Reading, Source
from maskwire_encoder.image_input.reading import read_image
from PIL import Image, ImageCms, ImageFile

from testing.picture_files import ALPHA, GREY, RGB, all_files, by_opencv, by_pillow, exif, over_white, png, shown, tiff

FILES = all_files()
MOST = 20_000


def encoded(image: Any, **reading: Any) -> np.ndarray:
    """What the encoder sees of an image that is given to the client."""
    source = Source(image, Reading(**reading))
    return read_image(source.read(), MOST, source.stretch).pixels


@pytest.mark.parametrize("name", FILES)
def test_files_are_read_by_the_rules_however_they_are_given(name: str, tmp_path: Path) -> None:
    data, expected = FILES[name]
    np.testing.assert_array_equal(read_image(data, MOST).pixels, expected)
    path = tmp_path / "picture"
    path.write_bytes(data)
    np.testing.assert_array_equal(np.asarray(Source(path).picture()), expected)
    np.testing.assert_array_equal(encoded(data), expected)
    try:
        image: ImageFile.ImageFile = Image.open(path)
    except Image.UnidentifiedImageError:
        return  # Pillow does not open all that is read here
    np.testing.assert_array_equal(encoded(image), expected)
    try:
        image.load()
    except OSError:  # of these, Pillow reads the header alone
        return
    np.testing.assert_array_equal(encoded(image), expected)


@pytest.mark.parametrize("name", ["png rgb16", "tiff, 0 is white", "palette with alpha", "jpeg", "gif"])
def test_an_image_that_was_changed_is_what_it_shows_now(name: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(FILES[name][0])
    image = Image.open(path)
    image.paste(image.crop((0, 0, 5, 5)), (20, 20))
    white = Image.new("RGBA", image.size, "white")
    expected = np.array(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    np.testing.assert_array_equal(encoded(image), expected)


def mode(name: str) -> Image.Image:
    image = Image.fromarray(RGB)
    rgba = Image.fromarray(np.dstack([RGB, ALPHA]))
    deep = GREY.astype(np.uint16) * 256 + 9
    made = {
        "1": lambda: Image.fromarray(GREY > 99),
        "LA": lambda: Image.fromarray(np.dstack([GREY, ALPHA])),
        "La": lambda: Image.fromarray(np.dstack([GREY, ALPHA])).convert("La"),
        "PA": lambda: image.quantize(200).convert("PA"),
        "RGBA": lambda: rgba,
        "RGBa": lambda: rgba.convert("RGBa"),
        "I": lambda: Image.fromarray(deep.astype(np.int32)),
        "I;16": lambda: Image.fromarray(deep),
        "I;16B": lambda: Image.frombytes("I;16B", (63, 45), deep.astype(">u2").tobytes()),
        "F": lambda: Image.fromarray(GREY.astype(np.float32)),
    }
    return made.get(name, lambda: image.convert(name))()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1", shown(np.where(GREY > 99, 255, 0))),
        ("L", None),
        ("LA", over_white(shown(GREY))),
        ("La", over_white(shown(GREY))),
        ("P", None),
        ("PA", None),
        ("RGB", RGB),
        ("RGBA", over_white(RGB)),
        ("RGBa", over_white(RGB)),
        ("RGBX", RGB),
        ("CMYK", None),
        ("YCbCr", None),
        ("HSV", None),
        ("I", shown(GREY)),
        ("I;16", shown(GREY)),
        ("I;16B", shown(GREY)),
        ("F", shown(GREY)),
    ],
)
def test_modes_of_pil(name: str, expected: np.ndarray | None) -> None:
    image = mode(name)
    assert image.mode == name
    np.testing.assert_array_equal(encoded(image), np.array(image.convert("RGB")) if expected is None else expected)


@pytest.mark.parametrize("name", ["jpeg", "palette with alpha", "gif"])
def test_an_image_from_another_process_is_its_file(name: str) -> None:
    """Pickling leaves out the file and its name."""
    data, expected = FILES[name]
    np.testing.assert_array_equal(encoded(pickle.loads(pickle.dumps(Image.open(io.BytesIO(data))))), expected)


def test_a_pil_image_with_orientation_profile_and_a_transparent_level() -> None:
    image = Image.fromarray(RGB)
    image.info["exif"] = exif(6)
    np.testing.assert_array_equal(encoded(image), np.rot90(RGB, -1))
    deep = Image.fromarray(GREY.astype(np.uint16) * 256)
    deep.info["transparency"] = int(GREY[20, 20]) * 256
    np.testing.assert_array_equal(encoded(deep), shown(np.where(GREY[20, 20] == GREY, 255, GREY)))


@pytest.mark.parametrize(
    "array",
    [
        RGB,
        RGB.astype(np.uint16) * 256 + 3,
        RGB.astype(np.uint16) * 16,
        RGB.astype(">u2") * 256,
        RGB.astype(np.int64),
        RGB.astype(np.uint32) << 24,
        RGB / 255,
        (RGB / 255).astype(np.float32),
        RGB.astype(np.float16),
        np.moveaxis(RGB, 2, 0),
        RGB[::-1][::-1],
        np.dstack([RGB, np.full(GREY.shape, 255, np.uint8)]),
    ],
)
def test_arrays_of_every_type(array: Any) -> None:
    np.testing.assert_array_equal(encoded(array), RGB)
    swapped = array[[2, 1, 0]] if array.shape[0] == 3 else array[..., [2, 1, 0, 3][: array.shape[2]]]
    np.testing.assert_array_equal(encoded(swapped, channels="bgr"), RGB)


def test_grey_arrays_bool_and_transparency() -> None:
    for grey in (GREY, GREY[..., None], GREY[None], GREY.astype(np.uint16) * 256):
        np.testing.assert_array_equal(encoded(grey), shown(GREY))
    np.testing.assert_array_equal(encoded(GREY > 99), shown(np.where(GREY > 99, 255, 0)))
    deep = np.dstack([RGB, ALPHA]).astype(np.uint16) * 257
    np.testing.assert_array_equal(encoded(deep), over_white(RGB))
    floats = np.dstack([RGB, ALPHA]) / 255
    np.testing.assert_array_equal(encoded(floats), over_white(RGB))


@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.float32, np.float64, np.bool_]),
        st.one_of(
            st.tuples(st.integers(1, 9), st.integers(5, 9)),
            st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)),
        ),
    ),
    st.sampled_from(["auto", "range", "percentile"]),
)
@settings(max_examples=300, deadline=None)
def test_any_array_is_read_alike_by_client_and_encoder(array: Any, stretch: Stretch) -> None:
    source = Source(array, Reading(stretch=stretch))
    pixels = read_image(source.read(), MOST, stretch).pixels
    assert pixels.shape == (*array.shape[:2], 3)
    np.testing.assert_array_equal(np.asarray(source.picture()), pixels)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((0, 4), np.uint8), "no pixels"),
        (np.zeros((2, 5, 5, 3), np.uint8), "one image of the batch"),
        (np.zeros((9, 8, 7), np.uint8), "no axis of channels"),
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((5, 5), complex), "complex128"),
        (np.array([["a"]]), "<U1"),
        (np.array([[None]]), "object"),
        (Image.new("RGB", (0, 4)), "no pixels"),
        (io.StringIO("text"), "'rb'"),
        (3, "int is not an image"),
    ],
)
def test_what_is_no_image_is_said(image: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        Source(image)
    assert (caught.value.reason, caught.value.field) == ("BAD_IMAGE", "image")
    assert "at 0x" not in caught.value.message


def test_closed_and_truncated_pil_images(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(by_opencv(".png", RGB))
    for load in (False, True):
        image = Image.open(path)
        if load:
            image.load()
        image.close()
        with pytest.raises(InvalidRequest, match="closed"):
            Source(image)
    path.write_bytes(by_opencv(".png", RGB)[:300])
    with pytest.raises(InvalidRequest, match="truncated"):
        Source(Image.open(path)).picture()


def test_names_that_do_not_exist() -> None:
    for reading, field in ((Reading(stretch="rnage"), "stretch"), (Reading(channels="brg"), "channels")):  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="did you mean") as caught:
            Source(RGB, reading)
        assert caught.value.field == field
    with pytest.raises(InvalidRequest, match="for arrays"):
        Source(by_opencv(".png", RGB), Reading(channels="bgr"))


FOUND = {
    b"": "empty (0 bytes)",
    b"hello": "text",
    b"%PDF-1.7\n": "PDF",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>": "SVG",
    b"<!DOCTYPE html><html></html>": "HTML",
    b"<?xml version='1.0'?><a/>": "XML",
    b"%!PS-Adobe-3.0 EPSF-3.0\n": "EPS",
    b"PK\3\4" + bytes(30): "ZIP",
    b"8BPS\0\1" + bytes(20): "PSD",
    bytes(128) + b"DICM" + bytes(20): "DICOM",
    b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom": "video",
    b"\x1a\x45\xdf\xa3" + bytes(20): "video",
    b"RIFF\0\0\0\0AVI LIST": "video",
    b"II*\0\x10\0\0\0CR\2\0" + bytes(20): "raw file",
    b"FUJIFILMCCD-RAW 0201": "raw file",
    b'{"image": 1}': "JSON",
    b"data:image/png;base64,iVBORw0KGgo=": "data URI",
    b"https://example.org/a.jpg": "address",
    b"\xff\x0a" + bytes(20): "JPEG XL",
    b"\x93NUMPY\1\0": "NumPy",
    bytes(range(200, 256)): "unknown format",
}


@pytest.mark.parametrize("data", FOUND)
def test_refusals_name_what_was_found_and_what_is_taken(data: bytes) -> None:
    with pytest.raises(PictureError) as caught:
        decode_picture(data)
    assert caught.value.reason == ("IMAGE_UNREADABLE" if data else "EMPTY_IMAGE")
    assert FOUND[data] in caught.value.message
    assert "JPEG, PNG, WebP, TIFF" in caught.value.message


@pytest.mark.parametrize("name", FILES)
def test_cut_off_files_are_refused_in_words(name: str) -> None:
    data, _ = FILES[name]
    for end in (len(data) // 3, len(data) // 2):
        refused: PictureError | None = None
        try:
            decode_picture(data[:end], max_pixels=MOST)
        except PictureError as error:
            refused = error
        if refused is not None:  # some formats show what is there
            assert refused.reason in ("IMAGE_UNREADABLE", "IMAGE_TOO_LARGE")
            assert "at 0x" not in refused.message
            assert "BytesIO" not in refused.message


def test_stretches() -> None:
    low = tiff((GREY.astype(np.uint16) * 16 + 100), photometric="minisblack")
    assert decode_picture(low).stretch == decode_picture(low, stretch="range").stretch == "range"
    np.testing.assert_array_equal(decode_picture(low).pixels, shown(GREY))
    np.testing.assert_array_equal(decode_picture(low, stretch="none").pixels, shown((GREY.astype(int) * 16 + 100) >> 8))
    clipped = decode_picture(low, stretch="percentile")
    first, last = np.percentile(GREY, (1, 99))
    expected = np.floor((GREY.astype(float) - first) * 255 / (last - first) + 0.5).clip(0, 255)
    assert clipped.stretch == "percentile"
    assert np.abs(clipped.pixels - shown(expected).astype(int)).max() <= 1
    ordinary = by_opencv(".png", RGB // 8)
    assert decode_picture(ordinary).stretch == "none"  # 8 bits are what they are
    np.testing.assert_array_equal(decode_picture(ordinary).pixels, RGB // 8)
    stretched = decode_picture(ordinary, stretch="range")
    assert (stretched.stretch, stretched.pixels.min(), stretched.pixels.max()) == ("range", 0, 255)
    half = tiff(GREY.astype(np.uint16) * 128, photometric="minisblack")  # 15 bits are not far below 16
    assert decode_picture(half).stretch == "none"
    signed = tiff((GREY.astype(np.int16) - 128) * 100, photometric="minisblack")  # no level below zero is black as such
    assert (decode_picture(signed).stretch, decode_picture(signed, stretch="none").stretch) == ("range", "none")
    np.testing.assert_array_equal(decode_picture(signed).pixels, shown(GREY))
    with pytest.raises(PictureError, match="no range"):
        decode_picture(tiff(GREY.astype(np.float32) * 7 - 3), stretch="none")


def test_profiles_are_converted_to_srgb() -> None:
    image = Image.fromarray(RGB)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode_picture(by_pillow(image, kind, icc_profile=srgb)).pixels, RGB)
        np.testing.assert_array_equal(decode_picture(by_pillow(image, kind, icc_profile=b"not a profile")).pixels, RGB)
    swapped = green_first(srgb)
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        pixels = decode_picture(by_pillow(image, kind, icc_profile=swapped, **options)).pixels
        assert np.abs(pixels.astype(int) - RGB[..., [1, 0, 2]]).max() <= 2
    jpeg = by_pillow(image, "JPEG", icc_profile=swapped)
    np.testing.assert_array_equal(read_image(jpeg, MOST).pixels, decode_picture(jpeg).pixels)
    np.testing.assert_array_equal(encoded(Image.open(io.BytesIO(jpeg))), decode_picture(jpeg).pixels)


def green_first(profile: bytes) -> bytes:
    """A profile whose red is green and whose green is red."""
    changed = bytearray(profile)
    tags = int.from_bytes(profile[128:132], "big")
    for index in range(tags):
        place = 132 + 12 * index
        name = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(profile[place : place + 4])
        if name:
            changed[place : place + 4] = name
    return bytes(changed)


def test_bytes_of_a_deep_picture_are_not_taken_for_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's limit is for pixels; a deep TIFF is shown to it as a picture of its bytes."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 63 * 45)
    np.testing.assert_array_equal(decode_picture(tiff(RGB.astype(np.uint16) * 256, photometric="rgb")).pixels, RGB)


def test_heic() -> None:
    buffer = io.BytesIO()
    smooth = Image.fromarray(RGB).resize((630, 450)).resize((64, 48))
    pillow_heif.from_pillow(smooth).save(buffer, quality=95)
    picture = decode_picture(buffer.getvalue())
    assert picture.format == "HEIC"
    np.testing.assert_array_equal(picture.pixels, np.asarray(pillow_heif.read_heif(buffer.getvalue())))
    assert np.corrcoef(picture.pixels.ravel(), np.asarray(smooth).ravel())[0, 1] > 0.9


def test_a_wrong_checksum_of_pixels_is_refused() -> None:
    data = bytearray(by_opencv(".png", RGB))
    data[-16] ^= 1
    with pytest.raises(PictureError, match="checksum of its IDAT"):
        decode_picture(bytes(data))


def test_raw_files_of_cameras_are_refused() -> None:
    dng = tiff(RGB, photometric="rgb", extratags=[(50706, "B", 4, (1, 4, 0, 0), True)])
    nef = io.BytesIO()
    with tifffile.TiffWriter(nef) as writer:
        writer.write(RGB[::4, ::4].copy(), photometric="rgb", subfiletype=1, subifds=1)
        writer.write(RGB, photometric="rgb")
    for data in (dng, nef.getvalue()):
        with pytest.raises(PictureError, match="raw file"):
            decode_picture(data)


def test_sizes_are_checked_before_decoding() -> None:
    for data in (
        png(16, 2, [b""], width=200_000),
        b"P6 99999 99999 65535\n",
        tiff(RGB.astype(np.uint16), photometric="rgb"),
        by_pillow(Image.fromarray(RGB), "ICO", sizes=[(63, 45)]),
    ):
        with pytest.raises(PictureError) as caught:
            decode_picture(data, max_pixels=1000)
        assert caught.value.reason == "IMAGE_TOO_LARGE"
    many = tiff(np.zeros((20, 20, 64), np.uint16), photometric="minisblack", planarconfig="contig")
    with pytest.raises(PictureError, match="leave channels out"):
        decode_picture(many, max_pixels=1000)
