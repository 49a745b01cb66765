"""Measures how long clicks in regions take: until the coarse mask and until the sharp one, in cold and in warm regions.

    python -m bench.region_clicks [--models demo,sam2.1_hiera_tiny] [--rounds 9] [--out bench/results/region_clicks.md]

A made JPEG of 12 megapixels with small discs. By the Python client, which cuts regions out of the picture and sends
them; over HTTP, where the encoder cuts them from the file that it keeps, which it has decoded already or not; and on
the page, which shows the coarse mask first. Times are from the call, or the click, to the mask: medians and
interquartile ranges. Published models get seeded random weights, and are not measured on the page.
"""

import argparse
import io
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import torch
from maskwire import Client
from maskwire_core.models.registry import DEMO, PUBLISHED
from PIL import Image
from playwright.sync_api import Browser

from bench.harness import machine
from testing.chromium import Tab, chromium
from testing.paths import ROOT
from testing.reference.predictor import build_random
from testing.servers import Up, up

WIDTH, HEIGHT, SIDE = 4000, 3000, 256
CLICK = (2050.0, 1550.0)
DISC_PX, APART_PX, DISCS = 16, 110, (5, 3)  # radius, distance, and how many side by side and above one another
ZOOMS = 4
LOG = """() => {
    window.took = {};
    app.editor.addEventListener('answer', ({detail}) => { if (!detail.isSharp) took.coarse = detail.tookMs; });
    const sharpen = app.editor.sharpen;
    app.editor.sharpen = async (...arguments_) => {
        const started = performance.now();
        const answer = await sharpen(...arguments_);
        took.sharp = took.coarse + performance.now() - started;
        return answer;
    };
}"""

Samples = dict[str, list[float]]


