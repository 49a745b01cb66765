"""Many pages on which people hover at the same time: what their masks cost a decoder server."""

import statistics
import time
from typing import Any

from playwright.sync_api import Browser

from bench.browser.hovering import places, until_decoding
from testing.chromium import Tab
from testing.processes import cpu_seconds

HOVERING = """([everyMs, seconds, places]) => {
    const hover = async () => {
        const [took, end] = [[], performance.now() + 1000 * seconds];
        for (let number = 0; performance.now() < end; number++) {
            const started = performance.now();
            await app.editor.hover(...places[number % places.length], false);
            took.push(performance.now() - started);
            await new Promise((resolve) => setTimeout(resolve, everyMs - (performance.now() - started)));
        }
        return took;
    };
    window.hovering = hover();
}"""


def hover_together(
    browser: Browser, url: str, decoder_pid: int, pages: int, hovers_per_s: float, seconds: float, decode: str
) -> dict[str, Any]:
    """Lets people hover on pages of their own, each with the sample.

    Args:
        browser: The browser, in which each page has a context of its own.
        url: Address of the page.
        decoder_pid: The decoder server's process.
        pages: How many.
        hovers_per_s: Hovers a second on each.
        seconds: How long.
        decode: Where masks are decoded: "server" or "here".

    Returns:
        Hovers and their median in milliseconds, and the seconds of processor time that the server took for them.
    """
    tabs = []
    for _ in range(pages):
        tabs.append(Tab(browser, url, decode=decode))
        tabs[-1].open_sample()
        if decode == "here":
            until_decoding(tabs[-1])
            tabs[-1].page.evaluate("async () => (await app.local._starting).complete()")
    before = cpu_seconds(decoder_pid)
    for number, tab in enumerate(tabs):
        tab.page.evaluate(HOVERING, [1000 / hovers_per_s, seconds, places(50, number)])
    time.sleep(seconds)
    took = [each for tab in tabs for each in tab.page.evaluate("() => window.hovering")]
    spent = cpu_seconds(decoder_pid) - before
    for tab in tabs:
        tab.close()
    return {"hovers": len(took), "median_ms": statistics.median(took), "decoder_cpu_s": spent}
