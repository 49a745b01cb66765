"""What is to become a mask, and what is no COCO data set."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskwire import InvalidRequest
from maskwire.prelabelling import boxes_file
from maskwire.prelabelling.masks import clip

from .conftest import make_dataset

NUMBERS = st.floats(-1e4, 1e4) | st.integers(-10_000, 10_000)


def test_boxes_without_a_mask_are_found_by_image() -> None:
    dataset = make_dataset()
    first, second, third, fourth, *_ = dataset["annotations"]
    first["segmentation"] = [[1, 1, 3, 1, 3, 3]]
    second["segmentation"] = []
    third["bbox"] = []
    fourth["bbox"] = None
    found = boxes_file.find_boxes(dataset, replace=False)
    boxes = {image.image: [box.annotation for box in image.boxes] for image in found}
    assert boxes == {0: [11], 1: [1, 12], 2: [13], 3: [14]} | {n: [n, n + 11] for n in range(4, 11)}
    assert found[1].boxes[0] == boxes_file.Box(1, (1, 1.5, 10, 20.25))
    assert found[1].size == (60, 40)
    replaced = boxes_file.find_boxes(dataset, replace=True)
    assert [box.annotation for box in replaced[0].boxes] == [0, 11]


def test_images_without_boxes_are_left_out_and_sizes_may_be_missing() -> None:
    images = [{"id": "a", "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    annotations = [{"image_id": "a", "bbox": [1, 2, 3, 4]}]
    (only,) = boxes_file.find_boxes({"images": images, "annotations": annotations}, replace=False)
    assert (only.file_name, only.size) == ("a.jpg", None)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("images",), {}, "has no list 'images'; give a COCO data set"),
        (("annotations",), None, "has no list 'annotations'"),
        (("images", 1), "b.jpg", "images[1] is not an object"),
        (("images", 1, "file_name"), "", "images[1].file_name is ''; give the path of its file"),
        (("images", 1, "id"), 100, "images[1].id is 100, which images[0] has too"),
        (("images", 1, "id"), None, "images[1].id is None"),
        (("images", 1, "height"), None, "images[1] has the width 60 and the height None"),
        (("images", 1, "height"), 1.5, "images[1] has the width 60 and the height 1.5"),
        (("annotations", 3, "image_id"), 7, "annotations[3].image_id is 7, and no image has that id"),
        (("annotations", 3, "image_id"), [7], "annotations[3].image_id is [7]"),
        (("annotations", 3, "bbox"), [1, 2, 3], "annotations[3].bbox is [1, 2, 3]; give [x, y, width, height]"),
        (("annotations", 3, "bbox"), [1, 2, 3, "4"], "annotations[3].bbox"),
        (("annotations", 3, "bbox"), [1, 2, True, 4], "annotations[3].bbox"),
        (("annotations", 3, "bbox"), [1, 2, float("nan"), 4], "annotations[3].bbox"),
        (("annotations", 3, "bbox"), [1, 2, 10**400, 4], "annotations[3].bbox"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(tmp_path: Path, place: tuple[Any, ...], value: Any, message: str) -> None:
    dataset: Any = make_dataset()
    changed = dataset
    for key in place[:-1]:
        changed = changed[key]
    changed[place[-1]] = value
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(dataset))
    with pytest.raises(InvalidRequest) as raised:
        boxes_file.read(path, replace=False)
    assert (raised.value.field, raised.value.reason) == ("--boxes", "BAD_BOXES")
    assert raised.value.message.startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe\xfa", "is not JSON"),
        (b"[]", "a detector's results, which name no files"),
        (b"3", "is not a COCO data set"),
    ],
)
def test_files_that_are_no_data_sets(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=message):
        boxes_file.read(path, replace=False)
    with pytest.raises(InvalidRequest, match="no such file"):
        boxes_file.read(tmp_path / "none.json", replace=False)


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.integers(1, 3000), st.integers(1, 3000))
def test_boxes_are_clipped_to_what_servers_accept(
    x: float, y: float, width: float, height: float, image_width: int, image_height: int
) -> None:
    corners = clip((x, y, width, height), image_width, image_height)
    if corners is None:
        overlap = min(x + width, image_width) - max(x, 0), min(y + height, image_height) - max(y, 0)
        assert min(overlap) < 1e-2  # or so little that requests cannot say it
        return
    x_min, y_min, x_max, y_max = corners
    assert 0 <= x_min < x_max <= image_width
    assert 0 <= y_min < y_max <= image_height
    if x >= 0 and x + width <= image_width:
        assert (x_min, x_max) == pytest.approx((x, x + width), rel=1e-6)
