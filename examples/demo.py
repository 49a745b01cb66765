"""Starts Maskwire, segments photographs in several ways, and writes them to out/ as one contact sheet, with timings.

scripts/demo                                the examples: a click, corrections, a box, and boxes (or everything)
scripts/demo photo.jpg --point 500,375      a photograph of yours: no prompt, the click, everything
scripts/demo --model sam2.1_hiera_tiny      with SAM 2.1's own weights, which are downloaded once (156 MB)
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskwire import Client
from maskwire.overlay import draw_all
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

CLEANED_PX = 64
"""Holes and islands of at most so many low-resolution pixels are cleaned away from the demo model's masks: it leaves
specks, which published models do not.
"""

_POINTS_PER_SIDE = 16  # clicks that "everything" makes along each side
_WIDTH, _HEIGHT, _CAPTION, _GAP = 600, 400, 34, 12  # pixels of the contact sheet's panels


Box = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max in pixels."""


@dataclass(frozen=True)
class Panel:
    """One picture of the contact sheet.

    Attributes:
        photo: The photograph.
        caption: What is asked for.
        points: Clicks, one after another: x, y in pixels, and whether it is inside the object.
        boxes: Boxes, each around an object.
        everything: Find all objects, without a prompt.
    """

    photo: Path
    caption: str
    points: tuple[tuple[float, float, bool], ...] = ()
    boxes: tuple[Box, ...] = ()
    everything: bool = False


SAMPLES: tuple[Panel, ...] = (
    Panel(EXAMPLES / "flower.jpg", "One click on a flower", points=((340, 220, True),)),
    Panel(EXAMPLES / "bison.jpg", "A box around the bison", boxes=((146, 76, 622, 436),)),
    Panel(
        EXAMPLES / "sheep.jpg",
        "A click on the sheep, and two where something was missing",
        points=((342, 220, True), (228, 165, True), (456, 413, True)),
    ),
    Panel(
        EXAMPLES / "bowl.jpg",
        "A click on the bowl, and one to leave out its shadow",
        points=((591, 169, True), (251, 98, False)),
    ),
    Panel(
        EXAMPLES / "tower.jpg",
        "A click on the tower, and three where something was missing",
        points=((215, 230, True), (210, 120, True), (215, 330, True), (300, 260, True)),
    ),
)
EVERYTHING = Panel(EXAMPLES / "coins.jpg", "Everything", everything=True)

_COINS = (
    ((45, 54, 22), (100, 56, 20), (155, 51, 23), (215, 47, 24), (276, 52, 21), (334, 44, 31)),
    ((44, 124, 21), (102, 125, 18), (153, 127, 19), (205, 124, 20), (271, 119, 26), (337, 124, 19)),
    ((44, 197, 19), (101, 195, 21), (154, 197, 20), (212, 193, 23), (273, 194, 23), (346, 187, 32)),
    ((46, 262, 28), (113, 265, 22), (172, 262, 28), (244, 263, 24), (300, 263, 25), (357, 267, 22)),
)
"""Rows of coins: x and y of the middle, and radius."""

IN_BOXES = Panel(
    EXAMPLES / "coins.jpg",
    "24 boxes in one request",
    boxes=tuple((float(x - r), float(y - r), float(x + r), float(y + r)) for row in _COINS for x, y, r in row),
)
"""In place of EVERYTHING with the demo model, which finds few of the coins by itself."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", type=Path, help="photograph to segment instead of the examples")
    parser.add_argument("--point", metavar="X,Y", help="where to click it")
    parser.add_argument("--model", default="demo", help="model that makes the masks, as of 'maskwire up'")
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="folder for the contact sheet and the timings")
    arguments = parser.parse_args()
    point = _point(arguments.point) if arguments.point else None
    if point and not arguments.image:
        sys.exit(f"error: --point belongs to a photograph: demo.py photo.jpg --point {arguments.point}")
    if arguments.image and not arguments.image.is_file():
        sys.exit(f"error: no such file: {arguments.image}")
    samples = (*SAMPLES, IN_BOXES if arguments.model == "demo" else EVERYTHING)
    panels = panels_of(arguments.image, point) if arguments.image else samples
    arguments.out.mkdir(parents=True, exist_ok=True)

    print(f"== starting a store, an encoder with the model {arguments.model} and a decoder", flush=True)
    command = [sys.executable, "-m", "maskwire.cli", "up", "--json", "--encoder-port", "0", "--decoder-port", "0"]
    command += ["--model", arguments.model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as servers:
        try:
            assert servers.stdout is not None
            ready = servers.stdout.readline()
            if not ready:
                sys.exit("error: the servers did not start; their messages are above")
            addresses = json.loads(ready)
            with Client(addresses["encoder"], addresses["decoder"]) as client:
                pictures, report = segment(client, panels)
        finally:
            print("== stopping", flush=True)
            servers.terminate()
    captions = [panel.caption for panel in panels]
    path = arguments.out / "demo.png"
    sheet(pictures, captions, _footer(report[0]["model"])).save(path)
    (arguments.out / "timings.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"done: look at {path}")
    if arguments.model == "demo":
        print("The demo model is small and rough. For SAM 2.1's own masks: scripts/demo --model sam2.1_hiera_tiny")


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        sys.exit(f"error: --point {text!r} is not X,Y in pixels, such as 500,375")
    return x, y


def panels_of(photo: Path, point: tuple[float, float] | None) -> tuple[Panel, ...]:
    """What is asked about a photograph of the user's."""
    clicked = (Panel(photo, "One click", points=((*point, True),)),) if point else ()
    nothing = Panel(photo, "No prompt: the most prominent object")
    return (nothing, *clicked, Panel(photo, "Everything", everything=True))


