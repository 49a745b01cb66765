"""TIFF files that are read by windows."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from maskwire import LargeTiff
from maskwire.errors import InvalidRequest
from maskwire.pictures import Stretch, decode_picture, tiff_windows
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (300, 2100, 4), np.uint8)
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tiles": (PIXELS[..., :3], {"tile": (256, 128), "compression": "zlib"}),
    "jpeg": (np.repeat(PIXELS[:8, :8, :3], 30, 1), {"tile": (64, 64), "compression": "jpeg"}),
    "strips": (PIXELS[..., :3], {"rowsperstrip": 49, "compression": "lzw"}),
    "one strip": (PIXELS[..., :3], {}),
    "planes": (np.moveaxis(PIXELS[..., :3], 2, 0), {"planarconfig": "separate", "tile": (64, 64)}),
    "bigtiff": (PIXELS, {"tile": (64, 64), "bigtiff": True, "extrasamples": ["unassalpha"], "byteorder": ">"}),
    "grey": (PIXELS[..., 0], {"tile": (256, 256), "photometric": "minisblack"}),
    "inverted": (PIXELS[..., 0], {"rowsperstrip": 50, "photometric": "miniswhite"}),
}
DEEP = np.random.default_rng(1).gamma(3, 300, (300, 500, 3)).astype(np.uint16)


def shown(path: Path, stretch: Stretch = "auto") -> Any:
    """The pixels of a file as they are without windows."""
    return decode_picture(path.read_bytes(), stretch=stretch).pixels


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_has_the_pixels_of_the_file(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_windows, "_ROWS_BYTES", 50_000)  # the one strip is read in parts
    pixels, options = KINDS[kind]
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, pixels, **{"photometric": "rgb", **options})
    large = LargeTiff(path)
    width, height = large.full_size
    rgb = np.moveaxis(pixels, 0, 2) if kind == "planes" else pixels[..., :3]
    if kind in ("grey", "inverted"):
        rgb = np.repeat(pixels[..., None], 3, axis=2)
    rgb = 255 - rgb if kind == "inverted" else shown(path) if kind == "jpeg" else rgb
    assert rgb.shape == (height, width, 3)
    for place in ((0, 0, 10, 8), (width // 3, height // 5, width // 2, height - 1), (0, 0, width, height)):
        left, top, right, bottom = place
        np.testing.assert_array_equal(np.asarray(large.window(place)), rgb[top:bottom, left:right])
    overview = np.asarray(Image.open(io.BytesIO(large.read())))
    if width > 2048:
        rgb = rgb.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    np.testing.assert_allclose(overview, rgb, atol=0.51, rtol=0)
    assert large.held_bytes < 8 << 20


@pytest.mark.parametrize("stretch", ["auto", "none", "range", "percentile"])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_stretches_are_those_of_other_pictures(tmp_path: Path, dtype: str, stretch: Stretch) -> None:
    path, samples = tmp_path / "deep.tif", DEEP.astype(dtype)
    if dtype == "int16":
        samples -= 500
    if dtype == "float32":
        samples /= samples.max()
        samples[5, 5] = np.nan
    tifffile.imwrite(path, samples, photometric="rgb", tile=(64, 64), compression="zlib", predictor=True)
    window = np.asarray(LargeTiff(path, stretch=stretch).window((100, 50, 300, 250)))
    np.testing.assert_array_equal(window, shown(path, stretch)[50:250, 100:300])


def test_range_and_bands_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "bands.tif"
    samples = np.dstack([DEEP, DEEP[::-1]])
    tifffile.imwrite(path, samples, photometric="minisblack", planarconfig="contig", tile=(64, 64))
    chosen = LargeTiff(path, stretch=(200, 1220), bands=(4, 0, 2))
    wanted = np.clip((samples[..., [4, 0, 2]].astype(float) - 200) / 4 + 0.5, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(chosen.window((0, 0, 500, 300))), wanted)
    assert chosen.identify() != LargeTiff(path, stretch=(200, 1221), bands=(4, 0, 2)).identify()
    assert chosen.identify() != LargeTiff(path, stretch=(200, 1220), bands=(4, 2, 0)).identify()
    for wrong, reason in (
        ({"bands": (0, 1)}, "BAD_BANDS"),
        ({"bands": (0, 1, 6)}, "BAD_BANDS"),
        ({"stretch": (5, 5)}, "BAD_STRETCH"),
        ({"stretch": "most"}, "BAD_STRETCH"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            LargeTiff(path, **wrong)  # type: ignore[arg-type]
        assert (caught.value.reason, caught.value.field) == (reason, next(iter(wrong)))


def test_a_large_window_comes_smaller(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    pixels = np.repeat(PIXELS[:40, :, :3], 2, axis=1)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(32, 32))
    window = np.asarray(LargeTiff(path).window((3, 5, 4103, 34)))
    assert window.shape == (15, 2050, 3)
    wanted = pixels[5:33, 3:4103].reshape(14, 2, 2050, 2, 3).mean((1, 3))
    np.testing.assert_allclose(window[:14], wanted, atol=0.51, rtol=0)
    np.testing.assert_allclose(window[14], pixels[33, 3:4103].reshape(2050, 2, 3).mean(1), atol=0.51, rtol=0)


@pytest.mark.parametrize(
    ("pixels", "options", "said"),
    [
        (PIXELS[..., 0] > 9, {}, "8 or 16 bits"),
        (PIXELS[..., :3], {"photometric": "rgb", "extratags": [(274, 3, 1, 6, True)]}, "orientation"),
        (PIXELS[:64, :64, :3], {"photometric": "rgb", "compression": "jpeg2000"}, "JPEG"),
        (PIXELS, {"photometric": "separated"}, "neither grey nor RGB"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, pixels: Any, options: dict[str, Any], said: str) -> None:
    path = tmp_path / "other.tif"
    tifffile.imwrite(path, pixels, **options)
    with pytest.raises(InvalidRequest, match=said):
        LargeTiff(path)
    path.write_bytes(b"GIF89a....")
    with pytest.raises(InvalidRequest, match="no TIFF"):
        LargeTiff(path)
    with pytest.raises(InvalidRequest, match="no such file"):
        LargeTiff(tmp_path / "missing.tif")


def test_what_a_file_declares_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "hostile.tif"

    def refused(match: str, **tags: int) -> str:
        """Declares other values for tags of a small file."""
        tifffile.imwrite(path, PIXELS[:64, :64, :3], photometric="rgb", tile=(64, 64), compression="zlib")
        data = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as file:
            for name, value in tags.items():
                tag = file.pages[0].tags[name]  # type: ignore[union-attr]
                struct.pack_into("<HI", data, tag.offset + 2, 4, tag.count)
                struct.pack_into("<I", data, tag.valueoffset, value)
        path.write_bytes(data)
        with pytest.raises(InvalidRequest, match=match) as caught:
            LargeTiff(path).window((0, 0, 64, 64))
        return caught.value.reason

    assert refused("pixels; at most", ImageWidth=1 << 16, ImageLength=1 << 16) == "IMAGE_TOO_LARGE"
    assert refused("strips or tiles are missing", ImageWidth=1 << 14) == "IMAGE_UNREADABLE"
    assert refused("MiB are decoded at once", TileWidth=1 << 14, TileLength=1 << 14) == "IMAGE_TOO_COSTLY"
    assert refused("tile or strip of", TileByteCounts=1 << 30) == "IMAGE_TOO_COSTLY"
    assert refused("past its end", TileOffsets=1 << 20) == "IMAGE_UNREADABLE"
    data = bytearray(b"II*\0\x08\0\0\0" + struct.pack("<H", 65535) + bytes(12))
    path.write_bytes(data)
    with pytest.raises(InvalidRequest) as caught:
        LargeTiff(path)
    assert caught.value.reason == "IMAGE_TOO_COSTLY"


def test_a_tile_that_decodes_to_more_than_its_size_is_refused(tmp_path: Path) -> None:
    path, bomb = tmp_path / "bomb.tif", io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(bomb, "JPEG")
    pixels = np.zeros((256, 256, 3), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), compression="jpeg")
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags  # type: ignore[union-attr]
        data = bytearray(path.read_bytes())
        for name, value in (("TileOffsets", len(data)), ("TileByteCounts", len(bomb.getvalue()))):
            struct.pack_into("<HI", data, tags[name].offset + 2, 4, 1)
            struct.pack_into("<I", data, tags[name].valueoffset, value)
    path.write_bytes(data + bomb.getvalue())
    with pytest.raises(InvalidRequest, match="a JPEG of 4000x4000 px in a tile of 256x256"):
        LargeTiff(path).read()
