"""Exports of labelling tools."""

import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maskwire import InvalidRequest
from maskwire.datasets import AnnotatedImage, Annotation, read
from maskwire.datasets import brush as client_brush
from maskwire_adapters import brush
from maskwire_adapters.label_studio_regions import bitmask, vertices
from numpy.typing import NDArray

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><name>kitchen</name><labels><label><name>cup</name></label></labels></task></meta>
  <image id="0" name="kitchen/one.jpg" width="60" height="40">
    <box label="cup" source="manual" occluded="0" xtl="-3.5" ytl="2.0" xbr="20.5" ybr="12.0" z_order="0">
      <attribute name="colour">red</attribute>
    </box>
    <box label="cup" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90.0"></box>
    <ellipse label="plate" cx="30" cy="20" rx="10" ry="5"></ellipse>
    <polygon label="spoon" points="10.0,10.0;20.0,10.0;20.0,30.0;10.0,30.0"></polygon>
    <mask label="knife" rle="1, 2, 2, 1" left="50" top="5" width="3" height="2"></mask>
    <points label="tip" points="5.5,6.0;7.0,8.0"></points>
    <polyline label="edge" points="1,1;2,2"></polyline>
  </image>
  <image id="1" name="two.jpg" width="30" height="20"></image>
</annotations>
"""


CORNERS: list[list[float]] = [[50, 25], [100, 25], [100, 75], [50, 75]]


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("form", ["xml", "zip"])
def test_cvat(form: str, tmp_path: Path) -> None:
    path = written(tmp_path / "annotations.xml", CVAT)
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
            archive.writestr("annotations.xml", CVAT)
        path = tmp_path / "task.zip"
    with pytest.warns(UserWarning, match=r"skipped 1 <polyline>"):
        one, two = read(path)
    assert (one.file_name, one.width, one.height) == ("kitchen/one.jpg", 60, 40)
    assert two == AnnotatedImage("two.jpg", 30, 20, [])
    box, turned, ellipse, polygon, mask, points = one.annotations
    assert box == Annotation("cup", (0, 2, 20.5, 12))
    assert turned.box == pytest.approx((15, 5, 25, 25))
    assert ellipse == Annotation("plate", (20, 15, 40, 25))
    expected = np.zeros((40, 60), bool)
    expected[10:30, 10:20] = True
    np.testing.assert_array_equal(polygon.array, expected)
    expected = np.zeros((40, 60), bool)
    expected[5, 51:53] = expected[6, 52] = True  # 1 outside, 2 inside, 2 outside, 1 inside
    np.testing.assert_array_equal(mask.array, expected)
    assert mask.bounds == (51, 5, 53, 7)
    assert points == Annotation("tip", points=[(5.5, 6), (7, 8)])
    prompts = one.prompts()
    assert prompts[0].box == (0, 2, 20.5, 12)
    assert prompts[4].box == (51, 5, 53, 7)
    assert (prompts[5].box, prompts[5].points, prompts[5].labels) == (None, ((5.5, 6), (7, 8)), (1, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('rle="1, 2, 2, 1"', 'rle="1, 2, 2"', "image 'kitchen/one.jpg': a mask has 5 pixels instead of 2 rows of 3"),
        ('rle="1, 2, 2, 1"', 'rle="7, -1"', "a run of 7 pixels in 2 rows of 3"),
        ('left="50"', 'left="58"', "<mask> at 58, 5 of 3x2 leaves the image of 60x40"),
        ('xtl="-3.5"', 'xtl="left"', "could not convert string to float: 'left'"),
        (' width="60"', "", "image 'kitchen/one.jpg': 'width'"),
        ("</annotations>", "", "is no XML: "),
        ("annotations>", "dataset>", "begins with <dataset>"),
        ("<meta>", '<track id="0"/><meta>', "is an export of tracks"),
        ("<annotations>", '<!DOCTYPE a [<!ENTITY b "c">]><annotations>', "declares a document type"),
    ],
)
def test_cvat_says_what_is_wrong(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(written(tmp_path / "annotations.xml", CVAT.replace(old, new)))
    assert message in raised.value.message
    assert (raised.value.reason, raised.value.field) == ("BAD_DATASET", "path")


def region(kind: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "r",
        "type": kind,
        "original_width": 60,
        "original_height": 40,
        "image_rotation": 0,
        **more,
        "value": value,
    }


def painted() -> NDArray[np.bool_]:
    mask = np.zeros((40, 60), bool)
    mask[5:30, 10:50] = True
    mask[12:20, 20:30] = False
    return mask


def tasks(*regions: dict[str, Any], image: str = "/data/upload/3/0123abcd-one.jpg") -> list[dict[str, Any]]:
    older = {"updated_at": "2026-01-01T00:00:00Z", "result": [region("rectanglelabels", {})]}
    newest = {"updated_at": "2026-01-02T00:00:00Z", "was_cancelled": False, "result": list(regions)}
    cancelled = {"updated_at": "2026-01-03T00:00:00Z", "was_cancelled": True, "result": []}
    return [{"id": 7, "data": {"image": image}, "annotations": [older, newest, cancelled]}]


def test_label_studio(tmp_path: Path) -> None:
    regions = [
        region(
            "rectanglelabels", {"x": 50, "y": 25, "width": 20, "height": 50, "rotation": 0, "rectanglelabels": ["cup"]}
        ),
        region(
            "rectanglelabels", {"x": 50, "y": 25, "width": 20, "height": 25, "rotation": 90, "rectanglelabels": ["cup"]}
        ),
        region("polygonlabels", {"points": CORNERS, "polygonlabels": ["plate"]}),
        region("brushlabels", {"format": "rle", "rle": brush.encode(painted()), "brushlabels": ["spoon"]}),
        region("keypointlabels", {"x": 10, "y": 10, "width": 1, "keypointlabels": ["tip"]}),
        region("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 25, "ellipselabels": ["bowl"]}),
        region("rectangle", {"x": 0, "y": 0, "width": 10, "height": 10}, id="plain"),
        region("labels", {"labels": ["knife"]}, id="plain"),
        region("textarea", {"text": ["hello"]}),
        region("bitmasklabels", {"imageDataURL": bitmask(painted()), "bitmasklabels": ["fork"]}),
        region("vectorlabels", {"vertices": vertices(CORNERS), "closed": True, "vectorlabels": ["tray"]}),
        region("vectorlabels", {"vertices": vertices(CORNERS), "closed": False, "vectorlabels": ["edge"]}),
    ]
    with pytest.warns(UserWarning, match="skipped 1 textarea, 1 vectorlabels"):
        (image,) = read(written(tmp_path / "export.json", tasks(*regions)))
    assert (image.file_name, image.width, image.height) == ("one.jpg", 60, 40)
    box, turned, polygon, mask, tip, ellipse, plain, bits, vector = image.annotations
    assert box == Annotation("cup", (30, 10, 42, 30))
    assert turned.box == pytest.approx((20, 10, 30, 22))
    expected = np.zeros((40, 60), bool)
    expected[10:30, 30:60] = True
    np.testing.assert_array_equal(polygon.array, expected)
    assert mask.label == "spoon"
    np.testing.assert_array_equal(mask.array, painted())
    assert tip == Annotation("tip", points=[(6, 4)])
    assert ellipse.box == (24, 10, 36, 30)
    assert plain == Annotation("knife", (0, 0, 6, 4))
    assert (bits.label, vector.label) == ("fork", "tray")
    np.testing.assert_array_equal(bits.array, painted())
    np.testing.assert_array_equal(vector.array, expected)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("/data/local-files/?d=kitchen/one%20cup.jpg", "kitchen/one cup.jpg"),
        ("https://example.com/kitchen/one%20cup.jpg?size=2", "one cup.jpg"),
        ("/data/upload/3/0123abcd-one.jpg", "one.jpg"),
    ],
)
def test_label_studio_names_files(place: str, name: str, tmp_path: Path) -> None:
    tip = region("keypointlabels", {"x": 10, "y": 10, "keypointlabels": ["tip"]})
    (image,) = read(written(tmp_path / "export.json", tasks(tip, image=place)))
    assert image.file_name == name


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([region("brushlabels", {"rle": brush.encode(painted())[:-9], "brushlabels": ["a"]})], "rle ends early"),
        ([region("brushlabels", {"rle": brush.encode(painted()[:9]), "brushlabels": ["a"]})], "instead of 60x40x4"),
        ([region("bitmasklabels", {"imageDataURL": "data:image/png;base64,QUJD"})], "a bitmask that cannot be read"),
        ([region("bitmasklabels", {"imageDataURL": "data:image/png;base64,@@"})], "a bitmask that cannot be read"),
        ([region("bitmasklabels", {"imageDataURL": bitmask(painted()[:9])})], "of 60x9 pixels instead of 60x40"),
        ([region("vectorlabels", {"vertices": [{"x": 1, "isBezier": True}], "closed": True})], "vector with curves"),
        ([region("polygonlabels", {"points": [[1, 1]], "polygonlabels": ["a"]})], "task 7: a polygon of 1 points"),
        ([region("rectanglelabels", {"x": 1}, image_rotation=90)], "save it upright"),
        ([region("rectanglelabels", {"x": 1, "rectanglelabels": ["a"]})], "task 7: lacks 'y'"),
    ],
)
def test_label_studio_says_what_is_wrong(regions: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(written(tmp_path / "export.json", tasks(*regions)))
    assert message in raised.value.message
    assert raised.value.reason == "BAD_DATASET"


@pytest.mark.parametrize("seed", range(4))
def test_brushes_come_back(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 90, 2)
    mask = random.random((height, width)) < random.uniform(0, 1)
    np.testing.assert_array_equal(client_brush.decode(brush.encode(mask), width, height), mask)


def test_single_values_of_brushes_are_read() -> None:
    """Label Studio's own encoder writes values that do not repeat one by one; ours never does."""
    numbers = [(8, 32), (7, 5), (2, 4), (3, 4), (7, 4), (15, 4), (0, 1), (0, 2), (7, 3)]
    values = [(value, 8) for value in (255, 255, 255, 255, 0, 0, 0, 0)]
    bits = "".join(f"{number:0{size}b}" for number, size in numbers + values)
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]
    assert client_brush.decode(rle, 2, 1).tolist() == [[True, False]]


