"""The page on a phone, by keyboard alone, and with a token."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from testing.chromium import Tab
from testing.guarded import guarded_servers
from testing.servers import running_gateway

OpenTab = Callable[..., Tab]
CLICK, OUTSIDE, BOX = (260, 130), (300, 330), (135, 40, 500, 345)


def test_a_token_is_asked_for(open_tab: OpenTab, tmp_path: Path) -> None:
    with guarded_servers(tmp_path) as servers, running_gateway(servers) as (address, _):
        right = servers.token()
        tab = open_tab(url=address)
        field = tab.page.locator("#token-value")
        field.fill("mw_wrong")
        field.press("Enter")
        expect(tab.page.locator("#token-text")).to_contain_text("refused")
        field.fill(right)
        field.press("Enter")
        tab.open_sample()
        tab.click(*CLICK)
        tab.until("it.mask")


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
    tab.page.wait_for_function("before => app.viewport.scale === before", arg=before)
    tab.page.get_by_role("button", name="New").tap()
    tab.page.get_by_role("radio", name="Box").tap()
    touch("touchStart", tab.screen(*BOX[:2]))
    touch("touchMove", tab.screen(300, 200))
    touch("touchMove", tab.screen(*BOX[2:]))
    touch("touchEnd")
    tab.until("it.prompt.box && it.mask")
    np.testing.assert_allclose([tab.prompt["box"][key] for key in ("x_min_px", "x_max_px")], BOX[::2], atol=3)
    expect(tab.page.locator("#about")).to_contain_text(
        "tap an object to get its mask. The demo model\u2019s masks are rough"
    )
    expect(tab.page.locator("#about")).to_contain_text("maskwire up --model sam2.1_hiera_tiny")
    for heading in ("Objects", "Download", "Copy as code"):
        expect(tab.page.get_by_role("heading", name=heading)).to_be_visible()
    words = tab.page.inner_text("body").lower()
    assert not [word for word in ("mouse", "shift", "right-click", "drop ", "click to") if word in words]
    assert tab.page.evaluate("() => document.documentElement.scrollWidth") == 390
    expect(tab.page.locator("#objects").get_by_role("button", name="Delete")).to_have_count(2)
    for button in tab.page.locator("button:not(#exports .four button), header a").all():  # those are a row to scroll
        edge = button.bounding_box()
        if edge is None:
            continue
        assert edge["x"] >= 0, (button.get_attribute("id"), button.inner_text(), edge)
        assert edge["x"] + edge["width"] <= 390, (button.get_attribute("id"), button.inner_text(), edge)
        assert edge["y"] + edge["height"] <= 844, (button.get_attribute("id"), button.inner_text(), edge)
        assert edge["height"] >= (24 if button.get_attribute("id") == "connection" else 44), (
            button.get_attribute("id"),
            button.inner_text(),
            edge,
        )
        assert edge["width"] >= 40, (button.get_attribute("id"), button.inner_text(), edge)
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
    expect(tab.page.get_by_role("dialog", name="Help")).to_be_visible()
    tab.page.keyboard.press("Escape")
    nameless = """() => [...document.querySelectorAll('button, input, select, canvas[tabindex]')]
        .filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.length || e.id === 'file'))
        .map((e) => e.outerHTML)"""
    assert tab.page.evaluate(nameless) == []
    tab.picture("page-dark.png")
