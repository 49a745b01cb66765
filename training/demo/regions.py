"""Cuts well-bounded regions out of photographs, as masks to train with: parts and things with exact edges.

    python -m training.demo.regions DATA/coco DATA/food DATA/facade DATA/backgrounds --out DATA/regions

Felzenszwalb's graph segmentation at several scales proposes regions; kept are those with a border that is stronger than
what is inside, and a compact shape. The folder is then one more of --photos for training.demo.pack, which keeps
regions of held-out photographs from training. Takes about two seconds for each photograph.
"""

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from skimage.segmentation import felzenszwalb

from training.demo.clicks import Mask
from training.demo.pack import find, read, rle

_LONGEST_PX = 480  # regions are searched at this size
_SCALES = (100, 250, 600, 1400)  # of the segmentation: larger ones give larger regions
_MOST, _ALIKE = 14, 0.75  # regions of a photograph; IoU of two that count as one
_LEAST_AREA, _MOST_AREA = 0.004, 0.5  # shares of the photograph
_LEAST_SOLIDITY, _LEAST_COMPACTNESS = 0.62, 0.08
_MOST_FRAME = 0.9  # share of the photograph's sides, summed over the four, that a region may run along
_LEAST_BORDER, _LEAST_CONTRAST = 2.0, 1.3  # Lab units per pixel along the border; times as much as inside
_MOST_HOLES = 0.6  # holes are filled where they are at most so much of the region


@dataclass(frozen=True)
class Region:
    """A mask (HxW), and how well bounded and compact it is; more is better."""

    mask: Mask
    score: float


def regions(rgb: NDArray[np.uint8]) -> list[Mask]:
    """The best regions of a photograph (HxWx3), HxW each, the best first; none is nearly another."""
    height, width = rgb.shape[:2]
    scale = min(1.0, _LONGEST_PX / max(height, width))
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
    smooth = cv2.bilateralFilter(small, 7, 30, 5)
    edges = _edges(np.asarray(cv2.cvtColor(smooth.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32))
    least = int(_LEAST_AREA * edges.size)
    found = [
        region
        for segmentation_scale in _SCALES
        for mask in _segments(felzenszwalb(smooth, segmentation_scale, sigma=0.7, min_size=least))
        if (region := _judge(mask, edges)) is not None
    ]
    best = _distinct(sorted(found, key=lambda region: region.score, reverse=True))
    return [cv2.resize(mask.astype(np.uint8) * 254, (width, height)) > 127 for mask in best]


def _edges(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """Length of the colour gradient (HxW), the larger of two smoothings'."""
    lengths = []
    for deviation in (1.0, 2.0):
        smooth = cv2.GaussianBlur(lab, (0, 0), deviation)
        across, down = (cv2.Scharr(smooth, cv2.CV_32F, *order) / 32 for order in ((1, 0), (0, 1)))
        lengths.append(np.sqrt((across**2 + down**2).sum(2)))
    return np.maximum(*lengths)


def _segments(labels: NDArray[np.int64]) -> Iterable[Mask]:
    """The largest connected part of each label, its border smoothed and small holes filled."""
    for label in range(int(labels.max()) + 1):
        smooth = cv2.medianBlur((labels == label).astype(np.uint8) * 255, 7)
        outlines, _ = cv2.findContours(smooth, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if not outlines:
            continue
        filled = np.zeros_like(smooth)
        cv2.drawContours(filled, [max(outlines, key=cv2.contourArea)], -1, 255, -1)
        part = (filled > 0) & (smooth > 0)
        yield filled > 0 if np.count_nonzero(filled) <= (1 + _MOST_HOLES) * np.count_nonzero(part) else part


def _judge(mask: Mask, edges: NDArray[np.float32]) -> Region | None:
    """A region; None: too large, too small, too ragged, too much along the frame, or too weakly bounded."""
    bits = mask.astype(np.uint8)
    outlines, _ = cv2.findContours(bits, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    area = np.count_nonzero(mask)
    if not _LEAST_AREA < area / mask.size < _MOST_AREA or len(outlines) != 1:
        return None
    solidity = area / max(1.0, cv2.contourArea(cv2.convexHull(outlines[0])))
    compactness = 4 * np.pi * area / max(1.0, cv2.arcLength(outlines[0], closed=True)) ** 2
    along_frame = sum(float(side.mean()) for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    if solidity < _LEAST_SOLIDITY or compactness < _LEAST_COMPACTNESS or along_frame > _MOST_FRAME:
        return None
    square = np.ones((3, 3), np.uint8)
    border = cv2.dilate(bits, square) > cv2.erode(bits, square)
    inside = cv2.erode(bits, np.ones((7, 7), np.uint8)) > 0
    if not inside.any():
        return None
    strength, texture = float(np.median(edges[border])), float(np.median(edges[inside]))
    if strength < max(_LEAST_BORDER, _LEAST_CONTRAST * texture):
        return None
    return Region(mask, strength / (texture + 1) * min(1.0, solidity) * float(np.sqrt(compactness)))


def _distinct(ordered: list[Region]) -> list[Mask]:
    kept: list[Mask] = []
    for region in ordered:
        mask = region.mask
        if all(np.count_nonzero(mask & other) < _ALIKE * np.count_nonzero(mask | other) for other in kept):
            kept.append(mask)
        if len(kept) == _MOST:
            break
    return kept


def annotate(path: Path) -> tuple[Path, tuple[int, int], list[dict[str, Any]]]:
    """A photograph's file, height and width, and regions as COCO RLE."""
    cv2.setNumThreads(1)
    rgb = read(path.read_bytes())[..., :3]
    shape = rgb.shape[0], rgb.shape[1]
    return path, shape, [rle(coco.encode(np.asfortranarray(mask.astype(np.uint8))), *shape) for mask in regions(rgb)]


def write(folders: list[Path], out: Path, processes: int) -> int:
    """Writes annotations.json of the photographs' regions, with the photographs' paths from there; how many regions."""
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    out.mkdir(parents=True, exist_ok=True)
    # Spawned: a child forked from a program with threads, such as torch's, may wait for ever for a lock of theirs.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for path, (height, width), found in pool.map(annotate, (path for one in folders for path in find(one))):
            if not found:
                continue
            name = Path(os.path.relpath(path, out)).as_posix()
            number = len(images)
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            for segmentation in found:
                annotations.append({"id": len(annotations), "image_id": number, "segmentation": segmentation})
    (out / "annotations.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return len(annotations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of photographs")
    parser.add_argument("--out", type=Path, required=True, help="folder to write annotations.json to")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    print(f"{write(arguments.folders, arguments.out, arguments.processes)} regions in {arguments.out}")


if __name__ == "__main__":
    main()
