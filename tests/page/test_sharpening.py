"""Masks of what is looked at from near by: the whole picture's first, then one of the part that is seen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Route

from testing.chromium import Tab

OpenTab = Callable[..., Tab]
WIDTH, HEIGHT = 3000, 2000
SMALL, LARGE = (2400, 700, 20), (900, 1000, 500)  # x, y, radius
LOG = """() => {
    window.log = [];
    const mask = () => app.editor.objects.selected.mask;
    app.editor.addEventListener('answer', ({detail}) => log.push([detail.isSharp, mask()?.counts]));
}"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    random = np.random.default_rng(2412)
    picture = random.integers(195, 206, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for (x, y, radius), colour in ((SMALL, (120, 50, 40)), (LARGE, (30, 100, 60))):
        cv2.circle(picture, (x, y), radius, colour, -1)
    path = tmp_path / "two discs.png"
    Image.fromarray(picture).save(path, compress_level=1)
    return path


def iou(mask: NDArray[np.bool_], disc: tuple[int, int, int]) -> float:
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    truth = (x - disc[0]) ** 2 + (y - disc[1]) ** 2 <= disc[2] ** 2
    return float((mask & truth).sum() / (mask | truth).sum())


def opened(open_tab: OpenTab, file: Path, at: tuple[int, int, int], zooms: int) -> Tab:
    """Opens the picture and turns the wheel over a disc."""
    tab = open_tab()
    tab.open_file(file)
    tab.page.evaluate(LOG)
    for _ in range(zooms):
        tab.zoom(*tab.screen(*at[:2]), 400)
    return tab


def test_a_small_object_is_sharpened_after_the_first_answer(open_tab: OpenTab, file: Path) -> None:
    tab = opened(open_tab, file, SMALL, 4)
    seen = tab.page.evaluate("() => app.viewport.seen")
    assert 3 * SMALL[2] < seen < 1000
    tab.click(*SMALL[:2])
    tab.page.wait_for_function("() => log.some(([isSharp]) => isSharp)")
    answers = tab.page.evaluate("() => log")
    assert [sharp for sharp, _ in answers if sharp] == [True]
    first = next(counts for sharp, counts in answers if not sharp and counts)
    assert first != tab.page.evaluate("() => app.editor.objects.selected.mask.counts")
    assert iou(tab.mask, SMALL) > 0.8
    assert "sharpened" in tab.page.inner_text("#timings")
    # Another candidate is another one, not the first answer again.
    answered = tab.page.evaluate("() => app.editor.objects.selected.answered")
    assert answered == first
    tab.page.keyboard.press("m")
    tab.page.wait_for_function("() => !app.editor.isWaiting && app.editor.objects.selected.history.candidate > 0")
    tab.until(f"it.answered !== {answered!r}")
    tab.page.keyboard.press("Control+z")
    tab.until("it.history.candidate === 0 && it.answered !== it.mask.counts")
    tab.page.evaluate("() => log.splice(0)")
    # It stays, is kept, and is what undo and redo lead back to.
    sharp = tab.mask
    tab.page.keyboard.press("Control+z")
    tab.page.wait_for_function("() => !app.editor.objects.selected.mask")
    tab.page.keyboard.press("Control+Shift+z")
    tab.page.wait_for_function("() => log.some(([isSharp]) => isSharp)")
    np.testing.assert_array_equal(tab.mask, sharp)
    tab.reload()
    tab.until("it.mask")
    np.testing.assert_array_equal(tab.mask, sharp)


def test_what_is_seen_as_a_whole_is_not_sharpened(open_tab: OpenTab, file: Path) -> None:
    tab = opened(open_tab, file, LARGE, 0)
    regions: list[Any] = []
    tab.page.on("request", lambda request: regions.append(request) if "region_of" in request.url else None)
    tab.click(*LARGE[:2])
    tab.until("it.mask")
    assert iou(tab.mask, LARGE) > 0.8
    tab.click(LARGE[0] + 100, LARGE[1])
    tab.until("it.prompt.points.length === 2 && it.mask")
    assert regions == []


def test_the_first_answer_stays_where_the_part_shows_no_more(open_tab: OpenTab, file: Path) -> None:
    tab = opened(open_tab, file, LARGE, 5)
    assert tab.page.evaluate("() => app.viewport.seen") < LARGE[2]
    with tab.page.expect_response(lambda response: "/segment" in response.url) as sharp:
        tab.click(*LARGE[:2])  # all that is seen is within it
    assert sharp.value.ok
    tab.page.wait_for_timeout(300)
    tab.until("it.mask")
    assert iou(tab.mask, LARGE) > 0.8
    assert not tab.page.evaluate("() => log.some(([isSharp]) => isSharp)")


def test_the_first_answer_stays_if_the_part_is_refused_or_late(open_tab: OpenTab, file: Path) -> None:
    tab = opened(open_tab, file, SMALL, 4)
    held: list[Route] = []
    tab.page.route("**/v1/images?*region_of*", lambda route: held.append(route))
    with tab.page.expect_request(lambda request: "region_of" in request.url):
        tab.click(*SMALL[:2])
    tab.until("it.mask")
    tab.click(SMALL[0] + 5, SMALL[1])  # the object has changed meanwhile
    tab.until("it.prompt.points.length === 2 && it.mask")
    before = tab.mask
    for route in held:
        route.fulfill(status=503, json={"error": {"message": "full"}})
    tab.page.unroute("**/v1/images?*region_of*")
    tab.page.wait_for_timeout(300)
    np.testing.assert_array_equal(tab.mask, before)
    tab.click(SMALL[0], SMALL[1] + 5)
    tab.page.wait_for_function("() => log.some(([isSharp]) => isSharp)")
    assert iou(tab.mask, SMALL) > 0.75
