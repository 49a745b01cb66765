"""Prompts that are decoded in the browser, against those of the decoder server."""

import base64
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from maskwire import Client
from maskwire.bilinear import enlarge
from maskwire.v1 import decoder_pb2, types_pb2
from numpy.typing import NDArray
from playwright.sync_api import Browser, Error, Page, Route

from testing.chromium import decoded
from testing.paths import COFFEE
from testing.servers import Stack

pytestmark = pytest.mark.usefixtures("browser_runtime")

WIDTH, HEIGHT = 600, 400
PROMPTS = int(os.environ.get("MASKWIRE_TEST_PROMPTS", "30"))
TOLERANCE, TOLERANCE_OF_HALF = 1e-3, 0.1
"""Of logits, between those of the browser and the server's, both fp32; and where the browser's weights were rounded."""

START = """async ([imageId, threads, weights]) => {
    const { Decoder } = await import('/assets/decoder/decoder.js');
    const ask = async (path, options) => {
        const response = await fetch('/v1/' + path, options);
        if (!response.ok) throw new Error(await response.text());
        return response;
    };
    window.decoder = await Decoder.start({ fetch: ask, threads, weights });
    const opened = await decoder.open(imageId);
    return { ...opened, threads: decoder.threads, isolated: crossOriginIsolated };
}"""
ANSWER = """async ([call, what, options]) => {
    const { masks, object_score } = await decoder[call](what, { ...options, withLogits: true });
    const base64 = (values) => {
        const bytes = new Uint8Array(values.buffer);
        let text = '';
        for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
        return btoa(text);
    };
    return { object_score, masks: masks.map(({ score, rle, logits }) => ({ score, rle, logits: base64(logits) })) };
}"""


def without_isolation(route: Route) -> None:
    """Takes the headers away that isolate a page."""
    response = route.fetch()
    headers = {name: value for name, value in response.headers.items() if not name.startswith("cross-origin")}
    route.fulfill(response=response, headers=headers)


@pytest.fixture
def page(browser: Browser, gateway: str) -> Iterator[Page]:
    opened = browser.new_page()
    opened.goto(f"{gateway}/assets/decoder/decoder.js")  # any address of the gateway will do
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def unisolated(browser: Browser, gateway: str, stack: Stack) -> Iterator[tuple[Page, dict[str, Any]]]:
    """A page that may not use several threads, though asked to, and what it says of the image that it has opened. Two
    tests share it, because to start a decoder takes seconds of a processor."""
    with stack.client() as client:
        client.embed(COFFEE, image_id="decoded")
    page = browser.new_page()
    page.route("**/decoder.js", without_isolation)
    page.goto(f"{gateway}/assets/decoder/decoder.js")
    yield page, page.evaluate(START, ["decoded", 2, "compact"])
    page.close()


def values(text: str, side: int) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(side, side)


def random_prompt(random: np.random.Generator, masks: list[NDArray[np.float32]]) -> dict[str, Any]:
    """Makes a prompt of points, a box, a mask that an earlier one gave, or several of these; or an empty one."""
    count = int(random.choice([0, 1, 1, 1, 2, 3, 5, 9, 12]))
    prompt: dict[str, Any] = {
        "points": np.round(random.uniform(0, (WIDTH, HEIGHT), (count, 2)), 2).tolist(),
        "labels": random.integers(0, 2, count).tolist(),
        "multimask": bool(random.integers(2)),
    }
    if random.random() < 0.3:
        x, y = np.sort(random.uniform(0, WIDTH, 2)), np.sort(random.uniform(0, HEIGHT, 2))
        prompt["box"] = [float(value) for value in (x[0], y[0], x[1], y[1])]
    if masks and random.random() < 0.3:
        prompt["mask"] = masks[int(random.integers(len(masks)))]
    return prompt


def request_of(prompt: dict[str, Any], every: bool) -> decoder_pb2.SegmentRequest:
    """The same prompt for the server."""
    sent = types_pb2.Prompt(
        points=[
            types_pb2.Point(x_px=x, y_px=y, label=label)
            for (x, y), label in zip(prompt["points"], prompt["labels"], strict=True)
        ]
    )
    if "box" in prompt:
        x_min, y_min, x_max, y_max = prompt["box"]
        sent.box.CopyFrom(types_pb2.Box(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max))
    if "mask" in prompt:
        mask = prompt["mask"]
        sent.mask.CopyFrom(
            types_pb2.Logits(height=128, width=128, data_type=types_pb2.DATA_TYPE_FP32, data=mask.tobytes())
        )
    output = types_pb2.OutputOptions(
        formats=[types_pb2.MASK_FORMAT_RLE, types_pb2.MASK_FORMAT_LOGITS],
        candidates=types_pb2.CANDIDATES_ALL if every else types_pb2.CANDIDATES_BEST,
        multimask=prompt["multimask"],
        logits_type=types_pb2.DATA_TYPE_FP32,
        unclamped_logits=True,
    )
    return decoder_pb2.SegmentRequest(image_id="decoded", prompts=[sent], output=output)


