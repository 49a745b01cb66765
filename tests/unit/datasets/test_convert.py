"""The command `maskwire convert`."""

import json
from pathlib import Path

import numpy as np
import pytest
from maskwire import InvalidRequest
from maskwire.cli.app import app
from maskwire.datasets import AnnotatedImage, Annotation, write
from maskwire.datasets.annotations import rle_of
from typer.testing import CliRunner

CVAT = """<annotations><image name="one.jpg" width="60" height="40">
<box label="cup" xtl="1" ytl="2" xbr="11" ybr="22"/><polyline label="edge" points="1,1;2,2"/></image></annotations>"""


def run(*words: str | Path) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["convert", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_boxes_of_cvat_become_coco(tmp_path: Path) -> None:
    (tmp_path / "annotations.xml").write_text(CVAT)
    output, notes = run(tmp_path / "annotations.xml", "-o", tmp_path / "boxes.json")
    assert output == f"1 objects of 1 images: {tmp_path / 'boxes.json'}\n"
    assert "skipped 1 <polyline>" in notes
    (box,) = json.loads((tmp_path / "boxes.json").read_text())["annotations"]
    assert box["bbox"] == [1, 2, 10, 20]
    with pytest.raises(InvalidRequest, match="'cup' has no mask"):
        run(tmp_path / "annotations.xml", "--to", "yolo", "-o", tmp_path / "yolo")


def test_masks_become_whatever_is_asked(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), bool)
    mask[4:9, 5:15] = True
    images = [AnnotatedImage("one.jpg", 30, 20, [Annotation("cup", rle=rle_of(mask))])]
    write(images, tmp_path / "masks.json", "coco")
    output, _ = run(tmp_path / "masks.json", "--to", "labelme", "--shapes", "mask", "-o", tmp_path / "new", "--json")
    assert json.loads(output) == {"images": 1, "objects": 1, "files": [str(tmp_path / "new" / "one.json")]}
    (shape,) = json.loads((tmp_path / "new" / "one.json").read_text())["shapes"]
    assert shape["shape_type"] == "mask"
