"""What a first visit and the next picture download, and what weights in half precision cost."""

from dataclasses import dataclass

from maskwire import Client
from playwright.sync_api import Browser, Page

from bench.browser.hovering import places
from bench.browser.line import Line
from testing.paths import COFFEE, ROOT

CLICKS = 20
START = """async ([imageId, weights, backend]) => {
    const { Decoder } = await import('/assets/decoder/decoder.js');
    const ask = async (path, options) => {
        const response = await fetch('/v1/' + path, options);
        if (!response.ok) throw new Error(await response.text());
        return response;
    };
    window.decoder = await Decoder.start({ fetch: ask, weights, backend });
    await decoder.open(imageId);
}"""
ERROR = """async ([imageId, places]) => {
    let [worst, flips, values] = [0, 0, 0];
    for (const place of places) {
        const output = { formats: ['logits'], candidates: 'all', logits_type: 'fp32', unclamped_logits: true };
        const body = JSON.stringify({ points: [place], output });
        const headers = { 'Content-Type': 'application/json' };
        const answer = await fetch(`/v1/images/${imageId}/segment`, { method: 'POST', body, headers });
        const { results } = await answer.json();
        const { masks } = await decoder.segment({ points: [place], labels: [1] }, { every: true, withLogits: true });
        masks.forEach(({ logits }, index) => {
            const bytes = Uint8Array.from(atob(results[0].masks[index].logits.data), (letter) => letter.charCodeAt(0));
            new Float32Array(bytes.buffer).forEach((other, at) => {
                worst = Math.max(worst, Math.abs(other - logits[at]));
                flips += other > 0 !== logits[at] > 0;
                values++;
            });
        });
    }
    return [worst, flips / values];
}"""


@dataclass(frozen=True)
class Visit:
    """What a browser downloaded that had nothing yet, with one form of weights.

    Attributes:
        weights: The form: "compact" or "half".
        first_bytes: Of the first picture: modules, graphs, weights, embedding, and the answer that is compared.
        next_bytes: Of the next picture: its embedding.
        worst_logit: The largest difference of a logit from the server's.
        flipped: Share of logits on another side of 0.
    """

    weights: str
    first_bytes: int
    next_bytes: int
    worst_logit: float
    flipped: float


def visit(
    browser: Browser, client: Client, gateway: int, weights: str, backend: str = "wasm", clicks: int = CLICKS
) -> Visit:
    """Opens two pictures in a new browser context.

    Args:
        browser: The browser.
        client: Embeds the pictures.
        gateway: The gateway's port.
        weights: "compact" or "half".
        backend: "wasm" or "webgpu".
        clicks: How many are compared with the server's.
    """
    client.embed(COFFEE, image_id="first")
    client.embed(ROOT / "examples" / "rocket.jpg", image_id="next")
    line = Line(gateway, 0)
    with line.running() as url:
        page: Page = browser.new_page()
        page.goto(f"{url}assets/decoder/decoder.js")
        page.evaluate(START, ["first", weights, backend])
        first = line.nbytes
        worst, flipped = page.evaluate(ERROR, ["first", places(clicks, 2)])
        before = line.nbytes
        page.evaluate("() => decoder.open('next')")
        following = line.nbytes - before
        page.close()
    return Visit(weights, first, following, worst, flipped)
