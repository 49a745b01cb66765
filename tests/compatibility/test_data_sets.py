"""Data sets that Maskwire writes, in the loaders of others; and what others write, in ours."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maskwire.datasets import AnnotatedImage, Annotation, read, write
from maskwire.datasets.annotations import rle_of
from numpy.typing import NDArray
from PIL import Image

from testing.foreign_programs import installed

pytestmark = [pytest.mark.compatibility, pytest.mark.timeout(1800)]

SUPERVISION = """
import sys
import numpy as np
import supervision as sv

form, folder, output = sys.argv[1:]
pictures, data_set = f"{folder}/images", sv.DetectionDataset
if form == "yolo":
    data = data_set.from_yolo(pictures, f"{folder}/labels", f"{folder}/data.yaml", force_masks=True)
else:
    data = data_set.from_coco(pictures, f"{folder}/coco.json", force_masks=True)
(detections,) = [found for _, _, found in data]
np.savez(output, masks=detections.mask, classes=[data.classes[number] for number in detections.class_id])
"""
LABELME = """
import sys
import numpy as np
from labelme import utils

file, output = sys.argv[1:]
try:
    from labelme._label_file import read_label_file
except ImportError:
    from labelme.label_file import LabelFile as read_label_file
shapes = read_label_file(file).shapes
masks = []
for shape in shapes:
    if shape["shape_type"] == "mask":  # at the rectangle of its two points, the ends of which are pixels
        drawn, (left, top) = np.zeros((40, 60)), map(int, shape["points"][0])
        height, width = shape["mask"].shape
        drawn[top : top + height, left : left + width] = shape["mask"]
    else:
        drawn, _ = utils.shapes_to_label((40, 60), [shape], {shape["label"]: 1})
    masks.append(drawn > 0)
np.savez(output, masks=masks, classes=[each["label"] for each in shapes])
"""
FIFTYONE = """
import os
import sys

os.environ["FIFTYONE_DISABLE_SERVICES"] = "1"  # no database: its importer does without
import numpy as np
from fiftyone.utils.coco import COCODetectionDatasetImporter

pictures, file, output = sys.argv[1:]
with COCODetectionDatasetImporter(data_path=pictures, labels_path=file, label_types="segmentations") as importer:
    ((_, size, found),) = importer
masks = []
for detection in found.detections:
    drawn = np.zeros((size.height, size.width), bool)
    left, top = (round(share * side) for share, side in zip(detection.bounding_box, (size.width, size.height)))
    height, width = detection.mask.shape
    drawn[top : top + height, left : left + width] = detection.mask
    masks.append(drawn)
np.savez(output, masks=masks, classes=[detection.label for detection in found.detections])
"""
CVAT = """
import json
import sys
import numpy as np
from cvat_sdk.masks import encode_mask

masks, output = sys.argv[1:]
open(output, "w").write(json.dumps([encode_mask(mask) for mask in np.load(masks)["masks"]]))
"""
LABEL_STUDIO = """
import json
import sys
import numpy as np
from label_studio_sdk.converter import brush

