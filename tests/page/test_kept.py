"""Images and objects that the page keeps in the browser."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from testing.chromium import Tab

OpenTab = Callable[..., Tab]
CLICK, OUTSIDE = (260, 130), (300, 330)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Three pictures, each with a disc of another colour."""
    paths = []
    for name, colour in (("red", (200, 40, 30)), ("green", (40, 180, 60)), ("blue", (40, 60, 210))):
        image = Image.new("RGB", (320, 240), (235, 230, 220))
        ImageDraw.Draw(image).ellipse((80, 50, 230, 200), fill=colour)
        paths.append(tmp_path / f"{name}.png")
        image.save(paths[-1])
    return paths


def test_objects_outlive_other_images_and_a_reload(open_tab: OpenTab, pictures: list[Path]) -> None:
    tab = open_tab()
    tab.open_sample()
    tab.click(*CLICK)
    tab.until("it.mask")
    tab.click(*OUTSIDE, button="right")
    tab.until("it.prompt.points.length === 2")
    mask = tab.mask
    tab.open_file(pictures[0])
    assert tab.page.evaluate("() => app.editor.objects.masked.length") == 0
    tab.click(150, 120)
    tab.until("it.mask")
    for step in ("click", "reload"):
        if step == "click":
            tab.page.get_by_role("button", name="sample.jpg, 1 object").click()
        else:
            tab.reload()
        expect(tab.page.locator("#title")).to_contain_text("sample.jpg")
        tab.until_connected()
        tab.until("it.prompt.points.length === 2 && it.mask")
        np.testing.assert_array_equal(tab.mask, mask)
    tab.page.keyboard.press("Control+z")
    tab.until("it.prompt.points.length === 1")
    tab.click(*OUTSIDE, button="right")
    tab.until("it.prompt.points.length === 2")
    np.testing.assert_array_equal(tab.mask, mask)
    tab.page.keyboard.press(".")
    expect(tab.page.locator("#title")).to_contain_text("red.png")
    tab.until("it.prompt.points.length === 1 && it.mask")


def test_many_images_and_their_removal(open_tab: OpenTab, pictures: list[Path], tmp_path: Path) -> None:
    tab = open_tab()
    (tmp_path / "notes.txt").write_text("no picture")
    tab.page.set_input_files("#folder", tmp_path)
    images = tab.page.locator("#images li")
    expect(images).to_have_count(3)
    expect(tab.page.locator(".notice")).to_have_text("1 file was left out: this browser cannot show it.Dismiss")
    assert tab.page.evaluate("() => app.library.images.map(({ name }) => name)") == ["blue.png", "green.png", "red.png"]
    expect(tab.page.locator("#title")).to_contain_text("blue.png")
    tab.page.get_by_role("button", name="Next image").click()
    expect(tab.page.locator("#title")).to_contain_text("green.png")
    tab.until_connected()
    tab.click(150, 120)
    tab.until("it.mask")
    tab.picture("page-images.png")
    tab.page.set_input_files("#file", pictures)  # the same again
    expect(tab.page.locator("#title")).to_contain_text("red.png")
    expect(images).to_have_count(3)
    tab.page.get_by_role("button", name="green.png, 1 object").click()
    expect(tab.page.locator("#title")).to_contain_text("green.png")
    tab.page.get_by_role("button", name="Kept images").click()
    tab.page.get_by_role("button", name="Remove this image").click()
    tab.page.get_by_role("button", name="Remove", exact=True).click()
    expect(images).to_have_count(2)
    tab.reload()
    expect(images).to_have_count(2)
    tab.page.get_by_role("button", name="Kept images").click()
    tab.page.get_by_role("button", name="Remove all").click()
    expect(tab.page.locator("#welcome")).to_be_visible()
    assert tab.page.evaluate("async () => (await indexedDB.databases()).length") == 1


def test_two_tabs_add_to_one_another(open_tab: OpenTab, gateway: str) -> None:
    tab = open_tab()
    tab.open_sample()
    tab.click(*CLICK)
    tab.until("it.mask")
    tab.until_kept()
    other = tab.another(gateway)
    other.until_connected()
    other.until("it.mask")
    for one, place in ((tab, OUTSIDE), (other, (50, 40))):  # the same object, in both
        one.click(*place)
        one.until("it.prompt.points.length === 2")
        one.until_kept()
    tab.reload()
    tab.until_connected()
    places = tab.page.evaluate(
        "() => app.editor.objects.items.map((it) => it.prompt.points.map(({ x_px, y_px }) => [x_px, y_px]))"
    )
    assert sorted(map(len, places)) == [2, 2]
    seconds = sorted(np.round(points[1]).tolist() for points in places)
    np.testing.assert_allclose(seconds, [(50, 40), OUTSIDE], atol=1)
    other.close()


def test_a_file_that_is_not_kept_is_asked_for(open_tab: OpenTab, pictures: list[Path]) -> None:
    tab = open_tab()
    tab.open_file(pictures[0])
    tab.click(150, 120)
    tab.until("it.mask")
    mask = tab.mask
    tab.until_kept()
    tab.page.evaluate("() => app.library._giveUpFile(app.library.images[0])")
    tab.reload()
    expect(tab.page.get_by_role("alert")).to_contain_text(
        "red.png is not in this browser any more. Its object is kept."
    )
    tab.open_file(pictures[0])
    tab.until("it.mask")
    np.testing.assert_array_equal(tab.mask, mask)


def test_leaving_is_questioned_where_the_browser_keeps_nothing(open_tab: OpenTab) -> None:
    refusing = "indexedDB.open = () => { throw new DOMException('no', 'SecurityError') }"
    tab = open_tab(init_script=refusing)
    tab.open_sample()
    tab.click(*CLICK)
    tab.until("it.mask")
    expect(tab.page.get_by_role("alert")).to_contain_text("This browser keeps nothing")
    assert tab.page.evaluate(LEAVING) is True
    kept = open_tab()
    kept.open_sample()
    kept.click(*CLICK)
    kept.until("it.mask")
    kept.until_kept()
    assert kept.page.evaluate(LEAVING) is False


LEAVING = """() => {
    const event = new Event('beforeunload', { cancelable: true });
    dispatchEvent(event);
    return event.defaultPrevented;
}"""


def test_digests_without_the_browsers_own(open_tab: OpenTab) -> None:
    tab = open_tab()
    script = """async (data) => {
        const { digestWords } = await import('/assets/sha256.js');
        const hex = (word) => word.toString(16).padStart(8, '0');
        return data.map((one) => [...digestWords(Uint8Array.from(one))].map(hex).join(''));
    }"""
    data = [np.random.default_rng().bytes(length) for length in (0, 3, 55, 56, 63, 64, 65, 1000, 100_000)]
    digests = tab.page.evaluate(script, [list(one) for one in data])
    assert digests == [hashlib.sha256(one).hexdigest() for one in data]
