"""Gives damaged data sets of labelling tools to what reads them, and writes as COCO what was read."""

import io
import json
import random
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from maskwire import datasets
from maskwire.datasets.annotations import rle_of
from maskwire.datasets.coco import run_lengths
from maskwire.errors import InvalidRequest
from maskwire_adapters import brush
from maskwire_adapters.label_studio_regions import bitmask

from .fuzz_messages import Outcome
from .mutations import changed_json, mutated

_WIDTH_PX, _HEIGHT_PX = 53, 37
_SIZE = {"width": _WIDTH_PX, "height": _HEIGHT_PX}
_MOST_PIXELS = 1_000_000  # whose masks are made: a damaged size may be as large as any
_FINE = {"BAD_DATASET", "UNREADABLE_FILE", "BAD_OUTPUT"}


class Files:
    """Files of data sets, and a folder in which damaged ones are written.

    Args:
        pick: Source of random choices.
        folder: The folder.
    """

    def __init__(self, pick: random.Random, folder: Path) -> None:
        self._pick = pick
        self._input, self._output = folder / "input", folder / "output.json"
        mask = np.random.default_rng(pick.getrandbits(32)).random((_HEIGHT_PX, _WIDTH_PX)) < 0.5
        corners = [[10, 10], [50, 10.5], [50, 80], [10, 80]]
        ring = [number for corner in corners for number in corner]
        segmentations: list[Any] = [
            rle_of(mask),
            {"size": [_HEIGHT_PX, _WIDTH_PX], "counts": run_lengths(mask)},
            [ring, ring],
            None,
        ]
        coco = {
            "images": [{"id": 1, "file_name": "a.png", **_SIZE}],
            "categories": [{"id": 1, "name": "cup"}],
            "annotations": [
                {"id": number, "image_id": 1, "category_id": 1, "segmentation": each, "bbox": [1, 2, 30, 20]}
                for number, each in enumerate(segmentations)
            ],
        }
        shapes = {
            "rectanglelabels": {"x": 10, "y": 10, "width": 30, "height": 20, "rotation": 5},
            "polygonlabels": {"points": corners},
            "brushlabels": {"rle": brush.encode(mask)},
            "bitmasklabels": {"imageDataURL": bitmask(mask)},
            "ellipselabels": {"x": 50, "y": 50, "radiusX": 10, "radiusY": 25},
            "keypointlabels": {"x": 10, "y": 10},
        }
        size = {f"original_{name}": value for name, value in _SIZE.items()}
        regions = [
            {"id": kind, "type": kind, **size, "value": {**value, kind: ["cup"]}} for kind, value in shapes.items()
        ]
        tasks = [{"id": 1, "data": {"image": "/data/a.png"}, "annotations": [{"result": regions}]}]
        self._documents = {"coco": coco, "label-studio": tasks}
        self._cvat = _cvat(mask)

    def read_damaged(self) -> Outcome:
        """Damages one of the files, reads it, and writes what was read."""
        pick = self._pick
        form: Any = pick.choice(("coco", "coco", "label-studio", "cvat", "cvat"))
        document = self._documents.get(form)
        if document is None:
            content = mutated(pick, _zipped(self._cvat)) if pick.random() < 0.2 else mutated(pick, self._cvat)
        elif pick.random() < 0.6:
            content = json.dumps(changed_json(pick, document, pick.choice((0.001, 0.01, 0.1)), most=3)).encode()
        else:
            content = mutated(pick, json.dumps(document).encode())
        self._input.write_bytes(content)
        try:
            with warnings.catch_warnings(action="ignore"):  # of shapes that are skipped
                images = datasets.read(self._input, form)
            for image in images:
                for each in image.annotations:
                    assert len(each.bounds) == 4
                    assert each.area >= 0
                    if each.rle is not None and image.width * image.height <= _MOST_PIXELS:
                        assert each.array.shape == (image.height, image.width)
            datasets.write(images, self._output, "coco")
        except InvalidRequest as error:
            if error.reason not in _FINE:
                raise
            return error.reason
        return "images"


@contextmanager
def files(pick: random.Random) -> Iterator[Files]:
    """Makes a folder with files for the length of a block."""
    with tempfile.TemporaryDirectory() as folder:
        yield Files(pick, Path(folder))


def _cvat(mask: np.ndarray[Any, Any]) -> bytes:
    rows = mask[:20, :30]
    runs = ", ".join(map(str, run_lengths(rows.T)))
    return f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
  <image id="0" name="a.png" width="{_WIDTH_PX}" height="{_HEIGHT_PX}">
    <box label="cup" xtl="-3.5" ytl="2.0" xbr="20.5" ybr="12.0" rotation="30"></box>
    <ellipse label="cup" cx="30" cy="20" rx="10" ry="5"></ellipse>
    <polygon label="cup" points="10.0,10.0;20.0,10.0;20.0,30.0;10.0,30.0"></polygon>
    <mask label="cup" rle="{runs}" left="5" top="6" width="30" height="20"></mask>
    <points label="cup" points="5.5,6.0;7.0,8.0"></points>
  </image>
</annotations>
""".encode()


def _zipped(xml: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", xml)
    return file.getvalue()
