"""The page in a real browser, over a gateway, an encoder, a decoder and a store."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import expect

from testing.chromium import Tab
from testing.servers import Stack

OpenTab = Callable[..., Tab]
CLICK, OUTSIDE, BOX, OTHER = (260, 130), (300, 330), (135, 40, 500, 345), (50, 40)


@pytest.fixture
def tab(open_tab: OpenTab) -> Tab:
    """The page with the sample."""
    made = open_tab()
    made.open_sample()
    return made


def test_people_click_an_object_into_shape_and_take_it_home(
    tab: Tab, stack: Stack, photo: Path, tmp_path: Path
) -> None:
    tab.move(255, 125)
    tab.page.wait_for_function("() => app.editor.preview?.mask")
    assert tab.overlay_alpha().any()
    expect(tab.page.locator("#place")).to_have_text("x 255  y 125")
    tab.click(*CLICK)
    tab.until("it.prompt.points.length === 1 && it.mask")
    first = tab.mask
    tab.click(*OUTSIDE, button="right")
    tab.until("it.prompt.points.length === 2")
    refined = tab.mask
    tab.page.keyboard.press("Control+z")
    tab.until("it.prompt.points.length === 1")
    np.testing.assert_array_equal(tab.mask, first)
    tab.page.keyboard.press("Control+Shift+Z")
    tab.until("it.prompt.points.length === 2")
    np.testing.assert_array_equal(tab.mask, refined)
    for text in ("upload", "encode", "decode", "round trip"):
        expect(tab.page.locator("#timings")).to_contain_text(text)

    with stack.client() as client, client.session(photo) as session:
        np.testing.assert_array_equal(session.click(*CLICK).mask, first)
        expected = session.click(*OUTSIDE, positive=False)
        session.new_object()
        boxed = session.box(*BOX)
    saved = Image.open(tab.download("Mask PNG"))
    assert saved.mode == "L"
    np.testing.assert_array_equal(np.asarray(saved), expected.mask * 255)
    cut = Image.open(tab.download("Cut-out PNG"))
    rows, columns = np.flatnonzero(expected.mask.any(1)), np.flatnonzero(expected.mask.any(0))
    inside = expected.mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    np.testing.assert_array_equal(np.asarray(cut)[..., 3], inside * 255)
    pixels = np.asarray(Image.open(photo))[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert np.abs(np.asarray(cut)[..., :3][inside].astype(int) - pixels[inside]).max() <= 4  # another JPEG decoder

    tab.page.get_by_role("button", name="Python").click()
    expect(tab.page.get_by_text("Copied Python code").last).to_be_visible()
    (tmp_path / "sample.jpg").write_bytes(photo.read_bytes())
    (tmp_path / "code.py").write_text(f"{tab.clipboard}\nimport json\nprint(json.dumps(result.rle))\n")
    ran = subprocess.run(
        [sys.executable, "code.py"], cwd=tmp_path, env=stack.environment, capture_output=True, check=True
    )
    assert json.loads(ran.stdout) == expected.rle

    tab.page.get_by_role("button", name="New").click()
    tab.drag(*BOX[:2], *BOX[2:])
    tab.until("it.prompt.box && it.mask")
    np.testing.assert_array_equal(tab.mask, boxed.mask)
    tab.page.get_by_role("button", name="curl", exact=True).click()
    ran = subprocess.run(["bash", "-ec", tab.clipboard], cwd=tmp_path, capture_output=True, check=True)
    decoder = json.JSONDecoder()
    _, end = decoder.raw_decode(text := ran.stdout.decode())
    answer, _ = decoder.raw_decode(text[end:].strip())
    assert answer["results"][0]["masks"][0]["rle"]["counts"] == boxed.rle["counts"]

    annotations = json.loads(tab.download("COCO JSON").read_text())["annotations"]
    for annotation, result in zip(annotations, (expected, boxed), strict=True):
        assert annotation["segmentation"] == result.rle
        assert {key: annotation[key] for key in ("area", "bbox")} == {
            key: value for key, value in result.to_coco().items() if key in ("area", "bbox")
        }
    polygons = json.loads(tab.download("Polygons JSON").read_text())["objects"]
    for item, result in zip(polygons, (expected, boxed), strict=True):
        assert overlap(item, result.mask) > 0.9
    tab.picture("page-desktop.png")


def overlap(item: dict[str, Any], mask: NDArray[np.bool_]) -> float:
    """IoU of polygons along pixel edges with a mask."""
    large = np.zeros([4 * side for side in mask.shape], np.uint8)
    for polygons, value in ((item["polygons"], 1), (item["holes"], 0)):
        for polygon in polygons:
            cv2.fillPoly(large, [np.array(polygon, np.int32) * 4], value)
    filled = large[2::4, 2::4].astype(bool)
    return float((filled & mask).sum() / (filled | mask).sum())


def test_objects_are_listed_renamed_deleted_and_brought_back(tab: Tab) -> None:
    tab.click(*CLICK)
    tab.until("it.mask")
    mask = tab.mask
    tab.page.keyboard.press("n")
    tab.click(*OTHER)
    tab.until("it.id === 'object-2' && it.mask")
    rows = tab.page.locator("#objects li")
    expect(rows).to_have_count(2)
    rows.nth(0).locator(".object").click()
    tab.page.keyboard.press("r")
    tab.page.keyboard.type("cup")
    tab.page.keyboard.press("Enter")
    expect(rows.nth(0)).to_contain_text("cup")
    tab.page.keyboard.press("Delete")
    expect(rows).to_have_count(1)
    tab.page.get_by_role("button", name="Undo").click()
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("cup")
    np.testing.assert_array_equal(tab.mask, mask)
    tab.page.keyboard.press("Control+z")  # of the second object's click
    tab.until("it.id === 'object-2' && !it.mask")
    tab.page.keyboard.press("Control+z")
    tab.until("it.id === 'object-1' && !it.mask")  # its history came back with it
    tab.page.keyboard.press("Control+y")
    tab.until("it.id === 'object-1' && it.mask")
    np.testing.assert_array_equal(tab.mask, mask)


def test_everything_is_found_kept_and_cancelled(tab: Tab, stack: Stack, photo: Path) -> None:
    """The lowest score is chosen afterwards, and gives what it gives when it is chosen before."""
    with stack.client() as client:
        found = client.everything(photo, points_per_side=8, pred_iou_thresh=0, stability_score_thresh=0.5)
        lowest = round(float(np.median([mask.predicted_iou for mask in found])), 2)
        expected = client.everything(photo, points_per_side=8, pred_iou_thresh=lowest, stability_score_thresh=0.5)
    assert 0 < len(expected) < len(found)
    tab.page.keyboard.press("e")
    tab.page.select_option("#density", "8")
    tab.page.fill("#stability", "0.5")
    tab.page.get_by_role("button", name="Find masks").click()
    tab.page.wait_for_selector("#everything-score:visible")
    tab.page.locator("#min-score").fill("0")
    expect(tab.page.locator("#everything-count")).to_contain_text(f"{len(found)} masks")
    tab.picture("page-everything.png")
    tab.page.locator("#min-score").fill(str(lowest))
    tab.page.get_by_role("button", name="Keep all").click()
    kept = json.loads(tab.download("COCO JSON").read_text())["annotations"]
    assert [one["segmentation"] for one in kept] == [mask.rle for mask in expected]
    tab.page.get_by_role("button", name="Python").click()
    expect(tab.page.get_by_text("Copied Python code").last).to_be_visible()
    assert f"pred_iou_thresh={lowest}, stability_score_thresh=0.5" in tab.clipboard
    assert f"mask = masks[{len(expected) - 1}]" in tab.clipboard
    tab.page.keyboard.press("Control+z")
    expect(tab.page.get_by_role("button", name="COCO JSON")).to_be_disabled()

    tab.page.keyboard.press("e")
    tab.page.select_option("#density", "64")
    tab.page.get_by_role("button", name="Find masks").click()
    tab.page.wait_for_function("() => document.querySelector('#everything-progress').value > 0")
    tab.page.get_by_role("button", name="Stop").click()
    tab.page.keyboard.press("Escape")
    tab.click(*CLICK)
    tab.until("it.mask")  # clicks go on


def test_images_are_dropped_and_pasted_and_other_files_explained(open_tab: OpenTab, photo: Path) -> None:
    tab = open_tab()
    script = """([kind, bytes, name, type]) => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name, { type }));
        dispatchEvent(kind === 'drop' ? new DragEvent('drop', { dataTransfer: data })
                                      : new ClipboardEvent('paste', { clipboardData: data }));
    }"""
    picture = base64.b64encode(photo.read_bytes()).decode()
    tab.page.evaluate(script, ["drop", base64.b64encode(b"no image").decode(), "notes.txt", "text/plain"])
    expect(tab.page.get_by_role("alert")).to_contain_text("notes.txt is not a picture. JPEG, PNG")
    tab.page.get_by_role("button", name="Dismiss").click()
    for kind in ("drop", "paste"):
        tab.page.evaluate(script, [kind, picture, f"{kind}.jpg", "image/jpeg"])
        expect(tab.page.locator("#title")).to_contain_text(f"{kind}.jpg")
        tab.until_connected()
        tab.click(*CLICK)
        tab.until("it.id === 'object-1' && it.mask")
        tab.page.evaluate("() => app.workspace.remove([...app.library.images])")
        expect(tab.page.locator("#welcome")).to_be_visible()
