"""Decoding by WebGPU, where people choose it: here by SwiftShader, Chromium's WebGPU on the processor."""

import contextlib
import re
from collections.abc import Callable, Iterator

import pytest
from maskwire import Client
from maskwire.cli.local_store import store_program
from playwright.sync_api import Browser, Error, Page, Route, expect

from testing.chromium import SOFTWARE_GPU, Tab, chromium
from testing.paths import COFFEE
from testing.servers import encoder_and_decoder, running_gateway, store_server

pytestmark = pytest.mark.usefixtures("browser_runtime")

OpenTab = Callable[..., Tab]
CLICK, OUTSIDE = (260, 130), (300, 330)
TOLERANCE = 1e-3  # of logits, as for WebAssembly
PATIENCE_MS = 180_000  # SwiftShader compiles shaders for ten seconds and more
CHOSEN = "localStorage.getItem('maskwire.backend') ?? localStorage.setItem('maskwire.backend', 'webgpu');"
START = """async (options) => {
    const { Decoder } = await import('/assets/decoder/decoder.js');
    const ask = async (path, options) => {
        const response = await fetch('/v1/' + path, options);
        if (!response.ok) throw new Error(await response.text());
        return response;
    };
    window.ask = ask;
    window.decoder = await Decoder.start({ fetch: ask, ...options });
    return decoder.isSoftware;
}"""
DIFFERENCE = """async ([imageId, prompt]) => {
    const output = { formats: ['logits'], logits_type: 'fp32', unclamped_logits: true };
    const headers = { 'Content-Type': 'application/json' };
    const body = JSON.stringify({ prompts: [prompt], output });
    const answer = await (await ask(`images/${imageId}/segment`, { method: 'POST', body, headers })).json();
    const mine = prompt.steps
        ? await decoder.segmentSteps(prompt.steps, { withLogits: true })
        : await decoder.segment({ points: prompt.points, labels: [1] }, { withLogits: true });
    return Math.max(...mine.masks.map(({ logits }, index) => {
        const text = atob(answer.results[0].masks[index].logits.data);
        const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
        const others = new Float32Array(bytes.buffer);
        return logits.reduce((worst, value, at) => Math.max(worst, Math.abs(value - others[at])), 0);
    }));
}"""


@pytest.fixture(scope="module")
def with_gpu() -> Iterator[Browser]:
    with chromium(SOFTWARE_GPU) as started:
        yield started


@pytest.fixture
def open_gpu_tab(with_gpu: Browser, gateway: str) -> Iterator[OpenTab]:
    tabs: list[Tab] = []

    def make(**options: object) -> Tab:
        tabs.append(Tab(with_gpu, gateway, decode="here", **options))  # type: ignore[arg-type]
        tabs[-1].page.set_default_timeout(PATIENCE_MS)
        return tabs[-1]

    yield make
    for tab in tabs:
        tab.close()


@pytest.fixture
def gpu_page(with_gpu: Browser, gateway: str) -> Iterator[Page]:
    opened = with_gpu.new_page()
    opened.goto(f"{gateway}/assets/decoder/decoder.js")
    yield opened
    opened.close()


def until_ready(tab: Tab) -> None:
    tab.page.wait_for_function("() => app.local.isReady(app.editor.session?.image) || app.local.failure")


def hovered(tab: Tab, x: float, y: float) -> float:
    """The area of the mask of a hover."""
    tab.look_away()
    tab.move(x, y)
    tab.page.wait_for_function("() => app.editor.preview?.mask")
    return float(tab.page.evaluate("() => app.editor.preview.mask.area"))


def open_dialog(tab: Tab) -> None:
    tab.page.get_by_role("button", name="Kept images").click()


def close_dialog(tab: Tab) -> None:
    tab.page.locator("#kept-images").get_by_role("button", name="Close").click()


def choice_is_offered(tab: Tab) -> bool:
    """Whether the open dialog offers WebGPU, once it has looked."""
    return bool(
        tab.page.evaluate(
            """async () => {
                await (await import('/assets/decoder/gpu.js')).findGpu();
                await new Promise((resolve) => setTimeout(resolve, 100));
                return !document.querySelector('#decoder-backend-row').hidden;
            }"""
        )
    )


@pytest.mark.slow
def test_logits_are_those_of_the_server(gpu_page: Page, client: Client) -> None:
    client.embed(COFFEE, image_id="on-webgpu")
    assert gpu_page.evaluate(START, {"backend": "webgpu"}) is True  # it is software
    gpu_page.evaluate("() => decoder.open('on-webgpu')")
    steps = [{"add_point": {"x_px": 260, "y_px": 130}}, {"add_point": {"x_px": 300, "y_px": 330, "label": 0}}]
    prompts: list[dict[str, object]] = [{"points": [[50, 40]]}, {"steps": steps}]
    for prompt in prompts:
        difference = gpu_page.evaluate(DIFFERENCE, ["on-webgpu", prompt])
        print(f"WebGPU on SwiftShader: logits within {difference:.2g}")
        assert difference <= TOLERANCE


