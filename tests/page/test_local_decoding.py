"""The page decodes what people point at by itself, and goes on without decoder servers."""

import contextlib
import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from maskwire.cli.free_ports import free_port
from maskwire.cli.health import health
from playwright.sync_api import Browser, Route, expect

from testing.chromium import Tab
from testing.processes import wait_until
from testing.servers import Stack, running_gateway
from testing.warm import running_module

OpenTab = Callable[..., Tab]
CLICK, OUTSIDE, OTHER = (260, 130), (300, 330), (50, 40)

pytestmark = pytest.mark.usefixtures("browser_runtime")


@contextlib.contextmanager
def decoder_at(address: str, redis_url: str) -> Iterator[None]:
    with running_module("maskwire_decoder", "--port", address.split(":")[1], "--redis-url", redis_url) as process:
        wait_until(lambda: health(address) == "SERVING", process=process)
        yield


def until_decoding(tab: Tab) -> None:
    """Waits until the page has all that it decodes with."""
    failure = tab.page.evaluate(
        """async () => {
            const { local, editor } = app;
            const hasAll = async () => (await local._starting)._loaded.includes('refine');
            const isReady = async () => local.isReady(editor.session?.image) && (await hasAll());
            while (!local.failure && !(await isReady())) await new Promise((resolve) => setTimeout(resolve, 50));
            return local.failure;
        }"""
    )
    assert failure == ""


def test_people_who_do_not_want_it_download_nothing(open_tab: OpenTab) -> None:
    tab = open_tab()
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.open_sample()
    tab.move(*CLICK)
    tab.page.wait_for_function("() => app.editor.preview?.mask")
    expect(tab.page.locator("#timings")).to_contain_text("round trip")
    assert not [url for url in asked if "onnxruntime" in url or "embedding" in url]


def test_people_choose_the_weights(open_tab: OpenTab) -> None:
    slow = "Object.defineProperty(navigator, 'connection', { value: { saveData: true } });"
    tab = open_tab(decode="here", init_script=slow)
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.open_sample()
    until_decoding(tab)
    tab.move(*CLICK)
    expect(tab.page.locator("#timings")).to_contain_text("here, half precision")
    assert [url for url in asked if "weights=half" in url]  # where people save data, unless they choose
    assert not [url for url in asked if "weights=compact" in url]
    tab.page.get_by_role("button", name="Kept images").click()
    choice = tab.page.get_by_label("Weights that it downloads for that")
    expect(choice).to_have_value("half")
    choice.select_option("compact")
    tab.page.locator("#kept-images").get_by_role("button", name="Close").click()
    until_decoding(tab)
    assert [url for url in asked if "weights=compact" in url]
    tab.move(*OTHER)
    expect(tab.page.locator("#timings")).to_contain_text("here")
    expect(tab.page.locator("#timings")).not_to_contain_text("half precision")
    assert tab.page.evaluate("() => app.editor.preview.mask.area > 0")


def test_hovering_asks_no_server_and_clicks_go_on_without(browser: Browser, stack: Stack) -> None:
    sent: list[str] = []
    address = f"127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as gateway:
        with decoder_at(address, stack.redis_url):
            url, _ = gateway.enter_context(running_gateway(stack, decoder=address))
            tab = Tab(browser, url, decode="here")
            gateway.callback(tab.close)
            tab.page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(str(frame))))
            tab.open_sample()
            until_decoding(tab)
            assert sent  # the image was set
            sent.clear()
            tab.move(*CLICK)
            tab.page.wait_for_function("() => app.editor.preview?.mask")
            expect(tab.page.locator("#timings")).to_contain_text("here")
            assert not [frame for frame in sent if "segment" in frame]
            hovered = tab.page.evaluate("() => app.editor.preview.mask.area")
            tab.click(*CLICK)
            tab.until("it.mask")
            assert [frame for frame in sent if "segment" in frame]
            before = tab.mask
            assert before.sum() == pytest.approx(hovered, abs=5)  # but for pixels that rounding decides
        tab.click(*OUTSIDE, button="right")
        tab.until("it.prompt.points.length === 2")
        tab.page.keyboard.press("n")
        tab.click(*OTHER)
        tab.until("it.id === 'object-2' && it.mask")
        alone = tab.mask
        expect(tab.page.locator("#timings")).to_contain_text("here")
        tab.page.keyboard.press("Control+z")
        tab.page.keyboard.press("Control+z")
        tab.page.wait_for_function("() => app.editor.objects.items[0].prompt.points.length === 1")
        tab.page.wait_for_function("() => app.editor.objects.items[0].mask")
        assert (tab.mask == before).mean() > 0.9999
        tab.page.keyboard.press("Control+Shift+z")
        tab.page.keyboard.press("Control+Shift+z")
        tab.page.wait_for_function("() => app.editor.objects.items[1].mask && !app.editor.isWaiting")
        with decoder_at(address, stack.redis_url):
            tab.until_connected()
            assert tab.page.evaluate("() => app.editor.objects.items.map((item) => item.prompt.points.length)") == [
                2,
                1,
            ]
            np.testing.assert_array_equal(tab.mask, alone)


def test_without_a_graphics_card_webgpu_is_not_offered(open_tab: OpenTab) -> None:
    tab = open_tab(decode="here")
    tab.open_sample()
    tab.page.get_by_role("button", name="Kept images").click()
    lack = tab.page.evaluate("async () => (await (await import('/assets/decoder/gpu.js')).findGpu()).lack")
    assert lack == "WebGPU finds no graphics card that this browser uses"
    expect(tab.page.get_by_label("What decodes")).to_be_hidden()


def test_where_neither_webgpu_nor_webassembly_decodes_the_server_does(open_tab: OpenTab) -> None:
    def other_answer(route: Route) -> None:
        answer = route.fetch()
        changed = re.sub(r'("data": ").{16}', r"\g<1>AACAQAAAgEAAAIBA", answer.text(), count=1)
        route.fulfill(response=answer, body=changed)

    tab = open_tab(decode="here", init_script="localStorage.setItem('maskwire.backend', 'webgpu');")
    tab.context.route("**/segment", other_answer)
    tab.open_sample()
    tab.page.wait_for_function("() => app.local.failure")
    tab.move(*CLICK)
    tab.page.wait_for_function("() => app.editor.preview?.mask")
    expect(tab.page.locator("#timings")).to_contain_text("this browser cannot decode")
    title = tab.page.locator("#timings").get_attribute("title") or ""
    assert title.startswith("WebGPU does not decode: WebGPU finds no graphics card")
    assert "The server decodes, not this browser: this browser's logits differ from the server's" in title
    tab.page.get_by_role("button", name="Kept images").click()
    expect(tab.page.get_by_label("What decodes")).to_have_value("webgpu")  # it was chosen, so that it can be undone
    expect(tab.page.locator("#decoder-troubles")).to_contain_text("The server decodes")