def compare(mine: dict[str, Any], theirs: types_pb2.PromptResult, tolerance: float = TOLERANCE) -> tuple[float, int]:
    """Compares an answer of the browser with the server's. Returns the largest difference of logits, and how many
    pixels are on another side."""
    assert len(mine["masks"]) == len(theirs.masks)
    assert mine["object_score"] == pytest.approx(theirs.object_score, abs=tolerance)
    worst, others = 0.0, 0
    for one, other in zip(mine["masks"], theirs.masks, strict=True):
        logits, expected = values(one["logits"], 128), np.frombuffer(other.logits.data, "<f4").reshape(128, 128)
        assert one["score"] == pytest.approx(other.score, abs=tolerance)
        worst = max(worst, float(np.abs(logits - expected).max()))
        mask, server = (decoded(HEIGHT, WIDTH, counts) for counts in (one["rle"]["counts"], other.rle.counts))
        apart = mask != server
        # Where masks differ, logits are so close to 0 that rounding decides.
        assert (np.abs(enlarge(expected, WIDTH, HEIGHT)[apart]) <= tolerance).all()
        others += int(apart.sum())
        # The run lengths are exactly those of the browser's own logits.
        np.testing.assert_array_equal(mask, enlarge(logits, WIDTH, HEIGHT) > 0)
    return worst, others


@pytest.mark.parametrize(("threads", "weights", "share"), [(1, "half", 0.3), (2, "compact", 0.5)])
def test_random_prompts(page: Page, client: Client, decoder: Any, threads: int, weights: str, share: float) -> None:
    client.embed(COFFEE, image_id="decoded")
    opened = page.evaluate(START, ["decoded", threads, weights])
    assert (opened["isolated"], opened["threads"]) == (True, threads)
    compare_random(page, opened, decoder, share, TOLERANCE_OF_HALF if weights == "half" else TOLERANCE)


def test_random_prompts_without_isolation(unisolated: tuple[Page, dict[str, Any]], decoder: Any) -> None:
    page, opened = unisolated
    assert (opened["isolated"], opened["threads"]) == (False, 1)
    compare_random(page, opened, decoder, 0.2, TOLERANCE)


def compare_random(page: Page, opened: dict[str, Any], decoder: Any, share: float, tolerance: float) -> None:
    """Decodes random prompts in a page and on the server."""
    count = round(PROMPTS * share)
    assert (opened["width"], opened["height"]) == (WIDTH, HEIGHT)
    random, masks = np.random.default_rng(count), list[NDArray[np.float32]]()
    worst, others, pixels = 0.0, 0, 0
    for _ in range(count):
        prompt, every = random_prompt(random, masks), bool(random.integers(2))
        sent = {**prompt, "mask": base64.b64encode(prompt["mask"]).decode()} if "mask" in prompt else prompt
        page.evaluate(
            """(prompt) => {
                const bytes = prompt.mask && Uint8Array.from(atob(prompt.mask), (letter) => letter.charCodeAt(0));
                window.prompt_ = { ...prompt, mask: bytes ? new Float32Array(bytes.buffer) : null };
            }""",
            sent,
        )
        mine = page.evaluate(f"async (options) => ({ANSWER})(['segment', prompt_, options])", {"every": every})
        (theirs,) = decoder.Segment(request_of(prompt, every)).results
        found = compare(mine, theirs, tolerance)
        worst, others, pixels = max(worst, found[0]), others + found[1], pixels + len(theirs.masks) * WIDTH * HEIGHT
        masks.append(values(mine["masks"][0]["logits"], 128).clip(-32, 32))
    print(
        f"{opened['threads']} threads, {count} prompts: logits within {worst:.2g}, {others} of {pixels} pixels differ"
    )
    assert worst <= tolerance


STEPS: list[list[dict[str, Any]]] = [
    [{"add_point": {"x_px": 260, "y_px": 130}}],
    [
        {"add_point": {"x_px": 260, "y_px": 130}},
        {"add_point": {"x_px": 300, "y_px": 330, "label": 0}},
        {"add_point": {"x_px": 420, "y_px": 200}, "multimask": True},
        {"remove_point": 1},
    ],
    [
        {"set_box": {"x_min_px": 180, "y_min_px": 60, "x_max_px": 400, "y_max_px": 300}},
        {"add_point": {"x_px": 300, "y_px": 200}},
        {"set_box": {"x_min_px": 100, "y_min_px": 60, "x_max_px": 420, "y_max_px": 330}},
        {"clear": {}},
        {"add_point": {"x_px": 50, "y_px": 40}, "multimask": False},
        {"add_point": {"x_px": 60, "y_px": 45}, "refine": False},
    ],
]


def test_objects_are_decoded_from_their_steps(unisolated: tuple[Page, dict[str, Any]], decoder: Any) -> None:
    page, _ = unisolated
    for steps in STEPS:
        for count in range(1, len(steps) + 1):
            if "clear" in steps[count - 1]:
                continue
            mine = page.evaluate(ANSWER, ["segmentSteps", steps[:count], {"keep": count % 2 == 0}])
            request = request_of({"points": [], "labels": [], "multimask": True}, False)
            del request.prompts[:]
            request.output.ClearField("multimask")
            request.prompts.append(json_format.ParseDict({"steps": steps[:count]}, types_pb2.Prompt()))
            (theirs,) = decoder.Segment(request).results
            assert compare(mine, theirs)[0] <= TOLERANCE


def test_a_browser_that_differs_from_the_server_does_not_decode(page: Page, client: Client) -> None:
    client.embed(COFFEE, image_id="decoded")

    def other_answer(route: Route) -> None:
        answer = route.fetch()
        # Its first three logits are 4.
        route.fulfill(
            response=answer, body=re.sub(r'("data": ").{16}', r"\g<1>AACAQAAAgEAAAIBA", answer.text(), count=1)
        )

    page.route("**/segment", other_answer)
    with pytest.raises(Error, match="this browser's logits differ from the server's"):
        page.evaluate(START, ["decoded", 1, "compact"])