def coco(**annotation: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 4, "file_name": "one.jpg", "width": 60, "height": 40}],
        "categories": [{"id": 9, "name": "cup"}],
        "annotations": [{"id": 1, "image_id": 4, "category_id": 9, **annotation}],
    }


def test_coco_boxes_and_polygons(tmp_path: Path) -> None:
    (image,) = read(written(tmp_path / "a.json", coco(bbox=[1, 2, 10, 20])))
    assert image.annotations == [Annotation("cup", (1, 2, 11, 22))]
    ring = [10, 10, 20, 10, 20, 30, 10, 30]
    (image,) = read(written(tmp_path / "b.json", coco(segmentation=[ring], bbox=[0, 0, 1, 1])))
    assert image.annotations[0].bounds == (10, 10, 20, 30)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "is no COCO data set of boxes or masks: KeyError: 'categories'"),
        (coco(bbox=[1, 2, 3]), "not enough values to unpack"),
        (
            coco(segmentation={"size": [40, 60], "counts": [5, 5]}),
            "a mask has 10 pixels instead of 40 rows of 60",
        ),
        (coco(segmentation={"size": [60, 40], "counts": "0"}), "a mask has size [60, 40] in an image of 40x60"),
        ("{", "Expecting property name"),
        ("hello", "begins neither like COCO's JSON"),
        ([{"image": "one.jpg", "label": []}], 'export the project as "JSON" (not "JSON-MIN")'),
    ],
    ids=str,
)
def test_other_files_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(written(tmp_path / "file.json", content))
    assert message in raised.value.message
    assert raised.value.reason == "BAD_DATASET"


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no such file") as raised:
        read(tmp_path / "missing.json")
    assert raised.value.reason == "NO_SUCH_FILE"
    with pytest.raises(InvalidRequest, match="cannot read"):
        read(tmp_path)
    with pytest.raises(InvalidRequest, match="no form 'cvta'; did you mean 'cvat'"):
        read(tmp_path / "a.xml", "cvta")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 1, 5, math.nan, 9, 9]], "a polygon has 'nan'"),
        ([[1, 1, 5, math.inf, 9, 9]], "a polygon has 'inf'"),
        ([[1, 1, 5, 1e300, 9, 9]], "a polygon has '1e+300'"),
        ([[1, 1, 5, 10**400, 9, 9]], "a polygon has '1000"),
        ([[1, 1, 5, "5", 9, 9]], "a polygon has '5'"),
        ([[1, 1, 5, 1e7, 9, 9]], "pixels; at most 4194304 are filled"),
        ([[0, 0, 60, 40] * 100_000], "whose outline has"),
        ([[1, 1, 5, 5]], "a polygon is no list of x and y of three corners"),
        ([[1, 1, 5, 5, 9, 1, 2]], "a polygon is no list of x and y of three corners"),
        (["1234567"], "a polygon is no list of x and y of three corners"),
        ({"size": [40, 60], "counts": "oooooo"}, "segmentation.counts is no compressed run lengths of 40x60 pixels"),
        ({"size": [40, 60], "counts": "0" * 100}, "segmentation.counts is no compressed run lengths of 40x60 pixels"),
        ({"size": [40, 60], "counts": "\0\0é"}, "segmentation.counts is no compressed run lengths of 40x60 pixels"),
        ({"size": [40, 60], "counts": "P["}, "segmentation.counts is no compressed run lengths of 40x60 pixels"),
        ({"size": [40, 60], "counts": ""}, "segmentation.counts is no compressed run lengths of 40x60 pixels"),
        ({"size": [40, 60], "counts": [2**33, 2400 - 2**33]}, "a run of 8589934592 pixels"),
        ({"size": [40, 60], "counts": [2399.5, 0.5]}, "a run of 2399.5 pixels"),
        ({"size": [40, 60], "counts": [0] * 10}, "a mask has 0 pixels instead of 40 rows of 60"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_hostile_masks_of_coco_are_refused(segmentation: Any, message: str, tmp_path: Path) -> None:
    """pycocotools writes beyond its memory for some of them, and counts pixels that are not there for others."""
    with pytest.raises(InvalidRequest) as raised:
        read(written(tmp_path / "file.json", coco(segmentation=segmentation)))
    assert "file.json: annotations[0]: " in raised.value.message
    assert message in raised.value.message
    assert raised.value.reason == "BAD_DATASET"


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"bbox": [math.nan, 0, 1, 1]}, "annotations[0]: bbox has 'nan'"),
        ({"bbox": ["a"] * 4}, "annotations[0]: bbox has 'a'"),
        ({"bbox": [1, 1, 1, 1], "score": math.nan}, "annotations[0]: score is nan"),
        ({"bbox": [1, 1, 1, 1], "score": 10**400}, "annotations[0]: int too large"),
    ],
    ids=str,
)
def test_numbers_of_coco_are_checked(annotation: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        read(written(tmp_path / "file.json", coco(**annotation)))


@pytest.mark.parametrize("sides", [(1 << 20, 1 << 20), (-5, -5), (math.inf, 1), (0, 1e300), ("a", 1)])
def test_sizes_of_images_are_checked(sides: tuple[Any, Any], tmp_path: Path) -> None:
    document = coco(segmentation={"size": [*sides[::-1]], "counts": "0"})
    document["images"][0].update(zip(("width", "height"), sides, strict=True))
    with pytest.raises(InvalidRequest, match=r"file.json: images\[0\]: ") as raised:
        read(written(tmp_path / "file.json", document))
    assert raised.value.reason == "BAD_DATASET"


@pytest.mark.parametrize("form", ["coco", "label-studio"])
def test_deep_json_is_refused(form: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(written(tmp_path / "file.json", "[" * 100_000), form)
    assert raised.value.reason == "BAD_DATASET"


def test_many_polygons_of_an_object_are_joined_in_time(tmp_path: Path) -> None:
    """Joining them one by one takes time for all before with each: minutes for these."""
    squares = [[x, y, x + 1, y, x + 1, y + 1, x, y + 1] for x in range(0, 400, 2) for y in range(0, 400, 2)]
    document = coco(segmentation=squares)
    document["images"][0].update(width=400, height=400)
    (image,) = read(written(tmp_path / "file.json", document))
    expected = np.zeros((400, 400), bool)
    expected[::2, ::2] = True
    np.testing.assert_array_equal(image.annotations[0].array, expected)
    assert image.annotations[0].area == 200 * 200


def test_cvat_sums_of_runs_do_not_wrap(tmp_path: Path) -> None:
    """Modulo 2 ** 64 the sum is the size of the mask, and numpy would write beyond its end."""
    runs = ", ".join(map(str, [2**63 - 1, 2**63 - 1, 8]))
    with pytest.raises(InvalidRequest, match="a mask has a run of 9223372036854775807 pixels in 2 rows of 3"):
        read(written(tmp_path / "annotations.xml", CVAT.replace('rle="1, 2, 2, 1"', f'rle="{runs}"')))


@pytest.mark.parametrize("points", ["10.0,nan;20.0,10.0;20.0,30.0", "1e300,1;20.0,10.0;20.0,30.0"])
def test_cvat_polygons_are_checked(points: str, tmp_path: Path) -> None:
    text = CVAT.replace("10.0,10.0;20.0,10.0;20.0,30.0;10.0,30.0", points)
    with pytest.raises(InvalidRequest, match=r"image 'kitchen/one\.jpg': points has"):
        read(written(tmp_path / "annotations.xml", text))


def test_cvat_entities_are_refused_in_every_encoding(tmp_path: Path) -> None:
    text = CVAT.replace("utf-8", "utf-16").replace("<annotations>", '<!DOCTYPE a [<!ENTITY b "c">]><annotations>', 1)
    path = tmp_path / "annotations.xml"
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(InvalidRequest, match="declares a document type"):
        read(path, "cvat")


def test_damaged_zips_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", CVAT)
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + b"\xff" * 20 + whole[80:])
    with pytest.raises(InvalidRequest) as raised:
        read(path)
    assert raised.value.reason in ("BAD_DATASET", "UNREADABLE_FILE")


@pytest.mark.parametrize("rle", [{"size": [40, 60], "counts": "oooooo"}, {"size": [4, 6], "counts": "0" * 100}])
def test_masks_of_annotations_are_checked(rle: Any) -> None:
    with pytest.raises(InvalidRequest) as raised:
        _ = Annotation("cup", rle=rle).array
    assert (raised.value.reason, raised.value.field) == ("BAD_MASK_DATA", "rle")
