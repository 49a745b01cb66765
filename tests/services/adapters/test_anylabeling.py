"""X-AnyLabeling's interface over real servers: its polygons are the client's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from maskwire import Client

from testing.adapters import adapter, data_uri, encoded
from testing.servers import Stack


@pytest.fixture(scope="module")
def anylabeling(stack: Stack) -> Iterator[httpx.Client]:
    with adapter(stack, "anylabeling") as http:
        yield http


def test_anylabeling_lists_the_model(anylabeling: httpx.Client) -> None:
    assert anylabeling.get("/health").json()["status"] == "healthy"
    listed = anylabeling.get("/v1/models").json()
    assert listed["success"]
    assert "button_add_point" in [widget["name"] for widget in listed["data"]["demo"]["widgets"]]
    assert anylabeling.get("/v1/models/demo/info").json()["data"] == {"model_id": "demo", **listed["data"]["demo"]}
    assert anylabeling.get("/v1/models/other/info").status_code == 404


@pytest.mark.parametrize(
    ("marks", "prompt"),
    [
        ([{"type": "point", "data": [260, 130], "label": 1}], {"points": [(260, 130)]}),
        (
            [{"type": "point", "data": [260, 130], "label": 1}, {"type": "point", "data": [300, 330], "label": 0}],
            {"points": [(260, 130), (300, 330)], "labels": [1, 0]},
        ),
        ([{"type": "rectangle", "data": [500, 345, 135, 40], "label": 1}], {"box": (135, 40, 500, 345)}),
    ],
)
def test_anylabeling_gets_the_clients_polygons(
    anylabeling: httpx.Client, client: Client, photo: Path, marks: list[dict[str, Any]], prompt: dict[str, Any]
) -> None:
    body = {"model": "demo", "image": data_uri(photo), "params": {"marks": marks, "epsilon_factor": 0}}
    answer = anylabeling.post("/v1/predict", json=body)
    assert answer.status_code == 200, answer.text
    expected = [polygon for polygon in client.segment(photo, **prompt).polygons() if len(polygon) > 2]
    assert expected
    for shape, polygon in zip(answer.json()["data"]["shapes"], expected, strict=True):
        assert shape["shape_type"] == "polygon"
        assert np.array_equal(shape["points"], [*polygon, polygon[0]])
    body["params"]["epsilon_factor"] = 0.01  # type: ignore[index]
    coarse = anylabeling.post("/v1/predict", json=body).json()["data"]["shapes"]
    assert 0 < sum(len(shape["points"]) for shape in coarse) < sum(len(polygon) + 1 for polygon in expected)


def test_anylabeling_without_marks_gets_no_shapes(anylabeling: httpx.Client, photo: Path) -> None:
    answer = anylabeling.post("/v1/predict", json={"model": "demo", "image": encoded(photo)})
    assert answer.json() == {"success": True, "data": {"shapes": [], "description": "", "replace": False}}


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"model": "other"}, 404, "demo"),
        ({"image": "data:image/png;base64,@@"}, 400, "base64"),
        ({"image": "QUJD"}, 400, "image"),
        ({"params": {"marks": [{"type": "point", "data": [1, 2, 3]}]}}, 400, "params.marks[0].data"),
        ({"params": {"marks": [{"type": "circle", "data": [1, 2]}]}}, 400, "params.marks[0].type"),
        (
            {"params": {"marks": [{"type": "rectangle", "data": [1, 2, 9, 9], "label": 0}]}},
            400,
            "params.marks[0].label",
        ),
        ({"params": {"marks": [{"type": "rectangle", "data": [5, 5, 5, 9]}]}}, 400, "params.marks[0]: the rectangle"),
        ({"params": {"text_prompt": "cup"}}, 400, "text"),
    ],
)
def test_anylabeling_is_told_what_is_wrong(
    anylabeling: httpx.Client, photo: Path, change: dict[str, Any], status: int, said: str
) -> None:
    params = {"marks": [{"type": "point", "data": [260, 130]}]}
    answer = anylabeling.post("/v1/predict", json={"model": "demo", "image": encoded(photo), "params": params} | change)
    assert answer.status_code == status, answer.text
    assert answer.json()["success"] is False
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize("empty", [None, [], {}])
def test_anylabeling_may_say_in_any_way_that_there_is_nothing(
    anylabeling: httpx.Client, photo: Path, empty: object
) -> None:
    image = {"model": "demo", "image": encoded(photo)}
    nothing = anylabeling.post("/v1/predict", json=image | {"params": empty})
    assert nothing.json()["data"] == {"shapes": [], "description": "", "replace": False}
    params = {"marks": empty, "epsilon_factor": empty, "text_prompt": empty, "filter_classes": empty}
    assert anylabeling.post("/v1/predict", json=image | {"params": params}).json() == nothing.json()
    mark = {"type": "point", "data": [260, 130]}
    plain = anylabeling.post("/v1/predict", json=image | {"params": {"marks": [mark]}}).json()
    assert plain["data"]["shapes"]
    params = {"marks": [mark | {"label": empty}], "epsilon_factor": empty, "text_prompt": empty, "conf_threshold": 0.3}
    assert anylabeling.post("/v1/predict", json=image | {"params": params}).json() == plain


def test_anylabelings_rectangles_are_objects_of_their_own(
    anylabeling: httpx.Client, client: Client, photo: Path
) -> None:
    def point(x: int, y: int, label: int = 1) -> dict[str, Any]:
        return {"type": "point", "data": [x, y], "label": label}

    def asked(*marks: dict[str, Any]) -> list[Any]:
        body = {"model": "demo", "image": encoded(photo), "params": {"marks": marks, "epsilon_factor": 0}}
        answer = anylabeling.post("/v1/predict", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["data"]["replace"] is False
        return [shape["points"] for shape in answer.json()["data"]["shapes"]]

    def expected(**prompt: Any) -> list[Any]:
        polygons = client.segment(photo, **prompt).polygons()
        return [[*map(list, polygon), list(polygon[0])] for polygon in polygons if len(polygon) > 2]

    left, right = (10, 10, 250, 200), (200, 60, 600, 260)
    rectangles = [{"type": "rectangle", "data": data, "label": 1} for data in (left, right)]
    assert asked(*rectangles) == expected(box=left) + expected(box=right)
    # A click refines the rectangle that it is in, the smaller of two, and one outside all is another object.
    assert asked(*rectangles, point(220, 100)) == expected(box=left, points=[(220, 100)]) + expected(box=right)
    assert asked(*rectangles, point(300, 330)) == expected(box=left) + expected(box=right) + expected(
        points=[(300, 330)]
    )
    assert asked(*rectangles, point(300, 330, 0)) == expected(box=left, points=[(300, 330)], labels=[0]) + expected(
        box=right, points=[(300, 330)], labels=[0]
    )
    # With a single rectangle all clicks refine it, those outside too.
    assert asked(rectangles[0], point(300, 330, 0)) == expected(box=left, points=[(300, 330)], labels=[0])


def test_anylabeling_keeps_its_shapes_when_a_request_fails(anylabeling: httpx.Client) -> None:
    widgets = anylabeling.get("/v1/models").json()["data"]["demo"]["widgets"]
    assert {"name": "toggle_preserve_existing_annotations", "value": True} in widgets


def test_the_status_line_says_what_is_wrong(anylabeling: httpx.Client, photo: Path) -> None:
    params = {"marks": [{"type": "point", "data": [2600, 130]}]}
    answer = anylabeling.post("/v1/predict", json={"model": "demo", "image": encoded(photo), "params": params})
    assert answer.status_code == 400
    assert answer.reason_phrase == (
        "params.marks[0]: the click at (2600, 130) is outside the image, which is 600x400 pixels; click inside it"
    )
    assert anylabeling.get("/v1/models/dmeo/info").reason_phrase == "model: no model 'dmeo'; did you mean 'demo'?"
