"""Measures whether a region's neighbours are what is asked for next: whether to embed them ahead would pay.

    python -m bench.neighbours FOLDER... [--scale 8]

A FOLDER has annotations.json, as training/README.md describes it. The objects of each picture, as if it were `--scale`
times as large, are boxed one after another, each time the one nearest to the last; a box asks for its region as
region="auto" does. Printed are how often that region is embedded already, how often a new one is among those that some
rule would have embedded ahead, and how many regions that rule embeds for each that it saves.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from maskwire.regions import Place, choose_region
from numpy.typing import NDArray
from pycocotools import mask as coco

from training.demo.pack import rle

SHIFTS = {"a side": 1.0, "half a side": 0.5, "a quarter": 0.25, "an eighth": 0.125}
"""How far a neighbour lies, in sides of the region."""
COUNTS = (4, 8)
Box = NDArray[np.float64]


def pictures(folder: Path, scale: float) -> Iterator[tuple[int, int, list[Box]]]:
    """Yields width, height and the boxes of the objects of each picture, x_min, y_min, x_max, y_max."""
    document = json.loads((folder / "annotations.json").read_text())
    boxes: dict[Any, list[Box]] = {}
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    for annotation in document["annotations"]:
        width, height = sizes[annotation["image_id"]]
        encoded = rle(annotation["segmentation"], height, width)
        counts: Any = {**encoded, "counts": encoded["counts"].encode()}
        x, y, wide, high = coco.toBbox(counts)
        boxes.setdefault(annotation["image_id"], []).append(np.array([x, y, x + wide, y + high]) * scale)
    for image, found in boxes.items():
        width, height = sizes[image]
        yield round(width * scale), round(height * scale), _in_order(found)


def _in_order(boxes: Sequence[Box]) -> list[Box]:
    """The boxes, each time the one whose middle is nearest to the last one's."""
    left, order = list(boxes[1:]), [boxes[0]]
    while left:
        middle = order[-1][:2] + order[-1][2:]
        order.append(left.pop(int(np.argmin([np.abs(box[:2] + box[2:] - middle).max() for box in left]))))
    return order


def neighbours(place: Place, size: tuple[int, int], shift: float, count: int) -> set[Place]:
    """The regions beside one of an image of a size (width, height), moved into it; 4 of them, or 8."""
    side = place[2] - place[0]
    steps = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x or y) and (count == 8 or not (x and y))]
    found = set()
    for step in steps:
        left, top = (
            max(0, min(round(start + each * shift * side), length - side))
            for start, each, length in zip(place, step, size, strict=False)
        )
        found.add((left, top, min(left + side, size[0]), min(top + side, size[1])))
    return found - {place}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--scale", type=float, default=8)
    arguments = parser.parse_args()
    rules = [(name, count) for name in SHIFTS for count in COUNTS]
    for folder in arguments.folders:
        asked = again = 0
        saved, made = dict.fromkeys(rules, 0), dict.fromkeys(rules, 0)
        for width, height, boxes in pictures(folder, arguments.scale):
            embedded: set[Place] = set()
            ahead: dict[tuple[str, int], set[Place]] = {rule: set() for rule in rules}
            for box in boxes:
                place = choose_region(width, height, box)
                if place is None:
                    continue
                asked += 1
                if place in embedded:
                    again += 1
                    continue
                embedded.add(place)
                for rule in rules:
                    saved[rule] += place in ahead[rule]
                    new = neighbours(place, (width, height), SHIFTS[rule[0]], rule[1]) - embedded - ahead[rule]
                    made[rule] += len(new)
                    ahead[rule] |= new
        print(f"{folder.name}: {asked} boxes with a region, {again / asked:.1%} of which was embedded already")
        for rule in rules:
            share, cost = saved[rule] / (asked - again), made[rule] / max(1, saved[rule])
            print(f"  {rule[1]} neighbours {rule[0]} away: {share:.1%} of the others, {cost:.0f} for each of them")


if __name__ == "__main__":
    main()