@pytest.mark.slow  # a minute of two cores, which are the card
def test_people_choose_it_and_a_lost_card_is_replaced_by_the_processor(
    with_gpu: Browser, open_gpu_tab: OpenTab
) -> None:
    tab = open_gpu_tab()
    fetched: list[str] = []
    tab.page.on("request", lambda request: fetched.append(request.url) if request.method == "GET" else None)
    tab.open_sample()
    until_ready(tab)
    by_processor = hovered(tab, *CLICK)
    expect(tab.page.locator("#timings")).not_to_contain_text("WebGPU")
    open_dialog(tab)
    assert choice_is_offered(tab)
    assert not [url for url in fetched if "jspi" in url]
    expect(tab.page.get_by_text("Here WebGPU is software")).to_be_visible()
    tab.page.get_by_label("What decodes").select_option("webgpu")
    close_dialog(tab)
    until_ready(tab)
    assert tab.page.evaluate("() => app.local.troubles") == ""
    assert [url for url in fetched if url.endswith("jspi.wasm")]
    assert hovered(tab, *CLICK) == pytest.approx(by_processor, abs=5)
    expect(tab.page.locator("#timings")).to_contain_text("here, WebGPU in software")
    with_gpu.new_browser_cdp_session().send("Browser.crashGpuProcess")
    tab.page.wait_for_function("() => app.local.refusal")
    until_ready(tab)
    assert hovered(tab, *CLICK) == by_processor
    expect(tab.page.locator("#timings")).to_contain_text("here, without WebGPU")
    open_dialog(tab)
    expect(tab.page.locator("#decoder-troubles")).to_contain_text("the graphics card was lost")
    expect(tab.page.get_by_label("What decodes")).to_have_value("webgpu")  # the next visit tries again


@pytest.mark.slow
def test_whole_numbers_of_klt_are_read(with_gpu: Browser) -> None:
    with (
        store_server(store_program()) as store,
        encoder_and_decoder(store, "--store-codec", "klt") as stack,
        running_gateway(stack) as (address, _),
        contextlib.closing(with_gpu.new_page()) as page,
        stack.client() as client,
    ):
        client.embed(COFFEE, image_id="in-klt")
        page.goto(f"{address}/assets/decoder/decoder.js")
        page.evaluate(START, {"backend": "webgpu"})
        page.evaluate("() => decoder.open('in-klt')")
        assert page.evaluate(DIFFERENCE, ["in-klt", {"points": [[50, 40]]}]) <= TOLERANCE


@pytest.mark.slow
def test_a_card_that_computes_otherwise_is_replaced_by_the_processor(open_gpu_tab: OpenTab) -> None:
    def in_half_precision(route: Route) -> None:
        """As a card would that keeps 16 bits of each value."""
        answer = route.fetch()
        written = "writeBuffer(buffer, 0, data)"
        assert answer.text().count(written) == 1
        rounded = "writeBuffer(buffer, 0, Float32Array.from(Float16Array.from(data)))"
        route.fulfill(response=answer, body=answer.text().replace(written, rounded))

    tab = open_gpu_tab(init_script=CHOSEN)
    tab.context.route("**/gpu.js", in_half_precision)
    tab.open_sample()
    tab.page.wait_for_function("() => app.local.refusal")
    until_ready(tab)
    refusal = tab.page.evaluate("() => app.local.refusal")
    print(refusal)
    worst = float(re.fullmatch(r"this browser's logits differ from the server's by (\S+)", refusal)[1])  # type: ignore[index]
    assert TOLERANCE < worst < 0.1
    assert hovered(tab, *CLICK) > 0
    expect(tab.page.locator("#timings")).to_contain_text("here, without WebGPU")
    assert tab.page.locator("#timings").get_attribute("title") == f"WebGPU does not decode: {refusal}."


def test_a_gateway_without_its_runtime_says_what_to_do(open_gpu_tab: OpenTab, gpu_page: Page) -> None:
    tab = open_gpu_tab()
    for context in (tab.context, gpu_page.context):
        context.route("**/ort.jspi.min.mjs", lambda route: route.fulfill(status=404))
    tab.open_sample()
    open_dialog(tab)
    assert not choice_is_offered(tab)
    close_dialog(tab)
    with pytest.raises(Error, match="this gateway has no ONNX Runtime for WebGPU: run scripts/browser-decoder"):
        gpu_page.evaluate(START, {"backend": "webgpu"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "webgl"}, 'backend is "wasm" or "webgpu", not webgl'),
        ({"weights": "toString"}, 'weights is "compact" or "half", not toString'),
        ({"device": "gpu"}, "device is no option; these are fetch, threads, weights and backend"),
    ],
)
def test_unknown_options_are_errors(gpu_page: Page, options: dict[str, str], message: str) -> None:
    with pytest.raises(Error, match=f"TypeError: {re.escape(message)}"):
        gpu_page.evaluate(START, options)


def test_graphs_are_changed_where_they_should(gpu_page: Page) -> None:
    import onnx
    from onnx import TensorProto, helper

    inputs = [
        helper.make_tensor_value_info("a", TensorProto.INT16, (2, "rows")),
        helper.make_tensor_value_info("b", TensorProto.FLOAT, (300,)),
    ]
    names = {"Cast": "a", "Sin": "b", "Cos": "b"}
    nodes = [helper.make_node(operator, [name], [f"{operator}_1"]) for operator, name in names.items()]
    graph = helper.make_graph(nodes, "g" * 200, inputs, [])  # lengths of one byte, and of two
    model = helper.make_model(graph)
    changed = gpu_page.evaluate(
        """async (bytes) => {
            const { nameNodes, widenInputs } = await import('/assets/decoder/onnx_edits.js');
            const { model, names } = nameNodes(Uint8Array.from(bytes), ['Sin', 'Cos']);
            return [names, [...widenInputs(model)]];
        }""",
        list(model.SerializeToString()),
    )
    assert changed[0] == ["Sin 0", "Cos 1"]
    read = onnx.load_model_from_string(bytes(changed[1]))
    assert [node.name for node in read.graph.node] == ["", *changed[0]]
    assert [value.type.tensor_type.elem_type for value in read.graph.input] == [TensorProto.FLOAT] * 2
    for node in read.graph.node:
        node.ClearField("name")
    read.graph.input[0].type.tensor_type.elem_type = TensorProto.INT16
    assert read == model