def picture() -> bytes:
    """A JPEG with a mottled ground and discs around its middle."""
    random = np.random.default_rng(3)
    pixels = random.integers(190, 211, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for x, y in discs():
        colour = random.integers(20, 120, 3)
        cv2.circle(pixels, (x, y), DISC_PX, tuple(int(each) for each in colour), -1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def discs() -> list[tuple[int, int]]:
    """Where the discs are."""
    across, above = DISCS
    return [
        (WIDTH // 2 + APART_PX * (column - across // 2), HEIGHT // 2 + APART_PX * (row - above // 2))
        for row in range(above)
        for column in range(across)
    ]


def commented(data: bytes, number: int) -> bytes:
    """The same picture as another file: with a comment."""
    comment = f"{number:08}".encode()
    return data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]


def places() -> Iterator[tuple[int, int, int, int]]:
    """Ever new regions around the click."""
    return ((left, 1400, left + SIDE, 1400 + SIDE) for left in itertools.count(1850))


def timed(samples: list[float], ask: Callable[[], Any]) -> Any:
    """Adds how long something takes, in milliseconds. Returns its result."""
    time.sleep(0.1)  # threads of the servers spin for a while after their work
    started = time.perf_counter()
    result = ask()
    samples.append((time.perf_counter() - started) * 1e3)
    return result


def of_client(client: Client, data: bytes, rounds: int) -> Samples:
    """Clicks by a client that has the picture."""
    image, new = client.embed(data), places()
    samples: Samples = {"plain": [], "cold": [], "warm": []}
    for _ in range(rounds + 1):
        timed(samples["plain"], lambda: client.segment(image, points=[CLICK]))
        place = next(new)
        timed(samples["cold"], lambda place=place: client.segment(image, points=[CLICK], region=place))  # type: ignore[misc]
        timed(samples["warm"], lambda place=place: client.segment(image, points=[CLICK], region=place))  # type: ignore[misc]
    return {name: each[1:] for name, each in samples.items()}


def of_http(http: httpx.Client, data: bytes, rounds: int) -> Samples:
    """Requests without the picture: "first" of an image whose file is not decoded, "next" of one whose is."""
    new = places()
    samples: Samples = {"plain": [], "first": [], "next": [], "warm": [], "pinned": []}

    def segment(image_id: str, **fields: Any) -> dict[str, Any]:
        answer = http.post(f"/v1/images/{image_id}/segment", json={"points": [CLICK], **fields})
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    for number in range(rounds + 1):
        name = f"picture-{number}"
        file, query = commented(data, number), {"image_id": name, "keep_source": "true"}
        http.post("/v1/images", content=file, params=query).raise_for_status()
        segment(name)  # the decoder has the embedding
        timed(samples["plain"], lambda name=name: segment(name))  # type: ignore[misc]
        for kind in ("first", "next"):
            place = next(new)
            timed(samples[kind], lambda name=name, place=place: segment(name, region=place))  # type: ignore[misc]
        found = timed(samples["warm"], lambda name=name, place=place: segment(name, region=place))  # type: ignore[misc]
        key = found["image"]["content_key"]
        timed(samples["pinned"], lambda name=name, key=key: segment(name, content_key=key))  # type: ignore[misc]
    return {name: each[1:] for name, each in samples.items()}


def of_page(browser: Browser, url: str, path: Path) -> Samples:
    """Clicks on discs, each in a region of its own, then once more; the page says how long its answers took."""
    tab = Tab(browser, url)
    tab.page.set_default_timeout(60_000)
    tab.open_file(path)
    tab.page.evaluate(LOG)
    for _ in range(ZOOMS):
        tab.zoom(*tab.screen(WIDTH / 2, HEIGHT / 2), 400)
    samples: Samples = {"coarse, cold": [], "sharp, cold": [], "coarse, warm": [], "sharp, warm": []}
    for state in ("cold", "warm"):
        for x, y in discs():
            tab.page.keyboard.press("n")
            tab.page.wait_for_timeout(300)
            tab.page.evaluate("() => { window.took = {} }")
            tab.click(x, y)
            tab.page.wait_for_function("() => took.sharp")
            took = tab.page.evaluate("() => took")
            for kind in ("coarse", "sharp"):
                samples[f"{kind}, {state}"].append(took[kind])
    tab.close()
    return samples


def options(name: str, folder: Path) -> list[str]:
    """The options of `maskwire up` for a model. Writes a checkpoint for published ones."""
    if name == DEMO:
        return []
    checkpoint = folder / f"{name}.pt"
    torch.save({"model": build_random(PUBLISHED[name].config, seed=5).state_dict()}, checkpoint)
    return ["--model", name, "--checkpoint", str(checkpoint)]


def measure(stack: Up, name: str, folder: Path, rounds: int) -> dict[str, Samples]:
    """All clicks of a model."""
    assert stack.gateway is not None
    data = picture()
    found: dict[str, Samples] = {}
    with stack.client() as client:
        found["client"] = of_client(client, data, rounds)
    with httpx.Client(base_url=stack.gateway, timeout=120) as http:
        found["http"] = of_http(http, data, rounds)
    if name == DEMO:
        path = folder / "discs.jpg"
        path.write_bytes(data)
        with chromium() as browser:
            found["page"] = of_page(browser, stack.gateway, path)
    return found


ROWS = (
    ("client", "cold", "plain", "Python, a new region: the sharp mask", "a warm click in the whole, the coarse one"),
    ("client", "warm", "plain", "Python, a region that is embedded", "a warm click in the whole"),
    ("http", "first", "plain", "HTTP, the first region of a kept file", "a warm click in the whole"),
    ("http", "next", "plain", "HTTP, a new region of a picture that is decoded", "a warm click in the whole"),
    ("http", "warm", "plain", "HTTP, `region` of a region that is embedded", "a warm click in the whole"),
    ("http", "pinned", "plain", "HTTP, `content_key` of such a region", "a warm click in the whole"),
    ("page", "sharp, cold", "coarse, cold", "page, a new region: the sharp mask", "the coarse one"),
    ("page", "sharp, warm", "coarse, warm", "page, a region that is embedded: the sharp mask", "the coarse one"),
)


def table(models: dict[str, dict[str, Samples]]) -> str:
    """The figures as a Markdown table: milliseconds, and interquartile ranges."""
    lines = ["| model | click | ms (spread) | against | ms (spread) | ratio |", "|---|---|---|---|---|---|"]
    for model, found in models.items():
        for where, one, other, what, against in ROWS:
            if where in found:
                ours, theirs = found[where][one], found[where][other]
                ratio = statistics.median(ours) / statistics.median(theirs)
                lines.append(f"| {model} | {what} | {_shown(ours)} | {against} | {_shown(theirs)} | {ratio:.2f} |")
    return "\n".join(lines)


def _shown(samples: list[float]) -> str:
    low, middle, high = statistics.quantiles(samples, n=4)
    return f"{middle:.0f} ({high - low:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=f"{DEMO},sam2.1_hiera_tiny", help="names, separated by commas")
    parser.add_argument("--rounds", type=int, default=9, help="how often each click is timed; on the page 15 times")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "region_clicks.md")
    arguments = parser.parse_args()
    os.environ["MASKWIRE_KEEP_SOURCES_S"] = "3600"  # for the encoder that `maskwire up` starts
    about = machine()
    command = f"python -m bench.region_clicks --models {arguments.models} --rounds {arguments.rounds}"
    versions = ", ".join(f"{package} {number}" for package, number in about["versions"].items())
    models: dict[str, dict[str, Samples]] = {}
    for name in arguments.models.split(","):
        with tempfile.TemporaryDirectory() as folder, up(*options(name, Path(folder)), gateway=True) as stack:
            models[name] = measure(stack, name, Path(folder), arguments.rounds)
        arguments.out.write_text(
            f"Generated by `{command}` on {about['date']}; do not edit. {about['cpu']}, {about['cores']} cores, which "
            f"client, servers and browser share; Python {about['python']}, {versions}. A JPEG of {WIDTH} x {HEIGHT} "
            f"px.\n\n{table(models)}\n"
        )
        document = {"command": command, **about, "models": models}
        arguments.out.with_suffix(".json").write_text(json.dumps(document) + "\n")
    print(table(models))


if __name__ == "__main__":
    main()