masks, output = sys.argv[1:]
rle = [brush.mask2rle(mask.astype(np.uint8) * 255) for mask in np.load(masks)["masks"]]
open(output, "w").write(json.dumps(rle, default=int))
"""


def masks() -> list[NDArray[np.bool_]]:
    first = np.zeros((40, 60), bool)
    first[5:30, 10:50] = True
    first[12:20, 20:30] = False
    first[33:38, 2:9] = True
    second = np.zeros((40, 60), bool)
    second[6:11, 52:58] = True
    return [first, second]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "images" / "one.png")
    return tmp_path


def images() -> list[AnnotatedImage]:
    objects = [Annotation(label, rle=rle_of(mask)) for label, mask in zip(("cup", "spoon"), masks(), strict=True)]
    return [AnnotatedImage("one.png", 60, 40, objects)]


def run(requirement: str, script: str, *words: str | Path, beside: str = "") -> Path:
    """Runs a script where a package is installed. Returns its last argument, the file that it writes."""
    command = [installed(requirement, *beside.split()) / "python", "-c", script, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return Path(words[-1])


@pytest.mark.client(
    "supervision",
    "`DetectionDataset.from_coco` of `coco`; before 0.30 of `coco-uncompressed`",
    version="0.25.1, 0.28.0, 0.30.0, 0.31.2",
)
@pytest.mark.parametrize(
    ("version", "form"),
    [("0.25.1", "coco-uncompressed"), ("0.28.0", "coco-uncompressed"), ("0.30.0", "coco"), ("0.31.2", "coco")],
)
def test_supervision_reads_coco(version: str, form: Any, folder: Path) -> None:
    write(images(), folder / "coco.json", form)
    found = np.load(run(f"supervision=={version}", SUPERVISION, form, folder, folder / "found.npz"))
    np.testing.assert_array_equal(found["masks"], masks())
    assert found["classes"].tolist() == ["cup", "spoon"]


@pytest.mark.client(
    "supervision",
    "`DetectionDataset.from_coco` of `coco`, compressed RLE",
    version="0.28.0",
    works="no: reads other masks, so write `coco-uncompressed`",
)
def test_older_supervision_does_not_read_compressed_coco(folder: Path) -> None:
    """docs/how-to/data-sets.md warns of it; when this fails, the warning is out of date."""
    write(images(), folder / "coco.json", "coco")
    found = np.load(run("supervision==0.28.0", SUPERVISION, "coco", folder, folder / "found.npz"))
    assert not np.array_equal(found["masks"], masks())


@pytest.mark.client("supervision", "`DetectionDataset.from_yolo`", version="0.31.2")
def test_supervision_reads_yolo(folder: Path) -> None:
    write(images(), folder, "yolo", simplify_px=0)
    found = np.load(run("supervision==0.31.2", SUPERVISION, "yolo", folder, folder / "found.npz"))
    assert found["classes"].tolist() == ["cup", "spoon"]
    for mask, expected in zip(found["masks"], masks(), strict=True):
        assert (mask & expected).sum() / (mask | expected).sum() > 0.93  # bridges are a pixel wide


@pytest.mark.client("FiftyOne", "`COCODetectionDatasetImporter`: segmentations", package="fiftyone")
@pytest.mark.parametrize("form", ["coco", "coco-uncompressed"])
def test_fiftyone_imports_coco(form: Any, folder: Path) -> None:
    write(images(), folder / "coco.json", form)
    words = (folder / "images", folder / "coco.json", folder / "found.npz")
    found = np.load(run("fiftyone==1.22.1", FIFTYONE, *words, beside="pycocotools==2.0.11"))
    np.testing.assert_array_equal(found["masks"], masks())
    assert found["classes"].tolist() == ["cup", "spoon"]


@pytest.mark.client("labelme", "`LabelFile` (5.4), `read_label_file` (6.3): masks with holes", version="5.4.1, 6.3.1")
@pytest.mark.parametrize("version", ["5.4.1", "6.3.1"])
def test_labelme_reads_masks_with_holes(version: str, folder: Path) -> None:
    write(images(), folder / "images", "labelme")
    found = np.load(run(f"labelme=={version}", LABELME, folder / "images" / "one.json", folder / "found.npz"))
    np.testing.assert_array_equal(found["masks"], masks())
    assert found["classes"].tolist() == ["cup", "spoon"]


@pytest.mark.client("label-studio-sdk", "`brush.mask2rle`: its brushes are read by `maskwire convert`")
def test_brushes_of_label_studio_are_read(folder: Path) -> None:
    np.savez(folder / "masks.npz", masks=masks())
    written = run("label-studio-sdk==2.1.2", LABEL_STUDIO, folder / "masks.npz", folder / "rle.json")
    regions = [
        {
            "type": "brushlabels",
            "original_width": 60,
            "original_height": 40,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": rle, "brushlabels": [label]},
        }
        for label, rle in zip(("cup", "spoon"), json.loads(written.read_text()), strict=True)
    ]
    task = {"id": 1, "data": {"image": "/data/one.png"}, "annotations": [{"result": regions}]}
    (folder / "export.json").write_text(json.dumps([task]))
    assert read(folder / "export.json") == images()


@pytest.mark.client("cvat-sdk", "`encode_mask`: its masks are read by `maskwire convert`")
def test_masks_of_cvat_are_read(folder: Path) -> None:
    np.savez(folder / "masks.npz", masks=masks())
    written = run("cvat-sdk[masks]==2.80.0", CVAT, folder / "masks.npz", folder / "points.json")
    shapes = []
    for label, (*rle, left, top, right, bottom) in zip(("cup", "spoon"), json.loads(written.read_text()), strict=True):
        runs = ", ".join(str(int(number)) for number in rle)
        place = f'left="{left}" top="{top}" width="{right - left + 1}" height="{bottom - top + 1}"'
        shapes.append(f'<mask label="{label}" source="auto" occluded="0" rle="{runs}" {place} z_order="0"></mask>')
    image = f'<image id="0" name="one.png" width="60" height="40">{"".join(shapes)}</image>'
    (folder / "annotations.xml").write_text(f"<annotations><version>1.1</version>{image}</annotations>")
    assert read(folder / "annotations.xml") == images()
