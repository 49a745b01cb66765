"""Packs training data into one file: photographs with masks, backgrounds and cut-outs with alpha.

    python -m training.demo.pack --photos DATA/coco DATA/facade DATA/food DATA/nuclei \\
        --backgrounds DATA/backgrounds --cutouts CUTOUTS --out demo-data.zip

Each folder of --photos holds annotations.json (COCO's format: polygons or RLE) and the pictures, also in images/ or
wherever `file_name` leads from there. Backgrounds and cut-outs are folders of pictures; cut-outs have an alpha channel.

Every eighth picture of a folder is held out: training never sees it, evaluation sees nothing else. A picture that
several folders name (a photograph with objects, with regions, as a background) is stored once and belongs to one part
only, as the first of these folders has it: name folders whose masks are annotated by people before derived ones.
--hold-out names further pictures to keep from training, such as those that examples show.
"""

import argparse
import json
import zipfile
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from maskwire.suggest import no_such
from numpy.typing import NDArray
from pycocotools import mask as coco

HELD_OUT = 8
CUTOUT_PX, LONGEST_PX = 160, 640
"""Cut-outs are read at this size; photographs and backgrounds are at most so long."""


@dataclass
class Photo:
    """A photograph (HxWx3, uint8, RGB) of a source, with masks as COCO RLE."""

    source: str
    pixels: NDArray[np.uint8]
    masks: list[Any]

    def mask(self, index: int) -> NDArray[np.bool_]:
        return np.asarray(coco.decode(self.masks[index])).astype(bool)


@dataclass
class Pack:
    """What is in a packed file, decoded: either the part for training or what is held out.

    Attributes:
        photos: Photographs with masks, by source.
        backgrounds: HxWx3, RGB.
        cutouts: HxWx4, RGB and alpha.
    """

    photos: dict[str, list[Photo]] = field(default_factory=lambda: defaultdict(list))
    backgrounds: list[NDArray[np.uint8]] = field(default_factory=list)
    cutouts: list[NDArray[np.uint8]] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path, held_out: bool) -> "Pack":
        """Reads a packed file.

        Raises:
            SystemExit: There is none.
        """
        if not path.is_file():
            raise SystemExit(f"error: no packed data at {path}: make it with python -m training.demo.pack --help")
        pack, pictures = cls(), dict[str, NDArray[np.uint8]]()
        with zipfile.ZipFile(path) as file:
            for entry in json.loads(file.read("index.json")):
                if entry["held_out"] != held_out:
                    continue
                name = entry["file"]
                pixels = pictures[name] = pictures[name] if name in pictures else read(file.read(name))
                if entry["kind"] == "photo":
                    pack.photos[entry["source"]].append(Photo(entry["source"], pixels, entry["masks"]))
                elif entry["kind"] == "background":
                    pack.backgrounds.append(pixels)
                else:
                    pack.cutouts.append(_fit(pixels, CUTOUT_PX))
        return pack


def find(folder: Path) -> list[Path]:
    """All pictures in a folder and below it."""
    return sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png", ".webp"))


def read(encoded: bytes) -> NDArray[np.uint8]:
    """An encoded picture to RGB, or RGB and alpha."""
    raw = np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)
    if raw.ndim == 2:
        return np.repeat(raw[..., None], 3, 2)
    return np.ascontiguousarray(raw[..., [2, 1, 0, 3][: raw.shape[2]]])


def _fit(pixels: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    scale = longest / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    width, height = (max(1, round(side * scale)) for side in pixels.shape[1::-1])
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _photos(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    document = json.loads((folder / "annotations.json").read_text())
    masks = defaultdict(list)
    for annotation in document["annotations"]:
        masks[annotation["image_id"]].append(annotation["segmentation"])
    found = []
    for image in (image for image in document["images"] if image["id"] in masks):
        height, width = image["height"], image["width"]
        beside, inside = folder / image["file_name"], folder / "images" / image["file_name"]
        encoded = [rle(segmentation, height, width) for segmentation in masks[image["id"]]]
        entry = {"kind": "photo", "source": folder.name, "masks": encoded}
        found.append((beside if beside.is_file() else inside, entry | {k: image[k] for k in _TOLD if k in image}))
    return found


_TOLD = ("license", "flickr_url")  # attribution, kept in the index


def rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """COCO's segmentation of any kind (polygons, RLE with or without compression) as compressed RLE for JSON."""
    if isinstance(segmentation, list):
        segmentation = coco.merge(coco.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = coco.frPyObjects(segmentation, height, width)
    counts = segmentation["counts"]
    return {"size": [height, width], "counts": counts.decode() if isinstance(counts, bytes) else counts}


def _pictures(folder: Path, kind: str) -> list[tuple[Path, dict[str, Any]]]:
    return [(path, {"kind": kind, "source": folder.name}) for path in find(folder)]


def write(
    out: Path,
    photos: list[Path],
    backgrounds: list[Path],
    cutouts: list[Path],
    sample: int | None = None,
    hold_out: Collection[str] = (),
) -> dict[str, int]:
    """Packs folders into one file.

    Args:
        out: The file.
        photos: Folders of photographs with masks.
        backgrounds: Folders of pictures.
        cutouts: Folders of pictures with alpha.
        sample: Pack a sample for evaluation only: at most so many held-out pictures of each folder.
        hold_out: File names of further pictures to hold out.

    Returns:
        The number of pictures of each folder.

    Raises:
        SystemExit: No folder has a picture that `hold_out` names.
    """
    groups = {folder: _photos(folder) for folder in photos}
    groups |= {folder: _pictures(folder, "background") for folder in backgrounds}
    groups |= {folder: _pictures(folder, "cutout") for folder in cutouts}
    held_out = _held_out(list(groups.values()), hold_out)
    names: dict[Path, str] = {}
    index, counts = [], {}
    with zipfile.ZipFile(out, "w") as file:
        for folder, found in groups.items():
            numbered = list(enumerate(found))
            if sample is not None:
                numbered = [one for one in numbered if held_out[one[1][0].resolve()]][:sample]
            counts[str(folder)] = len(numbered)
            for number, (path, entry) in numbered:
                picture = path.resolve()
                if picture not in names:
                    names[picture] = f"{folder.name}/{number:05d}{path.suffix}"
                    file.writestr(names[picture], path.read_bytes())
                index.append({"file": names[picture], "held_out": held_out[picture], **entry})
        file.writestr("index.json", json.dumps(index))
    return counts


def _held_out(groups: list[list[tuple[Path, dict[str, Any]]]], named: Collection[str]) -> dict[Path, bool]:
    """Whether each picture is held out, by its resolved path: the first group that has it decides."""
    decided: dict[Path, bool] = {}
    for found in groups:
        for number, (path, _) in enumerate(found):
            decided.setdefault(path.resolve(), number % HELD_OUT == 0 or path.name in named)
    names = [path.name for path in decided]
    for name in named:
        if name not in names:
            raise SystemExit(f"error: {no_such('picture', name, names)}")
    return decided


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("photos", "backgrounds", "cutouts"):
        parser.add_argument(f"--{name}", nargs="*", type=Path, default=[], metavar="FOLDER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--sample", type=int, metavar="N", help="only N held-out pictures of each folder, for evaluating"
    )
    parser.add_argument("--hold-out", nargs="*", default=[], metavar="NAME", help="file names of further pictures")
    arguments = parser.parse_args()
    folders = arguments.photos, arguments.backgrounds, arguments.cutouts
    counts = write(arguments.out, *folders, arguments.sample, arguments.hold_out)
    for folder, count in counts.items():
        print(f"{count:6} pictures from {folder}")
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
