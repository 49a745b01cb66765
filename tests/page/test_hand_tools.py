"""Masks that people change by hand: brush, eraser and vertices."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import expect
from pycocotools import mask as coco

from testing.chromium import Tab, decoded

OpenTab = Callable[..., Tab]
CLICK, OTHER = (260, 130), (50, 40)
HEIGHT, WIDTH = 37, 53


def counts(mask: NDArray[np.bool_]) -> str:
    text: bytes = coco.encode(np.asfortranarray(mask, np.uint8))["counts"]
    return text.decode()


def covered(points: list[list[float]], radius: float) -> NDArray[np.bool_]:
    """Pixels whose centres are within a radius of a way."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    found = np.zeros((HEIGHT, WIDTH), bool)
    for (ax, ay), (bx, by) in zip(points[:1] + points[:-1], points, strict=True):
        length = (bx - ax) ** 2 + (by - ay) ** 2
        share = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / (length or 1), 0, 1)
        found |= np.hypot(x - ax - share * (bx - ax), y - ay - share * (by - ay)) <= radius
    return found


def within(lines: list[list[list[float]]]) -> NDArray[np.bool_]:
    """Pixels whose centres are within lines, by the even-odd rule."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    found = np.zeros((HEIGHT, WIDTH), bool)
    for line in lines:
        for (ax, ay), (bx, by) in zip(line, line[1:] + line[:1], strict=True):
            with np.errstate(divide="ignore", invalid="ignore"):
                above = ay + (x - ax) / (bx - ax) * (by - ay) < y
            found ^= ((ax < x) != (bx < x)) & above
    return found


def test_edits_are_made_pixel_by_pixel(open_tab: OpenTab) -> None:
    tab, random = open_tab(), np.random.default_rng(3)
    script = """async ([size, base, points, radius, lines]) => {
        const { brushed, difference, edited, enclosed } = await import('/assets/drawing.js');
        const { Mask } = await import('/assets/rle.js');
        const [added, removed] = [brushed(points, radius, size), enclosed(lines, size)];
        const mask = base && new Mask({ size, counts: base });
        return [added, removed, edited(mask, { size, added, removed }).counts, difference(added, removed, size)];
    }"""
    for number in range(12):
        base = random.random((HEIGHT, WIDTH)) < (0, 0.5, 1)[number % 3]
        points = random.uniform((-5, -5), (WIDTH + 5, HEIGHT + 5), (1 + number % 4, 2)).tolist()
        radius = float(random.uniform(0.3, 9))
        lines = [random.uniform((-5, -5), (WIDTH + 5, HEIGHT + 5), (5, 2)).tolist() for _ in range(2)]
        given = [[HEIGHT, WIDTH], counts(base) if number % 4 else None, points, radius, lines]
        added, removed, result, apart = tab.page.evaluate(script, given)
        before = base if number % 4 else np.zeros_like(base)
        expected = {added: covered(points, radius), removed: within(lines)}
        expected[result] = (before | expected[added]) & ~expected[removed]
        expected[apart] = expected[added] & ~expected[removed]
        for text, mask in expected.items():
            np.testing.assert_array_equal(decoded(HEIGHT, WIDTH, text), mask)
            assert text == counts(mask)


def drag(tab: Tab, *places: tuple[float, float]) -> None:
    tab.move(*places[0])
    tab.page.mouse.down()
    for place in places[1:]:
        tab.page.mouse.move(*tab.screen(*place), steps=3)
    tab.page.mouse.up()


def steps(tab: Tab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tab.page.evaluate("() => app.editor.objects.selected.history.steps")
    return found


def test_masks_are_painted_rubbed_out_and_reshaped(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.open_sample()
    tab.click(*CLICK)
    tab.until("it.mask")
    clicked = tab.mask
    tab.page.get_by_role("button", name="Another mask for this click (M)").click()
    tab.page.wait_for_function(f"() => app.editor.objects.selected.mask.area !== {int(clicked.sum())}")
    tab.page.get_by_role("button", name="Python").click()
    expect(tab.page.get_by_text("Copied Python code").last).to_be_visible()
    assert re.search(r"s\.click\(.*, candidate=[123]\)", tab.clipboard)
    for left in range(len(steps(tab)) - 1, 0, -1):
        tab.page.keyboard.press("Control+z")
        tab.until(f"it.history.steps.length === {left}")
    np.testing.assert_array_equal(tab.mask, clicked)
    tab.page.keyboard.press("p")
    drag(tab, (20, 380), (90, 380))
    tab.until("it.history.steps.length === 2")
    painted = tab.mask
    assert painted[380, 20:90].all()
    assert (painted & clicked == clicked).all()
    tab.page.keyboard.press("d")
    drag(tab, (40, 380), (60, 380))
    tab.until("it.history.steps.length === 3")
    assert not tab.mask[380, 40:60].any()
    assert tab.mask[380, [20, 85]].all()
    tab.page.keyboard.press("v")
    rings = tab.page.evaluate("() => app.pointing.hand._rings")
    x, y = next(vertex for ring in rings for vertex in ring if vertex[1] > 380 and vertex[0] > 70)
    drag(tab, (x, y), (x + 25, y - 30))
    tab.until("it.history.steps.length === 4")
    reshaped = tab.mask
    assert (reshaped & ~painted).sum() > 50
    tab.picture("page-vertices.png")
    # A click goes on from the clicks, and what was done by hand stays on top.
    tab.page.keyboard.press("i")
    tab.click(300, 330, button="right")
    tab.until("it.history.steps.length === 5")
    assert tab.mask[380, [20, 50]].tolist() == [True, False]
    tab.page.keyboard.press("Control+z")
    tab.until("it.history.steps.length === 4")
    np.testing.assert_array_equal(tab.mask, reshaped)
    tab.reload()
    tab.until_connected()
    np.testing.assert_array_equal(tab.mask, reshaped)
    for expected in (None, painted, clicked):
        tab.page.keyboard.press("Control+z")
        if expected is not None:
            tab.until(f"it.history.steps.length === {2 if expected is painted else 1}")
            np.testing.assert_array_equal(tab.mask, expected)
    # An object may be made by hand alone, and automatic masks may be changed.
    tab.page.keyboard.press("n")
    tab.page.keyboard.press("p")
    drag(tab, (500, 50), (560, 60))
    tab.until("it.id === 'object-2' && it.mask")
    assert [list(step) for step in steps(tab)] == [["edit"]]
