"""Hovers on one page, timed from the pointer's place to the frame after the mask is drawn."""

import statistics
import time
from typing import Any

import numpy as np
from playwright.sync_api import Browser

from bench.browser.line import Line
from testing.chromium import Tab

WARM = 40  # hovers before those that count: browsers optimise the runtime meanwhile
READY = "() => app.local.isReady(app.editor.session?.image) || app.local.failure"
HOVER = """async ([x, y]) => {
    const started = performance.now();
    await app.editor.hover(x, y, false);
    await new Promise(requestAnimationFrame);
    return performance.now() - started;
}"""
TIMEOUT_MS = 120_000


def places(count: int, seed: int) -> list[list[float]]:
    """Random places of the sample, which has 600 x 400 pixels."""
    found: list[list[float]] = np.random.default_rng(seed).uniform((0, 0), (600, 400), (count, 2)).tolist()
    return found


def until_decoding(tab: Tab) -> None:
    """Waits until the page can decode what is pointed at."""
    tab.page.wait_for_function(READY, timeout=TIMEOUT_MS)
    failure = tab.page.evaluate("() => app.local.failure")
    assert not failure, failure


def hovers(tab: Tab, count: int) -> dict[str, float]:
    """Milliseconds of hovers: median and 95th percentile."""
    took = [float(tab.page.evaluate(HOVER, place)) for place in places(WARM + count, 1)][WARM:]
    return {"median_ms": statistics.median(took), "p95_ms": sorted(took)[int(0.95 * (len(took) - 1))]}


def compare(browser: Browser, gateway: int, count: int) -> dict[str, Any]:
    """Hovers on one page, whose masks first the server decodes, then the browser.

    Args:
        browser: The browser.
        gateway: The gateway's port.
        count: Hovers in each way.
    """
    line = Line(gateway, 0)
    with line.running() as url:
        tab = Tab(browser, url, decode="server")
        tab.open_sample()
        before = line.nbytes
        rows: dict[str, Any] = {"server": hovers(tab, count)}
        rows["server"]["bytes_per_hover"] = (line.nbytes - before) / (WARM + count)
        tab.page.evaluate("() => app.local.choose(true)")
        until_decoding(tab)
        tab.page.evaluate("async () => (await app.local._starting).complete()")
        before = line.nbytes
        rows["here"] = hovers(tab, count)
        rows["here"]["bytes_per_hover"] = (line.nbytes - before) / (WARM + count)
        rows["threads"] = tab.page.evaluate("async () => (await app.local._starting).threads")
        tab.close()
    return rows


def first_mask_s(browser: Browser, gateway: int, mbit: float) -> float:
    """Seconds from opening the page's sample, for the first time, to the first mask that the browser decodes, over a
    line of so many megabits a second."""
    with Line(gateway, mbit).running() as url:
        tab = Tab(browser, url, decode="here")
        started = time.monotonic()
        tab.open_sample()
        until_decoding(tab)
        tab.page.evaluate(HOVER, [260, 130])
        took = time.monotonic() - started
        tab.close()
    return took
