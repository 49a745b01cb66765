"""The memory of the page with a small and with a large picture."""

from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from bench.browser.hovering import HOVER, until_decoding
from testing.chromium import Tab
from testing.paths import COFFEE
from testing.processes import resident_bytes

SETTLED_MS = 3000  # after which what was only needed to open the picture is given back
HOVERS = 20


def of_picture(browser: Browser, url: str, folder: Path, megapixels: float, decode: str) -> dict[str, float]:
    """Opens a square picture and hovers over it.

    Args:
        browser: The browser.
        url: Address of the page.
        folder: For the picture's file.
        megapixels: The picture's size.
        decode: Where masks are decoded: "server" or "here".

    Returns:
        MiB of the page's process, and of its JavaScript heap.
    """
    side = round(1000 * megapixels**0.5)
    path = folder / f"{side}.jpg"
    if not path.exists():
        Image.open(COFFEE).convert("RGB").resize((side, side)).save(path, quality=80)
    tab = Tab(browser, url, decode=decode)
    tab.page.set_default_timeout(120_000)
    tab.open_file(path)
    if decode == "here":
        until_decoding(tab)
    for number in range(HOVERS):
        tab.page.evaluate(HOVER, [side * (0.2 + 0.03 * number), side * 0.4])
    tab.page.wait_for_timeout(SETTLED_MS)
    heap = tab.page.evaluate("() => performance.memory.usedJSHeapSize")
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    resident = max(resident_bytes(each["id"]) for each in processes if each["type"] == "renderer")
    session.detach()
    tab.close()
    return {"resident_mib": resident / 2**20, "heap_mib": heap / 2**20}