def segment(client: Client, panels: Sequence[Panel]) -> tuple[list[Image.Image], list[dict[str, Any]]]:
    """Each panel's photograph with its masks drawn over it, and what is told about it in timings.json."""
    pictures, report = [], []
    for panel in panels:
        embedded = client.embed(panel.photo)
        encoded = "known already" if embedded.cached else f"encoded in {embedded.timings['encode_ms']:.0f} ms"
        print(f"== {panel.photo.name}: {embedded.width}x{embedded.height} px, {encoded}", flush=True)
        client.prefetch(embedded)  # else the first click fetches embedding and decoder
        cleaned = CLEANED_PX if embedded.model == "demo" else 0
        started = time.perf_counter()
        if panel.everything:
            masks = client.everything(embedded, points_per_side=_POINTS_PER_SIDE, min_mask_region_area=cleaned)
            told = f"{len(masks)} masks"
            picture = draw_all(Image.open(panel.photo).convert("RGB"), [mask.array for mask in masks])
        elif len(panel.boxes) > 1:
            # A box says which object is meant: its single mask, not the best of three candidates.
            results = client.segment_objects(
                embedded, boxes=panel.boxes, multimask=False, max_hole_area=cleaned, max_sprinkle_area=cleaned
            )
            told = f"{len(results)} masks"
            picture = draw_all(Image.open(panel.photo).convert("RGB"), [result.mask for result in results])
        else:
            with client.session(embedded, max_hole_area=cleaned, max_sprinkle_area=cleaned) as session:
                result = session.box(*panel.boxes[0]) if panel.boxes else None
                for x, y, positive in panel.points:
                    result = session.click(x, y, positive=positive)
            result = result or client.segment(embedded, max_hole_area=cleaned, max_sprinkle_area=cleaned)
            told = f"score {result.score:.2f}"
            picture = result.overlay(panel.photo)
        total_ms = (time.perf_counter() - started) * 1e3
        print(f"   {panel.caption}: {told}, {total_ms:.0f} ms", flush=True)
        pictures.append(picture)
        asked = {"image": panel.photo.name, "caption": panel.caption, "points": panel.points, "boxes": panel.boxes}
        report.append({**asked, "model": embedded.model, "embed": embedded.timings, "total_ms": round(total_ms, 3)})
    return pictures, report


def sheet(pictures: Sequence[Image.Image], captions: Sequence[str], footer: str) -> Image.Image:
    """Pictures in two columns, each as large as its panel allows, with captions below, and a line at the foot."""
    rows = -(-len(pictures) // 2)
    width, row = 2 * _WIDTH + 3 * _GAP, _HEIGHT + _CAPTION + _GAP
    whole = Image.new("RGB", (width, _GAP + rows * row + _CAPTION), "white")
    pen = ImageDraw.Draw(whole)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = _GAP + number % 2 * (_WIDTH + _GAP), _GAP + number // 2 * row
        scale = min(_WIDTH / picture.width, _HEIGHT / picture.height)
        fitted = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
        whole.paste(fitted, (x + (_WIDTH - fitted.width) // 2, y + _HEIGHT - fitted.height))
        middle = (x + _WIDTH // 2, y + _HEIGHT + _CAPTION // 2)
        pen.text(middle, caption, "black", ImageFont.load_default(20), anchor="mm")
    pen.text((_GAP, whole.height - _CAPTION // 2), footer, "dimgray", ImageFont.load_default(15), anchor="lm")
    return whole


def _footer(model: str) -> str:
    if model != "demo":
        return f"Model {model}."
    return (
        "The demo model: small and rough, to try things without a network. Holes and islands of up to "
        f"{CLEANED_PX} low-resolution pixels are cleaned away."
    )


if __name__ == "__main__":
    main()
