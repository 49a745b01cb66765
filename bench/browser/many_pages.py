"""Many pages on which people hover at the same time: what their masks cost a decoder server."""

import statistics
import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser

from bench.browser.hovering import TIMEOUT_MS, places, until_decoding
from testing.chromium import Tab
from testing.processes import available_bytes, cpu_seconds

MOST_PROCESSES = 8
"""Of a browser, for its pages: those of one process share what the runtime is compiled to."""

_LEAST_FREE_BYTES = 2 << 30  # no further page is opened when the machine has less
_ONE_THREAD = "Object.defineProperty(navigator, 'hardwareConcurrency', { get: () => 1 });"
_START_S = 0.2  # for each page: all are told when to begin, so that they do so at the same time
_HOVERING = """([begin, everyMs, seconds, places]) => {
    const hover = async () => {
        await new Promise((resolve) => setTimeout(resolve, begin - Date.now()));
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
    browser: Browser,
    url: str,
    decoder_pid: int,
    pages: int,
    hovers_per_s: float,
    seconds: float,
    decode: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Lets people hover on pages of their own, all with the sample. The pages are tabs of one browser context, so that
    what one has downloaded is there for the next. Each decodes on one thread, and is made ready before the next is
    opened.

    Args:
        browser: The browser; `MOST_PROCESSES` is meant for it.
        url: Address of the page.
        decoder_pid: The decoder server's process.
        pages: How many.
        hovers_per_s: Hovers a second on each, if there is processor time for them.
        seconds: How long.
        decode: Where masks are decoded: "server" or "here".
        say: Told how far it is.

    Returns:
        Pages that the machine had memory for, hovers, their median in milliseconds, the seconds of processor time that
        the server took meanwhile and in as long a time without hovers, and MiB of the machine's memory that a page
        took.
    """
    free = available_bytes()
    first = Tab(browser, url, decode=decode, init_script=_ONE_THREAD)
    first.open_sample()
    first.until_kept()
    tabs = [first]
    for number in range(pages):
        if number:
            if available_bytes() < _LEAST_FREE_BYTES:
                break
            tabs.append(first.another(url))
        tab = tabs[-1]
        tab.page.set_default_timeout(TIMEOUT_MS)
        tab.until_connected()
        if decode == "here":
            until_decoding(tab)
            tab.page.evaluate("async () => (await app.local._starting).complete()")
        if len(tabs) % 10 == 0:
            say(f"{len(tabs)} pages are open")
    mib = (free - available_bytes()) / len(tabs) / 2**20
    before = cpu_seconds(decoder_pid)
    time.sleep(seconds)
    idle = cpu_seconds(decoder_pid) - before
    begin = time.time() + _START_S * len(tabs)
    for number, tab in enumerate(tabs):
        tab.page.evaluate(_HOVERING, [1000 * begin, 1000 / hovers_per_s, seconds, places(50, number)])
    time.sleep(max(0, begin - time.time()))
    before = cpu_seconds(decoder_pid)
    time.sleep(seconds)
    took = [each for tab in tabs for each in tab.page.evaluate("() => window.hovering")]
    spent = cpu_seconds(decoder_pid) - before
    for tab in reversed(tabs):
        tab.close()
    return {
        "pages": len(tabs),
        "hovers": len(took),
        "median_ms": statistics.median(took),
        "decoder_cpu_s": spent,
        "decoder_idle_cpu_s": idle,
        "mib_of_a_page": mib,
    }
