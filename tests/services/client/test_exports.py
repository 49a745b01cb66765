"""Masks as other tools take them, and many images at once."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import supervision
from maskwire import Client, InvalidRequest, MaskwireError, Prompt, Result
from maskwire.exports import cutout, detections
from PIL import Image
from pycocotools.coco import COCO

from testing.servers import Stack

BOX = (135, 40, 500, 345)


@pytest.fixture
def client(stack: Stack) -> Any:
    with stack.client() as client:
        yield client


@pytest.mark.client("pycocotools", "`COCO(annotations)`")
def test_coco_annotations_are_read_by_pycocotools(client: Client, photo: Path, tmp_path: Path) -> None:
    result = client.segment(photo, box=BOX)
    dataset = {
        "images": [{"id": 7, "file_name": photo.name, "width": 600, "height": 400}],
        "categories": [{"id": 3, "name": "cup"}],
        "annotations": [result.to_coco(5, 7, 3)],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(dataset))
    read = COCO(str(path))
    (annotation,) = read.loadAnns(read.getAnnIds(imgIds=[7]))
    np.testing.assert_array_equal(read.annToMask(annotation).astype(bool), result.mask)
    rows, columns = np.nonzero(result.mask)
    assert annotation["area"] == result.mask.sum()
    assert annotation["bbox"] == [
        columns.min(),
        rows.min(),
        columns.max() - columns.min() + 1,
        rows.max() - rows.min() + 1,
    ]
    assert annotation["score"] == pytest.approx(result.score)


def test_labelme_polygons_are_the_mask(client: Client, photo: Path) -> None:
    result = client.segment(photo, box=BOX, outputs=("rle", "polygons"))
    document = json.loads(
        json.dumps(result.to_labelme("cup", photo.name, simplify_px=0, group_id=4, shapes="polygons"))
    )
    assert (document["imagePath"], document["imageWidth"], document["imageHeight"]) == (photo.name, 600, 400)
    drawn = np.zeros((400, 600), np.uint8)
    for shape in document["shapes"]:
        assert (shape["label"], shape["shape_type"], shape["group_id"]) == ("cup", "polygon", 4)
        cv2.fillPoly(drawn, [np.array(shape["points"], np.int32)], 1)
    # A labelme polygon has no holes, and specks of one or two pixels are none.
    assert (drawn.astype(bool) & ~result.mask).sum() + (result.mask & ~drawn.astype(bool)).sum() < 0.02 * drawn.size
    fewer = result.to_labelme("cup", photo.name, simplify_px=2, shapes="polygons")["shapes"]
    assert sum(len(shape["points"]) for shape in fewer) < 0.6 * sum(
        len(shape["points"]) for shape in document["shapes"]
    )


def test_a_labelme_mask_has_the_holes(client: Client, photo: Path) -> None:
    result = client.segment(photo, box=BOX)
    (shape,) = result.to_labelme("cup", photo.name, shapes="mask")["shapes"]
    (x_min, y_min), (x_max, y_max) = shape["points"]
    assert (x_min, y_min, x_max + 1, y_max + 1) == result.box
    picture = Image.open(io.BytesIO(base64.b64decode(shape["mask"])))
    np.testing.assert_array_equal(picture, result.mask[int(y_min) : int(y_max) + 1, int(x_min) : int(x_max) + 1])


@pytest.mark.client("supervision", "`Detections` of masks")
def test_supervision_takes_the_masks(client: Client, photo: Path) -> None:
    result = client.segment(photo, points=[(260, 130)], every=True)
    found = result.to_supervision()
    assert len(found) == 3
    np.testing.assert_array_equal(found.mask, [mask.array for mask in result.candidates])
    np.testing.assert_allclose(found.confidence, [mask.score for mask in result.candidates])
    np.testing.assert_array_equal(found.xyxy, supervision.mask_to_xyxy(found.mask))
    assert len(detections([])) == 0


def test_pictures_are_cut_along_the_mask(client: Client, photo: Path, tmp_path: Path) -> None:
    result = client.segment(photo, box=BOX)
    rows, columns = np.nonzero(result.mask)
    pixels = np.array(Image.open(photo).convert("RGB"))
    expected = pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    np.testing.assert_array_equal(np.array(result.crop()), expected)
    assert result.crop(margin_px=1000).size == (600, 400)
    result.cutout().save(tmp_path / "cut.png")
    cut = np.array(Image.open(tmp_path / "cut.png"))
    np.testing.assert_array_equal(cut[..., 3] == 255, result.mask)
    np.testing.assert_array_equal(cut[result.mask][:, :3], pixels[result.mask])
    assert np.array(cutout(Image.open(photo), np.zeros((400, 600), bool)))[..., 3].max() == 0


def test_many_images_are_segmented_as_they_come(client: Client, photo: Path, tmp_path: Path) -> None:
    def noise(seed: int) -> Any:
        return np.random.default_rng(seed).integers(0, 256, (60, 90, 3), np.uint8)

    taken = 0

    def requests() -> Any:
        nonlocal taken
        for seed in range(100, 112):
            taken += 1
            yield noise(seed), Prompt(points=[(30, 20)], prompt_id=str(seed))
        yield photo, [Prompt(box=BOX), Prompt(points=[(260, 130)])]
        yield tmp_path / "missing.jpg", Prompt()
        yield photo, Prompt(points=[(9999, 1)])

    outcomes = []
    for outcome in client.segment_many(requests(), errors="yield"):
        if not outcomes:
            assert taken < 12  # not all at once
        outcomes.append(outcome)
    assert len(outcomes) == 15
    for (image, _), results in outcomes:
        if isinstance(results, MaskwireError):
            assert isinstance(results, InvalidRequest)
        elif isinstance(image, Path):
            assert [result.rle for result in results] == [
                client.segment(photo, box=BOX).rle,
                client.segment(photo, points=[(260, 130)]).rle,
            ]
        else:
            (result,) = results
            assert isinstance(result, Result)
            assert result.rle == client.segment(noise(int(result.prompt_id)), points=[(30, 20)]).rle
    assert sum(isinstance(results, MaskwireError) for _, results in outcomes) == 2
