"""Makes a large picture of known objects: a tiled TIFF, written a row of tiles at a time, the same each time.

Ellipses of plain colours on a ground whose brightness changes slowly, with noise. The demo model segments each of them
whole where it sees it at a fair size, so that what is missed is missed by the way of looking, not by the model.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from maskwire_core.masks.geometry import ImageSize, Rectangle
from maskwire_core.masks.rle import placed
from numpy.typing import NDArray
from pycocotools import mask as coco

TILE = 512
SHORTEST, LONGEST = 15, 3000
_COLOURS = ((50, 60, 120), (120, 50, 40), (30, 100, 60), (90, 40, 100))
_FEW_LARGE = 0.02  # share of objects in the upper two thirds of lengths: their outlines take most clicks


@dataclass(frozen=True)
class Ellipse:
    """An object.

    Attributes:
        x: Of its middle, in pixels.
        y: Likewise.
        length: Of its longer axis, in pixels.
        breadth: Of the other.
        angle: Of the longer axis, in degrees.
        colour: Index of its colour.
    """

    x: int
    y: int
    length: int
    breadth: int
    angle: int
    colour: int

    @property
    def mask(self) -> NDArray[np.uint8]:
        """Its pixels, in the square of `length + 3` around its middle."""
        side = self.length + 3
        mask = np.zeros((side, side), np.uint8)
        self.draw(mask, side // 2 - self.x, side // 2 - self.y, 1)
        return mask

    def draw(self, onto: NDArray[np.uint8], dx: int, dy: int, value: Any) -> None:
        """Draws it on a part of the picture."""
        axes = (self.length / 2, self.breadth / 2)
        bits = 4  # of fractions of pixels
        middle = tuple(round(each * (1 << bits)) for each in (self.x + dx, self.y + dy))
        half = tuple(round(each * (1 << bits)) for each in axes)
        points = cv2.ellipse2Poly((0, 0), half, self.angle, 0, 360, 1) + np.array(middle)
        cv2.fillPoly(onto, [points.astype(np.int32)], value, shift=bits)

    def rle(self, side: int) -> Any:
        """COCO run lengths in a picture of `side` pixels."""
        mask = self.mask
        corner = [each - mask.shape[0] // 2 for each in (self.x, self.y)]
        runs: Any = coco.encode(np.asfortranarray(mask))
        return placed(runs, ImageSize(side, side, Rectangle(*corner, *mask.shape[::-1])))


def objects(side: int, count: int, seed: int) -> list[Ellipse]:
    """Places objects of all sizes where they do not touch, the largest first."""
    random = np.random.default_rng(seed)
    longest = min(LONGEST, side // 6)
    large = max(1, round(count * _FEW_LARGE))
    bound = longest / 3
    sizes = [
        *np.geomspace(longest, bound, large, endpoint=False),
        *_mostly_small(bound, count - large),
    ]
    done: list[Ellipse] = []
    for size in sizes:
        for _ in range(100_000):
            length = round(float(size))
            margin = length // 2 + 30
            x, y = (int(value) for value in random.integers(margin, side - margin, 2))
            if all(math.hypot(x - each.x, y - each.y) > 0.55 * (length + each.length) + 30 for each in done):
                break
        else:
            raise ValueError(f"{count} objects do not fit into {side} px")
        breadth = max(12, round(length * random.uniform(0.8, 1)))
        done.append(Ellipse(x, y, length, min(breadth, length), int(random.integers(180)), len(done) % len(_COLOURS)))
    return done


def _mostly_small(longest: float, count: int) -> NDArray[np.float64]:
    """Sizes down to the shortest. Those above a size are as many as its power of -3/4, about: half are below 35 px."""
    power = -0.75
    sizes: NDArray[np.float64] = np.linspace(longest**power, SHORTEST**power, count) ** (1 / power)
    return sizes


def make(path: Path, side: int, count: int, seed: int) -> list[Ellipse]:
    """Writes the picture, unless it is there already, and its objects beside it. Returns these."""
    beside = path.with_suffix(".json")
    placed_objects = objects(side, count, seed)
    known = [asdict(each) for each in placed_objects]
    if path.exists() and beside.exists() and json.loads(beside.read_text()) == known:
        return placed_objects
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path,
        _tiles(side, placed_objects),
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="rgb",
        compression="zlib",
        compressionargs={"level": 1},
        bigtiff=True,
    )
    beside.write_text(json.dumps(known))
    return placed_objects


def _tiles(side: int, all_objects: list[Ellipse]) -> Iterator[NDArray[np.uint8]]:
    """Yields the tiles, row by row."""
    x = np.arange(-(-side // TILE) * TILE, dtype=np.float32)
    for top in range(0, side, TILE):
        y = np.arange(top, top + TILE, dtype=np.float32)[:, None]
        ground = 190 + 20 * np.sin(x / 1900) * np.cos(y / 2300)
        row = np.repeat(np.rint(ground).astype(np.uint8)[..., None], 3, axis=2)
        for each in all_objects:
            if each.y + each.length > top and each.y - each.length < top + TILE:
                each.draw(row, 0, -top, _COLOURS[each.colour])
        noise = np.random.default_rng(top).integers(-3, 4, row.shape[:2], np.int8)
        row = cv2.add(row, cv2.merge([noise] * 3).astype(np.int16), dtype=cv2.CV_8U)
        for left in range(0, len(x), TILE):
            yield np.ascontiguousarray(row[:, left : left + TILE])
