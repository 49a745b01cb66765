"""The real Label Studio server: connecting, clicking with a personal access token, and what it then has of the mask."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maskwire import Client
from maskwire.datasets import read
from maskwire.sources import Source
from PIL import Image

from testing.contours import with_holes_filled
from testing.processes import wait_until

from .conftest import CONFIG, Project, Server, connected

pytestmark = [pytest.mark.compatibility, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def project(server: Server, address: str, photo: Path, label_studio_program: Path) -> Project:
    return connected(server, address, label_studio_program, CONFIG, (photo.name, photo.read_bytes()))


def point(x: float, y: float, positive: bool = True, **more: object) -> dict[str, Any]:
    value = {"x": x / 6, "y": y / 4, "width": 0.3, "keypointlabels": ["Cup"]}
    size = {"original_width": 600, "original_height": 400, "image_rotation": 0}
    names = {"id": "p", "from_name": "point", "to_name": "image", "type": "keypointlabels"}
    return {**names, **size, "is_positive": positive, "value": value, **more}


def rectangle(x0: float, y0: float, x1: float, y1: float) -> dict[str, Any]:
    value = {"x": x0 / 6, "y": y0 / 4, "width": (x1 - x0) / 6, "height": (y1 - y0) / 4, "rectanglelabels": ["Plate"]}
    size = {"original_width": 600, "original_height": 400, "image_rotation": 0}
    names = {"id": "r", "from_name": "box", "to_name": "image", "type": "rectanglelabels"}
    return {**names, **size, "value": {**value, "rotation": 0}}


@pytest.mark.client("Label Studio", "connecting the backend", package="label-studio")
def test_the_backend_is_connected(project: Project) -> None:
    state = project.http.get(f"/api/ml/{project.backend}").json()
    assert state["readable_state"] == "Connected", state
    assert project.http.get(f"/api/ml/{project.backend}/versions").json() == {"versions": ["demo"]}


@pytest.mark.client("Label Studio", "interactive annotation: key points, rectangles", package="label-studio")
@pytest.mark.parametrize(
    ("regions", "prompt"),
    [
        ([point(258, 132)], {"points": [(258, 132)]}),
        ([point(258, 132), point(300, 332, False)], {"points": [(258, 132), (300, 332)], "labels": [1, 0]}),
        ([rectangle(132, 40, 498, 344)], {"box": (132, 40, 498, 344)}),
        ([rectangle(132, 40, 498, 344), point(258, 132)], {"box": (132, 40, 498, 344), "points": [(258, 132)]}),
    ],
)
def test_label_studio_gets_the_clients_mask(
    project: Project, client: Client, photo: Path, regions: list[dict[str, Any]], prompt: dict[str, Any]
) -> None:
    mask = project.mask(regions)
    assert mask.any()
    assert np.array_equal(mask, client.segment(photo, **prompt).mask)


@pytest.mark.client("Label Studio", "masks of BitmaskLabels, VectorLabels, PolygonLabels", package="label-studio")
@pytest.mark.parametrize("tag", ["BitmaskLabels", "VectorLabels", "PolygonLabels"])
def test_other_tags_for_masks(
    server: Server, address: str, label_studio_program: Path, client: Client, photo: Path, tmp_path: Path, tag: str
) -> None:
    """Label Studio accepts the regions, keeps them in an annotation, and exports what `datasets.read` reads."""
    config = CONFIG.replace("BrushLabels", tag)
    project = connected(server, address, label_studio_program, config, (photo.name, photo.read_bytes()))
    result = project.ask([point(258, 132)])["data"]["result"]
    body = {"task": project.task, "result": result, "model_version": "demo"}
    accepted = project.http.post("/api/predictions/", json=body)  # which Label Studio checks against the configuration
    assert accepted.status_code == 201, accepted.text
    kept = project.http.post(f"/api/tasks/{project.task}/annotations/", json={"result": result})
    assert kept.status_code == 201, kept.text
    exported = project.http.get(f"/api/projects/{project.number}/export", params={"exportType": "JSON"})
    assert [region["value"] for region in exported.json()[0]["annotations"][0]["result"]] == [
        region["value"] for region in result
    ]
    (tmp_path / "export.json").write_bytes(exported.content)
    (image,) = read(tmp_path / "export.json")
    masks = [annotation.array for annotation in image.annotations]
    assert all(mask is not None for mask in masks)
    union, expected = np.logical_or.reduce(masks), client.segment(photo, points=[(258, 132)]).mask
    if tag == "BitmaskLabels":
        np.testing.assert_array_equal(union, expected)
    else:  # outlines: without holes, within a pixel
        outer = with_holes_filled(expected)
        assert (union & outer).sum() / (union | outer).sum() > 0.97


@pytest.mark.client(
    "Label Studio", "training and retrieving predictions leave no errors in its log", package="label-studio"
)
def test_training_and_retrieving_predictions_leave_no_errors(
    server: Server, address: str, label_studio_program: Path, photo: Path
) -> None:
    pictures = [(f"{index}.jpg", photo.read_bytes()) for index in range(3)]
    project = connected(server, address, label_studio_program, CONFIG, *pictures)
    before = server.log.stat().st_size
    trained = project.http.post(f"/api/ml/{project.backend}/train", json={})
    assert trained.status_code == 200, trained.text
    action = {"id": "retrieve_tasks_predictions", "project": project.number}
    selected = {"selectedItems": {"all": True, "excluded": []}}
    retrieved = project.http.post("/api/dm/actions", params=action, json=selected)
    assert retrieved.status_code == 200, retrieved.text
    assert retrieved.json()["processed_items"] == 3
    state = project.http.get(f"/api/ml/{project.backend}").json()
    assert (state["readable_state"], state["error_message"]) == ("Connected", None)
    said = server.log.read_bytes()[before:].decode()
    assert "retrieve_tasks_predictions" in said
    assert "[ERROR]" not in said, said
    assert "[WARNING]" not in said, said
    assert "Traceback" not in said, said


@pytest.mark.client("Label Studio", "the next tasks are embedded ahead, up and down", package="label-studio")
def test_the_next_tasks_are_embedded_ahead(
    server: Server, address: str, label_studio_program: Path, client: Client
) -> None:
    pictures = []
    for shade in range(8):
        file = io.BytesIO()
        Image.fromarray(np.full((40, 60, 3), 17 + shade, np.uint8)).save(file, "JPEG")
        pictures.append((f"{shade}.jpg", file.getvalue()))
    project = connected(server, address, label_studio_program, CONFIG, *pictures)

    def stored() -> list[int]:
        found = {image.image_id for image in client.images("sha256-")}
        return [at for at, (_, content) in enumerate(pictures) if Source(content).content_name() in found]

    def click(at: int) -> None:
        here = point(258, 132, original_width=60, original_height=40)
        body = {"task": project.tasks[at], "context": {"result": [here]}}
        answer = project.http.post(f"/api/ml/{project.backend}/interactive-annotating", json=body, timeout=60)
        assert "data" in answer.json(), answer.text

    click(3)
    wait_until(lambda: stored() == [3, 4, 5], 60)
    click(4)
    wait_until(lambda: stored() == [3, 4, 5, 6], 60)
    click(2)
    wait_until(lambda: stored() == [0, 1, 2, 3, 4, 5, 6], 60)


@pytest.mark.parametrize("regions", [None, []])
def test_no_clicks_are_no_error(project: Project, regions: list[Any] | None) -> None:
    assert project.ask(regions) == {"data": {"model_version": "demo", "score": 0.0, "result": []}}


def test_label_studio_repeats_what_is_wrong(project: Project) -> None:
    assert "is outside the image, which is 600x400 pixels" in project.ask([point(2600, 132)])["errors"][0]
    swapped = point(258, 132, original_width=400, original_height=600)
    assert "Label Studio shows the image with 400x600 pixels" in project.ask([swapped])["errors"][0]


@pytest.mark.client("Label Studio", "submitting a mask, and exporting it", package="label-studio")
def test_a_mask_becomes_an_annotation_that_is_exported(project: Project, client: Client, photo: Path) -> None:
    result = project.ask([point(258, 132)])["data"]["result"]
    kept = project.http.post(f"/api/tasks/{project.task}/annotations/", json={"result": result})
    assert kept.status_code == 201, kept.text
    (region,) = kept.json()["result"]
    assert region["value"]["rle"] == result[0]["value"]["rle"]
    assert region["value"]["brushlabels"] == ["Cup"]
