"""Labels of objects, and the files that have them."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import expect

from testing.chromium import Tab

OpenTab = Callable[..., Tab]
CLICK, OTHER = (260, 130), (50, 40)


def overlap(polygons: list[list[Any]], mask: NDArray[np.bool_]) -> float:
    """IoU of polygons along pixel edges with a mask."""
    large = np.zeros([4 * side for side in mask.shape], np.uint8)
    for polygon in polygons:
        cv2.fillPoly(large, [np.round(np.array(polygon) * 4).astype(np.int32)], 1)
    filled = large[2::4, 2::4].astype(bool)
    return float((filled & mask).sum() / (filled | mask).sum())


def test_objects_have_labels_in_every_file(open_tab: OpenTab, photo: Path) -> None:
    tab = open_tab()
    tab.open_sample()
    tab.page.keyboard.press("l")
    tab.page.get_by_role("textbox", name="Labels, one a line").fill("cup\nspoon #123456\n\ncup")
    tab.page.get_by_role("button", name="Save").click()
    tab.click(*CLICK)
    tab.until("it.mask")
    tab.page.keyboard.press("1")
    rows = tab.page.locator("#objects li")
    expect(rows.nth(0).locator(".name")).to_have_text("cup")
    cup = tab.mask
    tab.page.keyboard.press("n")
    tab.click(*OTHER)
    tab.until("it.id === 'object-2' && it.mask")
    expect(rows.nth(1).locator(".name")).to_have_text("cup")  # as the one before
    tab.page.keyboard.press("2")
    expect(rows.nth(1).locator(".name")).to_have_text("spoon")
    assert tab.page.evaluate("() => app.editor.objects.selected.colour") == "#123456"
    tab.page.keyboard.press("Control+z")
    expect(rows.nth(1).locator(".name")).to_have_text("cup")
    tab.page.keyboard.press("Control+Shift+z")
    expect(rows.nth(1).locator(".name")).to_have_text("spoon")
    tab.reload()
    tab.until_connected()
    expect(rows.nth(0).locator(".name")).to_have_text("cup")
    tab.picture("page-labels.png")

    coco = json.loads(tab.download("COCO JSON").read_text())
    assert [(one["id"], one["name"]) for one in coco["categories"]] == [(1, "cup"), (2, "spoon")]
    assert [one["category_id"] for one in coco["annotations"]] == [1, 2]
    lines = tab.download("YOLO TXT").read_text().splitlines()
    numbers = [[float(word) for word in line.split()] for line in lines]
    assert [line[0] for line in numbers] == [0, 1]
    height, width = cup.shape
    assert overlap([(np.array(numbers[0][1:]).reshape(-1, 2) * (width, height)).tolist()], cup) > 0.95
    labelme = json.loads(tab.download("labelme JSON").read_text())
    assert {shape["label"] for shape in labelme["shapes"]} == {"cup", "spoon"}
    assert (labelme["imagePath"], labelme["imageHeight"]) == ("sample.jpg", height)
    polygons = [shape["points"] for shape in labelme["shapes"] if shape["group_id"] == 1]
    assert overlap(polygons, cup) > 0.95
    overlay = np.asarray(Image.open(tab.download("Overlay PNG")).convert("RGB"), int)
    picture = np.asarray(Image.open(photo).convert("RGB"), int)
    neither = cv2.erode((~cup).astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
    spoon = tab.page.evaluate("() => app.editor.objects.selected.mask.bytes(1).reduce((sum, one) => sum + one)")
    changed = np.abs(overlay - picture).max(2) > 12
    assert changed[cup].mean() > 0.9
    assert changed[neither].sum() < 2 * spoon + 3000

    with zipfile.ZipFile(tab.download("All images ZIP")) as archive:
        names = archive.namelist()
        assert {"coco.json", "yolo/data.yaml", "yolo/labels/sample.txt", "labelme/sample.json"} <= set(names)
        assert json.loads(archive.read("coco.json")) == coco
        assert archive.read("yolo/labels/sample.txt").decode().splitlines() == lines
        with archive.open("masks/sample-1-cup.png") as file:
            np.testing.assert_array_equal(np.asarray(Image.open(file)), cup * 255)


def test_zoom_and_opacity_have_controls(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.open_sample()
    tab.click(*CLICK)
    tab.until("it.mask")
    tab.look_away()
    scale = tab.page.evaluate("() => app.viewport.scale")
    tab.page.get_by_role("button", name="Zoom in").click()
    assert tab.page.evaluate("() => app.viewport.scale") > scale
    tab.page.get_by_role("button", name="Zoom out").click()
    assert tab.page.evaluate("() => app.viewport.scale") == scale
    for opacity in (0.2, 0.9):
        tab.page.get_by_label("Opacity of masks").fill(str(opacity))
        tab.page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        alpha = tab.overlay_alpha()
        assert np.median(alpha[alpha > 0]) == round(255 * opacity)
