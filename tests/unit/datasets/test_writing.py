"""Masks in the files of trainers and tools, filled as those fill them."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire import InvalidRequest
from maskwire.datasets import AnnotatedImage, Annotation, read, write
from maskwire.datasets.annotations import rle_of
from maskwire.datasets.labelme import shapes_of
from maskwire.datasets.voc import palette
from maskwire.outlines import pixel_contours
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

HEIGHT, WIDTH = 40, 60


def with_hole() -> NDArray[np.bool_]:
    """A block with a hole, another component and a line one pixel wide."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:30, 10:50] = True
    mask[12:20, 20:30] = False
    mask[33:38, 2:9] = True
    mask[2, 40:58] = True
    return mask


def small() -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[8:14, 12:30] = True
    return mask


def images() -> list[AnnotatedImage]:
    objects = [Annotation("cup", rle=rle_of(with_hole()), score=0.5), Annotation('a "spoon"', rle=rle_of(small()))]
    return [AnnotatedImage("kitchen/one.jpg", WIDTH, HEIGHT, objects), AnnotatedImage("two.jpg", 30, 20, [])]


def filled(contours: list[tuple[Any, bool]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    drawn = np.zeros(shape, np.uint8)
    for contour, is_hole in contours:
        if not is_hole:
            cv2.fillPoly(drawn, [contour], 1)
    for contour, is_hole in contours:
        if is_hole:
            hole = np.zeros(shape, np.uint8)
            cv2.fillPoly(hole, [contour], 1)
            cv2.polylines(hole, [contour], True, 0)
            drawn[hole > 0] = 0
    return drawn > 0


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 0.9))
def test_contours_run_through_border_pixels(seed: int, height: int, width: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    contours = pixel_contours(mask)
    outer = np.zeros(mask.shape, np.uint8)
    for contour, is_hole in contours:
        assert mask[contour[:, 1], contour[:, 0]].all()
        if not is_hole:
            cv2.fillPoly(outer, [contour], 1)
    theirs, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    expected = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(expected, theirs, -1, 1, cv2.FILLED)
    # Holes that are open at a corner only are outside for 4-connected components, inside for OpenCV's.
    assert not (mask & (outer == 0)).any()
    assert not ((outer > 0) & (expected == 0)).any()


def test_contours_with_holes_give_the_mask() -> None:
    mask = with_hole()
    np.testing.assert_array_equal(filled(pixel_contours(mask), mask.shape), mask)


@pytest.mark.parametrize("form", ["coco", "coco-uncompressed"])
def test_coco_is_read_by_pycocotools_and_by_us(form: Any, tmp_path: Path) -> None:
    (path,) = write(images(), tmp_path / "new" / "coco.json", form)
    data_set = COCO(str(path))
    first, second = data_set.loadAnns(data_set.getAnnIds(imgIds=[1]))
    np.testing.assert_array_equal(data_set.annToMask(first).astype(bool), with_hole())
    assert (first["area"], first["bbox"], first["score"]) == (with_hole().sum(), [2, 2, 56, 36], 0.5)
    assert {first["iscrowd"], second["iscrowd"]} == {0 if form == "coco" else 1}
    assert isinstance(first["segmentation"]["counts"], str if form == "coco" else list)
    assert ("supervision from 0.30" in data_set.dataset["info"]["description"]) == (form == "coco")
    assert [category["name"] for category in data_set.loadCats(data_set.getCatIds())] == ["cup", 'a "spoon"']
    assert read(path) == images()


def test_uncompressed_counts_begin_with_pixels_outside(tmp_path: Path) -> None:
    mask = np.ones((2, 3), bool)
    mask[1, 2] = False
    image = AnnotatedImage("a.png", 3, 2, [Annotation("cup", rle=rle_of(mask))])
    (path,) = write([image], tmp_path / "coco.json", "coco-uncompressed")
    (entry,) = json.loads(path.read_text())["annotations"]
    assert entry["segmentation"] == {"size": [2, 3], "counts": [0, 5, 1]}


def test_boxes_are_written_without_a_segmentation(tmp_path: Path) -> None:
    image = AnnotatedImage("a.png", 30, 20, [Annotation("cup", (1, 2, 11, 22)), Annotation("tip", points=[(3, 4)])])
    (path,) = write([image], tmp_path / "boxes.json", "coco")
    box, point = json.loads(path.read_text())["annotations"]
    assert (box["bbox"], box["area"], "segmentation" in box) == ([1, 2, 10, 20], 200, False)
    assert point["bbox"] == [3, 4, 0, 0]
    for form in ("labelme", "yolo", "voc"):
        with pytest.raises(InvalidRequest, match=r"'cup' has no mask; .*maskwire prelabel"):
            write([image], tmp_path / form, form)  # type: ignore[arg-type]


def labelme_mask(shape: dict[str, Any]) -> NDArray[np.bool_]:
    """A shape as labelme's shapes_to_label draws it."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    if shape["shape_type"] == "polygon":
        cv2.fillPoly(mask, [np.array(shape["points"], np.int32)], 1)
        return mask > 0
    (x_min, y_min), (x_max, y_max) = np.array(shape["points"]).astype(int)
    picture = Image.open(io.BytesIO(base64.b64decode(shape["mask"])))
    mask[y_min : y_max + 1, x_min : x_max + 1] = np.array(picture)
    return mask > 0


def test_labelme_keeps_holes(tmp_path: Path) -> None:
    one, two = write(images(), tmp_path, "labelme")
    assert [path.relative_to(tmp_path) for path in (one, two)] == [Path("kitchen/one.json"), Path("two.json")]
    document = json.loads(one.read_text())
    assert (document["imagePath"], document["imageHeight"], document["imageWidth"]) == ("one.jpg", HEIGHT, WIDTH)
    holed, plain = document["shapes"]
    assert [(each["shape_type"], each["label"], each["group_id"]) for each in (holed, plain)] == [
        ("mask", "cup", 0),
        ("polygon", 'a "spoon"', 1),
    ]
    np.testing.assert_array_equal(labelme_mask(holed), with_hole())
    np.testing.assert_array_equal(labelme_mask(plain), small())


def test_labelme_shapes_are_chosen() -> None:
    mask = with_hole()
    polygons = shapes_of(mask, None, "cup", None, 0, "polygons")
    assert {shape["shape_type"] for shape in polygons} == {"polygon"}
    drawn = np.any([labelme_mask(shape) for shape in polygons], 0)
    without_hole = mask.copy()
    without_hole[12:20, 20:30] = True
    assert not (without_hole & ~drawn).any()
    assert shapes_of(np.zeros_like(mask), None, "cup", None, 0, "mask") == []
    speck = np.ones_like(mask)
    speck[20, 30] = False  # less than 1 %
    assert shapes_of(speck, None, "cup", None, 0, "auto")[0]["shape_type"] == "polygon"
    with pytest.raises(InvalidRequest, match="shapes: no shapes 'polygon'; did you mean 'polygons'"):
        shapes_of(mask, None, "cup", None, 0, "polygon")  # type: ignore[arg-type]


def test_yolo_lines_fill_to_the_masks(tmp_path: Path) -> None:
    first, second, settings_file = write(images(), tmp_path, "yolo", simplify_px=0)
    assert [path.relative_to(tmp_path) for path in (first, second)] == [
        Path("labels/kitchen/one.txt"),
        Path("labels/two.txt"),
    ]
    assert second.read_text() == ""
    for line, mask in zip(first.read_text().splitlines(), (with_hole(), small()), strict=True):
        numbers = np.array(line.split()[1:], float).reshape(-1, 2) * (WIDTH, HEIGHT)
        drawn = np.zeros(mask.shape, np.uint8)
        cv2.fillPoly(drawn, [np.rint(numbers).astype(np.int32)], 1)
        # Bridges to holes and other components are lines of a pixel, drawn where the mask is not.
        wrong = (drawn > 0) ^ mask
        assert wrong.sum() <= 0.04 * mask.sum()
    assert [line.split()[0] for line in first.read_text().splitlines()] == ["0", "1"]
    assert settings_file.read_text().endswith('nc: 2\nnames:\n  0: "cup"\n  1: "a \\"spoon\\""\n')


def test_voc_images_have_numbers_and_colours(tmp_path: Path) -> None:
    files = write(images(), tmp_path, "voc")
    of_classes, of_objects = (
        Image.open(tmp_path / f"Segmentation{name}/kitchen/one.png") for name in ("Class", "Object")
    )
    assert of_classes.mode == of_objects.mode == "P"
    numbers = np.array(of_classes)
    np.testing.assert_array_equal(numbers == 2, small())  # the smaller one is on top
    np.testing.assert_array_equal(numbers == 1, with_hole() & ~small())
    np.testing.assert_array_equal(np.array(of_objects), numbers)
    assert np.array(of_classes.convert("RGB"))[10, 20].tolist() == [0, 128, 0]
    assert palette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    assert palette()[-3:] == [224, 224, 192]
    xml = (tmp_path / "Annotations/kitchen/one.xml").read_text()
    for part in ("<filename>kitchen/one.jpg</filename>", "<name>cup</name>", "<xmin>3</xmin>", "<xmax>58</xmax>"):
        assert part in xml
    assert (tmp_path / "classes.txt").read_text() == 'cup\na "spoon"\n'
    assert len(files) == 7
    crowd = AnnotatedImage("a.png", 30, 20, [Annotation("cup", rle=rle_of(np.ones((20, 30), bool)))] * 255)
    with pytest.raises(InvalidRequest, match="at most 254"):
        write([crowd], tmp_path, "voc")


def test_voc_has_no_box_of_an_empty_mask(tmp_path: Path) -> None:
    objects = [Annotation(name, rle=rle_of(mask)) for name, mask in (("cup", small() & False), ("spoon", small()))]
    write([AnnotatedImage("a.png", WIDTH, HEIGHT, objects)], tmp_path, "voc")
    xml = (tmp_path / "Annotations/a.xml").read_text()
    assert (xml.count("<object>"), "<name>spoon</name>" in xml) == (1, True)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "SegmentationObject/a.png")) == 1, small())


@pytest.mark.parametrize("name", ["../one.jpg", "/tmp/one.jpg", "a/../../one.jpg", "..\\one.jpg", ""])
def test_no_image_is_written_outside_of_the_folder(name: str, tmp_path: Path) -> None:
    image = AnnotatedImage(name, 30, 20, [Annotation("cup", rle=rle_of(np.ones((20, 30), bool)))])
    with pytest.raises(InvalidRequest, match="outside of the folder"):
        write([image], tmp_path / "out", "labelme")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_in_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="form: no form 'pascal'") as raised:
        write(images(), tmp_path, "pascal")  # type: ignore[arg-type]
    assert raised.value.field == "form"
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match="output: cannot write"):
        write(images(), tmp_path / "file" / "coco.json", "coco")
