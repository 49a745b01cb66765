"""Measures what region="auto" does for small objects on large pictures.

    python -m bench.regions [--data demo-data.zip] [--objects 200] [--out bench/results/regions.md]

Cut-outs of photographs that the demo model was not trained on, 10 to 40 px long, pasted on pictures of 12 megapixels
that are made of such photographs side by side. Each is asked for by a click on its centre and by its box, in the whole
picture and with region="auto". Without --data the pictures are those of the small sample that is in the repository;
training.demo.pack makes a larger file.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from maskwire import Client
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from bench.harness import machine
from testing.paths import ROOT
from testing.servers import up
from training.demo.pack import Pack

SAMPLE = ROOT / "training" / "demo" / "sample.zip"
WIDTH, HEIGHT = 4000, 3000
PER_PICTURE = 20
SHORTEST, LONGEST = 10, 40
SIZES = ((10, 19), (20, 40), (10, 40))
PROMPTS = ("click", "box")
WAYS: tuple[Literal["auto"] | None, ...] = (None, "auto")


@dataclass
class Cutout:
    """An object: its pixels (HxWx3, uint8) and its mask (HxW bool), within its bounding box."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]


@dataclass
class Placed:
    """An object on a picture: its mask, and where that lies."""

    mask: NDArray[np.bool_]
    x: int
    y: int

    @property
    def side(self) -> int:
        """Its longer side in pixels."""
        return max(self.mask.shape)

    @property
    def box(self) -> tuple[int, int, int, int]:
        height, width = self.mask.shape
        return self.x, self.y, self.x + width, self.y + height

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the pixel that is farthest from its border."""
        distance = cv2.distanceTransform(np.pad(self.mask, 1).astype(np.uint8), cv2.DIST_L2, 5)
        row, column = np.unravel_index(int(distance.argmax()), distance.shape)
        return self.x + column - 0.5, self.y + row - 0.5

    def iou(self, found: NDArray[np.bool_]) -> float:
        """IoU with a mask of the whole picture."""
        x_min, y_min, x_max, y_max = self.box
        both = np.count_nonzero(found[y_min:y_max, x_min:x_max] & self.mask)
        return both / (np.count_nonzero(found) + np.count_nonzero(self.mask) - both)


def cutouts(pack: Pack) -> list[Cutout]:
    """Whole, compact objects of photographs, at least twice as long as they are pasted."""
    found = []
    for photo in (photo for photos in pack.photos.values() for photo in photos):
        for index in range(len(photo.masks)):
            mask = photo.mask(index)
            x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
            inside = x > 1 and y > 1 and x + width < mask.shape[1] - 1 and y + height < mask.shape[0] - 1
            if not inside or max(width, height) < 2 * LONGEST or mask.sum() < 0.4 * width * height:
                continue
            part = np.s_[y : y + height, x : x + width]
            found.append(Cutout(photo.pixels[part], mask[part]))
    return found


def compose(
    random: np.random.Generator, photos: list[NDArray[np.uint8]], objects: list[Cutout]
) -> tuple[NDArray[np.uint8], list[Placed]]:
    """Makes a picture, and returns it with what is on it."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for y in range(0, HEIGHT, 400):
        for x in range(0, WIDTH, 400):
            photo = photos[random.integers(len(photos))]
            if min(photo.shape[:2]) < 400:
                photo = np.asarray(cv2.resize(photo, None, fx=2, fy=2), np.uint8)
            top, left = (int(random.integers(side - 399)) for side in photo.shape[:2])
            part = picture[y : y + 400, x : x + 400]
            part[:] = photo[top : top + part.shape[0], left : left + part.shape[1]]
    placed: list[Placed] = []
    while (number := len(placed)) < PER_PICTURE:
        chosen = objects[random.integers(len(objects))]
        longest = np.exp(random.uniform(np.log(SHORTEST), np.log(LONGEST)))
        scale = longest / max(chosen.mask.shape)
        size = [max(1, round(side * scale)) for side in chosen.mask.shape[::-1]]
        alpha = cv2.resize(chosen.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)[..., None]
        mask = alpha[..., 0] > 0.5
        if not mask.any():  # too thin at this size
            continue
        pixels = cv2.resize(chosen.pixels, size, interpolation=cv2.INTER_AREA)
        # Each in a cell of its own, so that none hides another.
        column, row = number % 5, number // 5
        x = int((column + random.uniform(0.1, 0.8)) * WIDTH / 5)
        y = int((row + random.uniform(0.1, 0.8)) * HEIGHT / 4)
        part = picture[y : y + size[1], x : x + size[0]]
        part[:] = np.rint(pixels * alpha + part * (1 - alpha))
        left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
        placed.append(Placed(mask[top : top + height, left : left + width], x + left, y + top))
    return picture, placed


def ask(client: Client, picture: NDArray[np.uint8], objects: list[Placed]) -> list[dict[str, Any]]:
    """Asks for each object in all ways, and returns its size and what was reached."""
    image = client.embed(picture)
    reached = []
    for each in objects:
        row: dict[str, Any] = {"side": each.side}
        for prompt in PROMPTS:
            given: Any = {"points": [each.centre]} if prompt == "click" else {"box": each.box}
            for region in WAYS:
                result = client.segment(image, **given, region=region)
                row[f"{prompt}, {region or 'whole'}"] = round(each.iou(result.mask), 4)
        reached.append(row)
    client.delete(image, embedding=True)
    return reached


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean IoU, and how many have an IoU of at least 0.8."""
    lines = ["| longer side | objects | prompt | whole picture | region=auto |", "|---|---|---|---|---|"]
    for low, high in SIZES:
        chosen = [row for row in rows if low <= row["side"] <= high]
        for prompt in PROMPTS:
            cells = []
            for region in ("whole", "auto"):
                ious = np.array([row[f"{prompt}, {region}"] for row in chosen])
                cells.append(f"{ious.mean():.3f} ({(ious >= 0.8).mean():.0%} at 0.8)")
            lines.append(f"| {low} to {high} px | {len(chosen)} | {prompt} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SAMPLE)
    parser.add_argument("--objects", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "regions.md")
    arguments = parser.parse_args()
    pack = Pack.load(arguments.data, held_out=True)
    found = cutouts(pack)
    photos = [*pack.backgrounds, *(photo.pixels for some in pack.photos.values() for photo in some)]
    random = np.random.default_rng(24)
    rows: list[dict[str, Any]] = []
    with up() as stack, stack.client() as client:
        for _ in track(range(-(-arguments.objects // PER_PICTURE)), "pictures", console=Console(stderr=True)):
            rows += ask(client, *compose(random, photos, found))
    about = machine()
    option = "" if arguments.data == SAMPLE else f" --data {arguments.data.name}"
    arguments.out.write_text(
        f"Generated by `python -m bench.regions{option}` on {about['date']}; do not edit. The demo model; mean IoU "
        f"with the pasted object, and how many reach 0.8. {len(rows)} objects from {len(found)} cut-outs of "
        f"photographs that it was not trained on, on pictures of {WIDTH}x{HEIGHT} px made of {len(photos)} "
        f"photographs.\n\n{table(rows)}\n"
    )
    lines = ",\n".join(f" {json.dumps(row)}" for row in rows)
    arguments.out.with_suffix(".json").write_text(f"[\n{lines}\n]\n")
    Console().print(table(rows), highlight=False)


if __name__ == "__main__":
    main()
