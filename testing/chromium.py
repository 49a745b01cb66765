"""Maskwire's page in a headless Chromium."""

import base64
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, BrowserContext, Download, Page, sync_playwright
from pycocotools import mask as coco

from testing.paths import ROOT

PICTURES = ROOT / "out"
SOFTWARE_GPU = "--enable-unsafe-webgpu"
"""The option with which Chromium has WebGPU without a graphics card: SwiftShader's, which computes on the processor."""

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextlib.contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """Runs the Chromium or Chrome that is on PATH, with further options; without one, the test is skipped, or fails
    where CI is set."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        message = "no chromium on PATH; scripts/test installs it where it can"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        # Without a GPU, drawing as if there were one costs a quarter of the processor time of a test.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu", *options])
        yield browser
        browser.close()


class Tab:
    """A browser tab with the page, operated as people do it. Coordinates are pixels of the image.

    An error in the page's scripts fails the test when the tab is closed.

    Args:
        browser: The browser, in which the tab gets a context of its own.
        url: Address of the page.
        width: Width of the window in CSS pixels.
        height: Height of the window in CSS pixels.
        init_script: JavaScript that runs before the page's own.
        script: Path of the page's own script, whose exports tests read as `app`.
        decode: Where the page decodes what people point at: "server", or "here".
        options: Further options of the browser context, as Playwright has them.
    """

    def __init__(
        self,
        browser: Browser,
        url: str,
        width: int = 1280,
        height: int = 800,
        init_script: str = "",
        script: str = "/assets/app.js",
        decode: str = "server",
        **options: Any,
    ) -> None:
        self._script = script
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        context.add_init_script(f"if (origin !== 'null') localStorage.setItem('maskwire.decode', '{decode}');")
        if init_script:
            context.add_init_script(init_script)
        self._open(context, url)

    def another(self, url: str) -> "Tab":
        """Opens the page in another tab with the same storage."""
        tab = object.__new__(Tab)
        tab._script = self._script
        tab._open(self.context, url)
        return tab

    def _open(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.page: Page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.failures: list[str] = []
        self.page.on("pageerror", lambda error: self.failures.append(str(error)))
        self.page.goto(url)
        self._import_app()

    def close(self) -> None:
        self.page.close()
        if not self.context.pages:
            self.context.close()
        assert self.failures == []

    def _import_app(self) -> None:
        self.page.evaluate("async (script) => { window.app = await import(script) }", self._script)

    def reload(self) -> None:
        """Reloads the page after all changes have been written to the browser's storage."""
        self.until_kept()
        self.page.reload()
        self._import_app()

    def until_kept(self) -> None:
        self.page.wait_for_function("() => !app.workspace.autosave.isBusy")

    def open_sample(self) -> None:
        self.page.get_by_role("button", name="Or try this one").click()
        self.until_connected()

    def open_file(self, path: Path) -> None:
        self.page.set_input_files("#file", path)
        self.page.wait_for_function(
            "name => document.querySelector('#title').textContent.includes(name)", arg=path.name
        )
        self.until_connected()

    def until_connected(self) -> None:
        self.page.wait_for_selector("#connection[data-state=open]")

    def screen(self, x: float, y: float) -> tuple[float, float]:
        """Converts image coordinates to those of the window, in CSS pixels."""
        script = """([x, y]) => {
            const edge = document.querySelector('#overlay').getBoundingClientRect();
            const at = app.viewport.toScreen([x, y]);
            return [at[0] + edge.left, at[1] + edge.top];
        }"""
        left, top = self.page.evaluate(script, [x, y])
        return left, top

    def move(self, x: float, y: float) -> None:
        self.page.mouse.move(*self.screen(x, y))

    def click(self, x: float, y: float, **options: Any) -> None:
        self.page.mouse.click(*self.screen(x, y), **options)

    def zoom(self, x: float, y: float, delta: float) -> None:
        """Turns the mouse wheel at a point of the window, given in CSS pixels."""
        before = self.page.evaluate("() => app.viewport.scale")
        self.page.mouse.move(x, y)
        self.page.mouse.wheel(0, -delta)
        self.page.wait_for_function("before => app.viewport.scale !== before", arg=before)

    def look_away(self) -> None:
        """Moves the mouse off the image and waits until no preview is drawn."""
        self.page.mouse.move(640, 20)
        self.page.wait_for_function("() => !app.editor.preview")
        self.page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")

    def drag(self, x0: float, y0: float, x1: float, y1: float) -> None:
        self.move(x0, y0)
        self.page.mouse.down()
        self.page.mouse.move(*self.screen(x1, y1), steps=4)
        self.page.mouse.up()

    def until(self, condition: str) -> None:
        """Waits until no reply is pending and a JavaScript condition on `it`, the selected object, holds."""
        self.page.wait_for_function(
            f"() => {{ const it = app.editor.objects.selected; return !it.pending.length && ({condition}) }}"
        )

    @property
    def prompt(self) -> dict[str, Any]:
        prompt: dict[str, Any] = self.page.evaluate("() => app.editor.objects.selected.prompt")
        return prompt

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask of the selected object, HxW."""
        rle = self.page.evaluate(
            "() => { const {height, width, counts} = app.editor.objects.selected.mask; return [height, width, counts] }"
        )
        return decoded(*rle)

    @property
    def clipboard(self) -> str:
        return str(self.page.evaluate("() => navigator.clipboard.readText()"))

    def download(self, name: str) -> Path:
        """Presses the button of this name, which saves a file. Returns the file's path."""
        with self.page.expect_download() as waiting:
            self.page.get_by_role("button", name=name).click()
        download: Download = waiting.value
        return Path(download.path())

    def overlay_alpha(self) -> NDArray[np.uint8]:
        """Returns the opacity of the canvas that lies over the picture, in device pixels."""
        script = """() => {
            const canvas = document.querySelector('#overlay');
            const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            let text = '';
            for (let i = 3; i < data.length; i += 4) text += String.fromCharCode(data[i]);
            return [canvas.height, canvas.width, btoa(text)];
        }"""
        height, width, text = self.page.evaluate(script)
        return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width)

    def picture(self, name: str) -> None:
        """Saves a screenshot into out/ for people to look at."""
        PICTURES.mkdir(exist_ok=True)
        self.page.screenshot(path=PICTURES / name)


def decoded(height: int, width: int, counts: str) -> NDArray[np.bool_]:
    """Decodes a COCO RLE to an HxW mask."""
    return np.asarray(coco.decode({"size": [height, width], "counts": counts.encode()})).astype(bool)
