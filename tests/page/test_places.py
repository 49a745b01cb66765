"""Masks and places in the page, to the pixel."""

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import expect
from pycocotools import mask as coco

from testing.chromium import Tab

OpenTab = Callable[..., Tab]
CLICK = (260, 130)


def random_masks() -> Iterator[NDArray[np.uint8]]:
    random = np.random.default_rng()
    yield np.zeros((5, 7), np.uint8)
    yield np.ones((9, 4), np.uint8)
    yield np.eye(6, dtype=np.uint8)
    for _ in range(20):
        height, width = random.integers(1, 90, 2)
        yield (random.uniform(size=(height, width)) < random.uniform()).astype(np.uint8)
    for _ in range(2):  # long counts
        noise = cv2.GaussianBlur(random.normal(size=(700, 1100)), (0, 0), random.uniform(8, 40))
        yield (noise > random.normal() * noise.std()).astype(np.uint8)


def test_masks_are_decoded_and_outlined_exactly(open_tab: OpenTab) -> None:
    tab = open_tab()
    masks = list(random_masks())
    rles = [coco.encode(np.asfortranarray(mask)) for mask in masks]
    script = """async (rles) => {
        const { Mask } = await import('/assets/rle.js');
        const { outlines, signedArea } = await import('/assets/contours.js');
        return rles.map((rle) => {
            const mask = new Mask(rle);
            const lines = outlines(mask);
            const bytes = btoa([...mask.bytes(1)].map((byte) => String.fromCharCode(byte)).join(''));
            const doubled = lines.reduce((sum, line) => sum + signedArea(line), 0);
            return { bytes, area: mask.area, box: mask.box, lines, doubled };
        });
    }"""
    answers = tab.page.evaluate(script, [{**rle, "counts": rle["counts"].decode()} for rle in rles])
    for mask, rle, answer in zip(masks, rles, answers, strict=True):
        np.testing.assert_array_equal(
            np.frombuffer(base64.b64decode(answer["bytes"]), np.uint8).reshape(mask.shape), mask
        )
        assert answer["area"] == coco.area(rle) == answer["doubled"] / 2
        assert answer["box"] == coco.toBbox(rle).tolist()
        filled = np.zeros(mask.shape, bool)
        for line in answer["lines"]:
            for (x0, y0), (x1, y1) in zip(line, [*line[1:], line[0]], strict=True):
                assert (x0 == x1) != (y0 == y1)
                if x0 == x1:  # even-odd: behind each vertical edge inside and outside change places
                    filled[min(y0, y1) : max(y0, y1), x0:] ^= True
        np.testing.assert_array_equal(filled, mask.astype(bool))


def test_polygons_have_an_area(open_tab: OpenTab) -> None:
    """Thin and tiny masks included; each part and each hole of a mask is there."""
    tab = open_tab()
    masks = list(random_masks())
    script = """async (rles) => {
        const { Mask } = await import('/assets/rle.js');
        const { outlines } = await import('/assets/contours.js');
        const { polygons } = await import('/assets/annotations.js');
        return rles.map((rle) => {
            const mask = new Mask(rle);
            const [item] = polygons({ fileName: 'a.png', items: [{ name: 'one', mask, score: 1 }] }).objects;
            return [outlines(mask).length, item.polygons, item.holes];
        });
    }"""
    rles = [coco.encode(np.asfortranarray(mask)) for mask in masks]
    for count, polygons, holes in tab.page.evaluate(
        script, [{**rle, "counts": rle["counts"].decode()} for rle in rles]
    ):
        assert len(polygons) + len(holes) == count
        for polygon in [*polygons, *holes]:
            assert len(set(map(tuple, polygon))) >= 3
            assert cv2.contourArea(np.array(polygon, np.float32)) > 0


def marked(path: Path, size: tuple[int, int], places: list[tuple[int, int]], **options: Any) -> Path:
    """A grey picture with green pixels."""
    pixels = np.full((size[1], size[0], 3), 120, np.uint8)
    for x, y in places:
        pixels[y, x] = (0, 255, 0)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("ratio", [1, 2])
def test_places_are_right_under_any_zoom_and_pixel_ratio(open_tab: OpenTab, tmp_path: Path, ratio: int) -> None:
    """What is under the pointer on the screen is what the page says and sends."""
    places = [(7, 5), (1300, 700), (2995, 1990)]
    tab = open_tab(device_scale_factor=ratio)
    tab.open_file(marked(tmp_path / "marks.png", (3000, 2000), places))
    random = np.random.default_rng()
    for x, y in places:
        tab.page.keyboard.press("0")
        outwards = np.sign([x - 1500, y - 1000])
        scale = 0.0
        while scale < 5:  # beside the mark, so that it moves as well: towards the middle
            tab.zoom(*(tab.screen(x, y) + outwards * random.uniform(2, 10, 2)), random.uniform(600, 1000))
            scale = tab.page.evaluate("() => app.viewport.scale")
        tab.look_away()  # no preview over the mark
        shot = np.asarray(Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB")).astype(int)
        rows, columns = np.nonzero((shot[..., 1] > 200) & (shot[..., 0] < 60) & (shot[..., 2] < 60))
        assert len(rows) >= scale**2 * ratio**2 / 2
        seen = (np.array([columns.mean(), rows.mean()]) + 0.5) / ratio
        tab.page.mouse.click(*seen)
        tab.until("it.prompt.points.length && (it.visible = false, true)")  # nor masks
        point = tab.prompt["points"][-1]
        shown = [float(part) for part in tab.page.inner_text("#place").removeprefix("x").split("y")]
        np.testing.assert_allclose(shown, (point["x_px"], point["y_px"]), atol=1e-3)
        # Chromium reports where the mouse is in whole CSS pixels.
        np.testing.assert_allclose(shown, (x + 0.5, y + 0.5), atol=1 / scale + 0.06)
        np.testing.assert_allclose(tab.screen(*shown), seen, atol=1.1)


def test_masks_are_drawn_where_they_are(open_tab: OpenTab) -> None:
    tab = open_tab(device_scale_factor=2)
    tab.open_sample()
    tab.click(*CLICK)
    tab.until("it.mask")
    tab.zoom(*tab.screen(200, 150), 400)
    tab.look_away()
    mask, alpha = tab.mask, tab.overlay_alpha()
    rows, columns = np.mgrid[0 : alpha.shape[0] : 3, 0 : alpha.shape[1] : 3]
    scale, left, top = tab.page.evaluate("() => [app.viewport.scale, app.viewport.x, app.viewport.y]")
    x, y = (columns + 0.5) / 2 / scale - left / scale, (rows + 0.5) / 2 / scale - top / scale
    inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
    x, y, drawn = x[inside], y[inside], alpha[rows[inside], columns[inside]] > 0
    padded = np.pad(mask, 1).astype(np.uint8)
    border = cv2.morphologyEx(padded, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8))[1:-1, 1:-1]
    sure = (border[y.astype(int), x.astype(int)] == 0) & (np.hypot(x - CLICK[0], y - CLICK[1]) > 8)
    np.testing.assert_array_equal(drawn[sure], mask[y.astype(int), x.astype(int)][sure])
    assert drawn[sure].sum() > 500


def test_photographs_are_turned_as_the_server_turns_them(open_tab: OpenTab, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    tab = open_tab()
    tab.open_file(marked(tmp_path / "turned.jpg", (64, 40), [], exif=exif))
    expect(tab.page.locator("#title")).to_contain_text("40 \u00d7 64")
    tab.click(20, 60)
    tab.until("it.prompt.points.length")
    assert tab.page.locator(".notice").count() == 0
