"""CVAT's interface over real servers: its masks are the client's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from maskwire import Client

from testing.adapters import adapter, encoded
from testing.servers import Stack


@pytest.fixture(scope="module")
def cvat(stack: Stack) -> Iterator[httpx.Client]:
    with adapter(stack, "cvat") as http:
        yield http


def test_cvat_finds_the_function(cvat: httpx.Client) -> None:
    (listed,) = cvat.get("/api/functions").json().values()
    name = listed["metadata"]["name"]
    assert cvat.get(f"/api/functions/{name}").json() == listed
    assert listed["metadata"]["annotations"]["type"] == "interactor"
    assert listed["status"] == {"state": "ready", "httpPort": cvat.base_url.port}
    assert cvat.get("/api/functions/other").status_code == 404


@pytest.mark.parametrize("path", ["/api/function_invocations", "/"])
@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ({"pos_points": [[260, 130]], "neg_points": [], "obj_bbox": None}, {"points": [(260, 130)]}),
        (
            {"pos_points": [[260, 130]], "neg_points": [[300, 330]]},
            {"points": [(260, 130), (300, 330)], "labels": [1, 0]},
        ),
        (
            {"pos_points": [], "neg_points": [], "obj_bbox": [[500, 345], [135, 40]]},
            {"box": (135, 40, 500, 345)},
        ),
    ],
)
def test_cvat_gets_the_clients_mask(
    cvat: httpx.Client, client: Client, photo: Path, path: str, body: dict[str, Any], prompt: dict[str, Any]
) -> None:
    headers = {"x-nuclio-function-name": "maskwire", "x-nuclio-path": "/"}
    answer = cvat.post(path, json={"image": encoded(photo), **body}, headers=headers)
    assert answer.status_code == 200, answer.text
    mask = np.array(answer.json()["mask"])
    assert np.array_equal(mask, client.segment(photo, **prompt).mask)
    assert mask.any()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"image": "@@"}, "image"),
        ({"image": "QUJD"}, "image"),
        ({"image": None}, "image"),
        ({"pos_points": [[1]]}, "pos_points[0]"),
        ({"pos_points": []}, "pos_points"),
        ({"pos_points": [[9000, 5]]}, "pos_points[0]"),
        ({"neg_points": [[3, 5], [1200, 130]]}, "neg_points[1]"),
        ({"obj_bbox": [[1, 2]]}, "obj_bbox"),
        ({"obj_bbox": [[700, 2], [900, 90]]}, "obj_bbox"),
    ],
)
def test_cvat_is_told_what_is_wrong(cvat: httpx.Client, photo: Path, change: dict[str, Any], field: str) -> None:
    body = {"image": encoded(photo), "pos_points": [[260, 130]], "neg_points": []} | change
    answer = cvat.post("/api/function_invocations", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["field"] == field


@pytest.mark.parametrize("empty", [None, [], {}])
def test_cvat_may_say_in_any_way_that_there_is_nothing(cvat: httpx.Client, photo: Path, empty: object) -> None:
    def mask(**fields: object) -> object:
        answer = cvat.post("/api/function_invocations", json={"image": encoded(photo), **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()["mask"]

    click, box = [[260, 130]], [[135, 40], [500, 345]]
    assert mask(pos_points=click, neg_points=empty, obj_bbox=empty, threshold=0.5) == mask(pos_points=click)
    assert mask(pos_points=empty, neg_points=empty, obj_bbox=box) == mask(obj_bbox=box)


def test_cvats_marks_end_at_the_images_edge(cvat: httpx.Client, client: Client, photo: Path) -> None:
    for marks, prompt in (
        ({"pos_points": [[600.4, 130]]}, {"points": [(600, 130)]}),
        ({"pos_points": [[300, -3]], "neg_points": [[-8, 404]]}, {"points": [(300, 0), (0, 400)], "labels": [1, 0]}),
        ({"obj_bbox": [[-5, -5], [620, 410]]}, {"box": (0, 0, 600, 400)}),
        ({"obj_bbox": [[900, 345], [135, 40]]}, {"box": (135, 40, 600, 345)}),
    ):
        answer = cvat.post("/", json={"image": encoded(photo), **marks})
        assert answer.status_code == 200, answer.text
        assert np.array_equal(np.array(answer.json()["mask"]), client.segment(photo, **prompt).mask)
