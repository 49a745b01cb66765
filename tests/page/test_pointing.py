"""What clicks, drags and hovering do in the page, and what is drawn meanwhile."""

from collections.abc import Callable

import cv2
import numpy as np
from maskwire.cli.free_ports import free_port
from playwright.sync_api import expect

from testing.chromium import Tab
from testing.servers import Stack, running_gateway

OpenTab = Callable[..., Tab]
CLICK, OTHER = (260, 130), (50, 40)


def inside(tab: Tab) -> tuple[np.ndarray, np.ndarray]:
    """Places of the window well inside the selected object's mask, as rows and columns of the overlay."""
    core = cv2.erode(tab.mask.astype(np.uint8), np.ones((9, 9), np.uint8))
    scale, left, top = tab.page.evaluate("() => [app.viewport.scale, app.viewport.x, app.viewport.y]")
    y, x = np.nonzero(core)
    far = np.hypot(x - CLICK[0], y - CLICK[1]) > 12
    return np.round((y[far] + 0.5) * scale + top).astype(int), np.round((x[far] + 0.5) * scale + left).astype(int)


def test_a_preview_leaves_the_mask_as_it_is(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.open_sample()
    tab.move(*CLICK)
    tab.page.wait_for_function("() => app.editor.preview?.mask")
    tab.click(*CLICK)
    tab.until("it.mask")
    tab.look_away()
    rows, columns = inside(tab)
    before = tab.overlay_alpha()[rows, columns]
    assert len(before) > 500
    assert np.unique(before).size == 1
    tab.move(300, 200)
    tab.page.wait_for_function("() => app.editor.preview?.mask")
    tab.page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    during = tab.overlay_alpha()[rows, columns]
    assert (during == before).mean() > 0.8  # all but the outline
    assert (during >= before).all()


def test_a_click_with_jitter_is_a_click(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.open_sample()
    x, y = tab.screen(*CLICK)
    for number, (right, down) in enumerate([(9, 0), (0, -9), (6, 6), (-9, 9)], 1):
        tab.page.mouse.move(x, y)
        tab.page.mouse.down()
        tab.page.mouse.move(x + right, y + down, steps=3)
        tab.page.mouse.up()
        tab.until(f"it.id === 'object-{number}' && it.mask")
        assert tab.page.evaluate("() => app.editor.objects.selected.prompt.box") is None
        assert len(tab.prompt["points"]) == 1
        tab.page.keyboard.press("n")


def test_small_boxes_are_drawn_with_the_box_tool(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.open_sample()
    tab.page.keyboard.press("b")
    x, y = tab.screen(*CLICK)
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    tab.page.mouse.move(x + 8, y + 8, steps=3)
    tab.page.mouse.up()
    tab.until("it.prompt.box && it.mask")


def test_a_click_that_waits_looks_like_one(open_tab: OpenTab, stack: Stack) -> None:
    port = free_port()
    with running_gateway(stack, port=port) as (address, _):
        tab = open_tab(url=address)
        tab.open_sample()
        tab.click(*CLICK)
        tab.until("it.mask")
        tab.until_kept()
    expect(tab.page.locator("#connection")).to_contain_text("Reconnecting")
    tab.page.keyboard.press("n")
    tab.click(*OTHER)
    expect(tab.page.locator("#working")).to_contain_text("Reconnecting. 1 click waits for the server")
    expect(tab.page.locator("#objects li.waiting .summary")).to_have_text("Waits for the server")
    tab.picture("page-waiting.png")
    with running_gateway(stack, port=port):
        tab.page.locator("#connection").click()
        tab.until("it.id === 'object-2' && it.mask")
        expect(tab.page.locator("#working")).to_be_hidden()


def test_everything_is_not_covered_by_objects(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.open_sample()
    tab.click(*CLICK)
    tab.until("it.mask")
    tab.page.get_by_role("button", name="Everything").click()
    tab.page.select_option("#density", "8")
    tab.page.get_by_role("button", name="Find masks").click()
    tab.page.wait_for_selector("#everything-score:visible")
    tab.page.locator("#min-score").fill("0")
    tab.look_away()
    rows, columns = inside(tab)
    alpha = tab.overlay_alpha()[rows, columns]
    assert (np.isin(alpha, (0, 130))).mean() > 0.8  # nothing, or one of the masks that were found
    tab.picture("page-everything-objects.png")


def test_notices_do_not_pile_up(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.open_sample()
    tab.click(*CLICK)
    tab.until("it.mask")
    for _ in range(3):
        tab.page.get_by_role("button", name="JSON", exact=True).click()
        tab.page.get_by_role("button", name="curl", exact=True).click()
    expect(tab.page.locator(".notice")).to_have_text(["Copied the prompt as JSON", "Copied curl commands"])
    expect(tab.page.locator(".notice")).to_have_count(0)
