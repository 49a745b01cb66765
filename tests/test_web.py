"""The page in a real browser, over a gateway, an encoder, a decoder and a store."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from chromium import Gateway, Tab, chromium, decoded
from conftest import Stack, server
from maskwire import Client
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, expect
from pycocotools import mask as coco

OpenTab = Callable[..., Tab]
CLICK, OUTSIDE, BOX, OTHER = (260, 130), (300, 330), (135, 40, 500, 345), (50, 40)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def gateway(stack: Stack) -> Iterator[Gateway]:
    started = Gateway(stack.encoder, stack.decoder)
    yield started
    started.stop()


@pytest.fixture
def open_tab(browser: Browser, gateway: Gateway) -> Iterator[OpenTab]:
    tabs: list[Tab] = []

    def make(**options: Any) -> Tab:
        tabs.append(Tab(browser, options.pop("url", gateway.url), **options))
        return tabs[-1]

    yield make
    for tab in tabs:
        tab.close()


@pytest.fixture
def tab(open_tab: OpenTab) -> Tab:
    """The page with the sample."""
    made = open_tab()
    made.open_sample()
    return made


def random_masks() -> Iterator[NDArray[np.uint8]]:
    random = np.random.default_rng()
    yield np.zeros((5, 7), np.uint8)
    yield np.ones((9, 4), np.uint8)
    yield np.eye(6, dtype=np.uint8)
    for _ in range(30):
        height, width = random.integers(1, 90, 2)
        yield (random.uniform(size=(height, width)) < random.uniform()).astype(np.uint8)
    for _ in range(4):  # long counts
        noise = cv2.GaussianBlur(random.normal(size=(700, 1100)), (0, 0), random.uniform(3, 40))
        yield (noise > random.normal() * noise.std()).astype(np.uint8)


def test_masks_are_decoded_and_outlined_exactly(open_tab: OpenTab) -> None:
    tab = open_tab()
    masks = list(random_masks())
    rles = [coco.encode(np.asfortranarray(mask)) for mask in masks]
    script = """async (rles) => {
        const { Mask } = await import('/assets/rle.js');
        const { outlines, signedArea } = await import('/assets/contours.js');
        return rles.map(({ size: [height, width], counts }) => {
            const mask = new Mask({ height, width, counts });
            const lines = outlines(mask);
            const bytes = btoa([...mask.bytes(1)].map((byte) => String.fromCharCode(byte)).join(''));
            return { bytes, area: mask.area, box: mask.box, lines, doubled: lines.reduce((s, l) => s + signedArea(l), 0) };
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
    environment = {"PYTHONPATH": ":".join(sys.path), **stack.environment}
    ran = subprocess.run([sys.executable, "code.py"], cwd=tmp_path, env=environment, capture_output=True, check=True)
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
    with stack.client() as client:
        expected = client.everything(photo, points_per_side=8, pred_iou_thresh=0, stability_score_thresh=0.5)
    tab.page.keyboard.press("e")
    tab.page.select_option("#density", "8")
    tab.page.fill("#stability", "0.5")
    tab.page.get_by_role("button", name="Find all").click()
    tab.page.wait_for_selector("#everything-score:visible")
    tab.page.locator("#min-score").fill("0")
    assert f"{len(expected)} masks" in tab.page.inner_text("#everything-count")
    tab.picture("page-everything.png")
    tab.page.get_by_role("button", name="Keep all").click()
    kept = json.loads(tab.download("COCO JSON").read_text())["annotations"]
    assert [one["segmentation"]["counts"] for one in kept] == [mask.rle["counts"] for mask in expected]
    tab.page.keyboard.press("Control+z")
    expect(tab.page.get_by_role("button", name="COCO JSON")).to_be_disabled()

    tab.page.keyboard.press("e")
    tab.page.select_option("#density", "64")
    tab.page.get_by_role("button", name="Find all").click()
    tab.page.wait_for_function("() => document.querySelector('#everything-progress').value > 0")
    tab.page.get_by_role("button", name="Stop").click()
    tab.page.keyboard.press("Escape")
    tab.click(*CLICK)
    tab.until("it.mask")  # clicks go on


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
        for _ in range(3):  # beside the mark, so that it moves as well: towards the middle
            tab.page.mouse.move(*(tab.screen(x, y) + outwards * random.uniform(2, 10, 2)))
            tab.page.mouse.wheel(0, -random.uniform(600, 1000))
            tab.page.wait_for_timeout(100)
        scale = tab.page.evaluate("() => app.viewport.scale")
        assert scale > 3
        shot = np.asarray(Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB")).astype(int)
        rows, columns = np.nonzero((shot[..., 1] > 200) & (shot[..., 0] < 60) & (shot[..., 2] < 60))
        assert len(rows) >= scale**2 * ratio**2 / 2
        seen = (np.array([columns.mean(), rows.mean()]) + 0.5) / ratio
        tab.page.mouse.click(*seen)
        tab.until("it.prompt.points.length")
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
    tab.move(200, 150)
    tab.page.mouse.wheel(0, -400)
    tab.page.mouse.move(2, 400)
    tab.page.wait_for_timeout(300)
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
    expect(tab.page.locator("#title")).to_contain_text("40 × 64")
    tab.click(20, 60)
    tab.until("it.prompt.points.length")
    assert tab.page.locator(".notice").count() == 0


def test_a_killed_gateway_is_survived(open_tab: OpenTab, stack: Stack, photo: Path) -> None:
    gateway = Gateway(stack.encoder, stack.decoder)
    try:
        tab = open_tab(url=gateway.url)
        tab.open_sample()
        tab.click(*CLICK)
        tab.until("it.mask")
        first = tab.mask
        gateway.kill()
        tab.page.wait_for_selector("#connection[data-state=waiting]")
        tab.page.keyboard.down("Shift")
        tab.click(*OUTSIDE)
        tab.page.keyboard.up("Shift")
        gateway.start(stack.decoder)
        tab.until("it.prompt.points.length === 2")
        with stack.client() as client, client.session(photo) as session:
            session.click(*CLICK)
            np.testing.assert_array_equal(tab.mask, session.click(*OUTSIDE, positive=False).mask)
        tab.page.keyboard.press("Control+z")
        tab.until("it.prompt.points.length === 1")
        np.testing.assert_array_equal(tab.mask, first)

        # Now the image is gone, too: the page stores it again.
        gateway.kill()
        image_id = tab.page.evaluate("() => app.editor.session.image.image_id")
        with stack.client() as client, server("maskwire_decoder", stack.redis_url) as other:
            client.delete(image_id, embedding=True)
            gateway.start(other)
            tab.page.keyboard.press("Control+Shift+z")
            tab.until("it.prompt.points.length === 2")
            assert client.get(image_id).width == 600
    finally:
        gateway.stop()


def test_a_token_is_asked_for(open_tab: OpenTab, stack: Stack) -> None:
    gateway = Gateway(stack.encoder, stack.decoder, "--api-keys", "right-key")
    try:
        tab = open_tab(url=gateway.url)
        field = tab.page.get_by_label("Access token", exact=True).and_(tab.page.locator("input"))
        field.fill("wrong-key")
        field.press("Enter")
        expect(tab.page.locator("#token-text")).to_contain_text("refused")
        field.fill("right-key")
        field.press("Enter")
        tab.open_sample()
        tab.click(*CLICK)
        tab.until("it.mask")
    finally:
        gateway.stop()


def test_a_phone_is_enough(open_tab: OpenTab) -> None:
    tab = open_tab(width=390, height=844, device_scale_factor=2, has_touch=True, is_mobile=True)
    tab.page.get_by_role("button", name="Or try this one").tap()
    tab.until_connected()
    tab.page.touchscreen.tap(*tab.screen(*CLICK))
    tab.until("it.prompt.points.length === 1 && it.mask")
    tab.page.get_by_role("radio", name="Exclude").tap()
    tab.page.touchscreen.tap(*tab.screen(*OUTSIDE))
    tab.until("it.prompt.points.length === 2")
    assert [point["label"] for point in tab.prompt["points"]] == [1, 0]
    expect(tab.page.locator("#place")).to_contain_text("x 300")

    fingers = tab.context.new_cdp_session(tab.page)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    before = tab.page.evaluate("() => app.viewport.scale")
    touch("touchStart", (150, 250), (250, 350))
    touch("touchMove", (125, 225), (275, 375))
    touch("touchMove", (100, 200), (300, 400))
    touch("touchEnd")
    scale = tab.page.evaluate("() => app.viewport.scale")
    assert scale == pytest.approx(2 * before, rel=0.02)
    start = tab.screen(*CLICK)
    touch("touchStart", (200, 300))
    touch("touchMove", (240, 330))
    touch("touchEnd")
    assert np.subtract(tab.screen(*CLICK), start) == pytest.approx((40, 30), abs=1)
    assert len(tab.prompt["points"]) == 2

    tab.page.get_by_role("button", name="Fit the image").tap()
    tab.page.get_by_role("button", name="New").tap()
    tab.page.get_by_role("radio", name="Box").tap()
    touch("touchStart", tab.screen(*BOX[:2]))
    touch("touchMove", tab.screen(300, 200))
    touch("touchMove", tab.screen(*BOX[2:]))
    touch("touchEnd")
    tab.until("it.prompt.box && it.mask")
    np.testing.assert_allclose([tab.prompt["box"][key] for key in ("x_min_px", "x_max_px")], BOX[::2], atol=3)
    assert tab.page.evaluate("() => document.documentElement.scrollWidth") == 390
    for button in tab.page.get_by_role("button").all():
        edge = button.bounding_box()
        assert edge is None or (edge["x"] >= 0 and edge["x"] + edge["width"] <= 390) or "Object" in button.inner_text()
    tab.picture("page-phone.png")


def test_the_keyboard_is_enough_and_all_has_a_name(open_tab: OpenTab) -> None:
    tab = open_tab(color_scheme="dark")
    tab.page.get_by_role("button", name="Or try this one").focus()
    tab.page.keyboard.press("Enter")
    tab.until_connected()
    tab.page.keyboard.press("ArrowLeft")
    tab.page.keyboard.press("Shift+ArrowUp")
    tab.page.keyboard.press("Enter")
    tab.until("it.prompt.points.length === 1")
    tab.page.keyboard.press("Shift+ArrowDown")
    tab.page.keyboard.press("Shift+Enter")
    tab.until("it.prompt.points.length === 2")
    (inside, outside) = tab.prompt["points"]
    assert (inside["y_px"], outside["y_px"], outside["label"]) == (199, 200, 0)
    assert tab.page.locator("#spoken").inner_text()
    tab.page.keyboard.press("?")
    expect(tab.page.get_by_role("dialog", name="Shortcuts")).to_be_visible()
    tab.page.keyboard.press("Escape")
    nameless = """() => [...document.querySelectorAll('button, input, select, canvas[tabindex]')]
        .filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.length || e.id === 'file'))
        .map((e) => e.outerHTML)"""
    assert tab.page.evaluate(nameless) == []
    tab.picture("page-dark.png")


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
    expect(tab.page.get_by_role("alert")).to_contain_text("notes.txt cannot be shown by this browser. JPEG, PNG")
    tab.page.get_by_role("button", name="Dismiss").click()
    for kind in ("drop", "paste"):
        tab.page.evaluate(script, [kind, picture, f"{kind}.jpg", "image/jpeg"])
        expect(tab.page.locator("#title")).to_contain_text(f"{kind}.jpg")
        tab.until_connected()
        tab.click(*CLICK)
        tab.until("it.id === 'object-1' && it.mask")
