"""X-AnyLabeling's own window: shapes survive clicks and errors, and its polygons fill to the client's masks."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from maskwire import Client
from numpy.typing import NDArray

from testing.adapters import adapter
from testing.contours import with_holes_filled
from testing.foreign_programs import installed
from testing.servers import Stack

pytestmark = [pytest.mark.compatibility, pytest.mark.timeout(1800)]

# What X-AnyLabeling-Server 0.0.11 has for "Segment Anything 2.1", in configs/auto_labeling/segment_anything_2.yaml.
ORIGINAL = {
    "button_add_point",
    "button_remove_point",
    "button_add_rect",
    "button_clear",
    "button_finish_object",
    "mask_fineness_slider",
    "mask_fineness_value_label",
}
SCRIPT = Path(__file__).with_name("anylabeling_window.py")
OBJECT = "AUTOLABEL_OBJECT"


@pytest.fixture(scope="module")
def anylabeling_program() -> Path:
    return installed("x-anylabeling-cvhub[cpu]==4.2.1")


@pytest.fixture(scope="module")
def window(
    anylabeling_program: Path, stack: Stack, photo: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What happened in the window."""
    work = tmp_path_factory.mktemp("anylabeling")
    picture = shutil.copy(photo, work)
    with adapter(stack, "anylabeling") as http:
        command = [anylabeling_program / "python", SCRIPT, str(http.base_url).rstrip("/"), picture, work]
        # The variable has no effect; what the dialog was given is in the configuration.
        environment = {**os.environ, "XANYLABELING_SERVER_URL": "http://127.0.0.1:9"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**report, "address": command[2]}


def labels(shapes: list[dict[str, Any]]) -> list[str]:
    return [shape["label"] for shape in shapes if shape["label"] != OBJECT]


def filled(shapes: list[dict[str, Any]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The objects' polygons as one mask."""
    mask = np.zeros(shape, np.uint8)
    for polygon in (each["points"] for each in shapes if each["label"] == OBJECT):
        cv2.fillPoly(mask, [np.array(polygon, np.int32)], 1)
    return mask.astype(bool)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.client("X-AnyLabeling", "Remote-Server in its main window", package="x-anylabeling-cvhub")
def test_the_remote_model_is_offered(window: dict[str, Any]) -> None:
    assert window["models"] == ["Maskwire: demo"]
    assert window["preserve"] is True


@pytest.mark.client("X-AnyLabeling", "the controls of X-AnyLabeling-Server's SAM 2", package="x-anylabeling-cvhub")
def test_the_controls_are_those_of_the_original_server(window: dict[str, Any]) -> None:
    """And one more, which keeps the other shapes of the image when a request fails."""
    assert set(window["widgets"]) == {*ORIGINAL, "toggle_preserve_existing_annotations"}
    assert window["fineness"] == 10


@pytest.mark.client(
    "X-AnyLabeling", "the server's address: `remote_server_settings.server_url`", package="x-anylabeling-cvhub"
)
def test_the_address_is_in_the_configuration(window: dict[str, Any]) -> None:
    assert window["settings"]["server_url"] == window["address"]


def test_the_users_shapes_survive_clicks_and_rectangles(window: dict[str, Any]) -> None:
    for step in ("click", "two clicks", "cleared", "rectangles"):
        assert labels(window[step])[0] == "plate", step
    assert [shape["label"] for shape in window["cleared"]] == ["plate"]


def test_the_users_shapes_survive_an_error_that_is_told(window: dict[str, Any]) -> None:
    assert [shape["label"] for shape in window["failed"]] == ["plate", "AUTOLABEL_ADD"]
    assert any("no model 'dmeo'; did you mean 'demo'?" in said for said in window["said"])


@pytest.mark.client("X-AnyLabeling", "points", package="x-anylabeling-cvhub")
@pytest.mark.parametrize("step", ["click", "two clicks"])
def test_clicks_give_the_clients_mask(
    window: dict[str, Any], client: Client, photo: Path, step: str, record_property: Any
) -> None:
    points = [shape["points"][0] for shape in window[step] if shape["label"] == "AUTOLABEL_ADD"]
    assert len(points) == (1 if step == "click" else 2)
    mask = client.segment(photo, points=[(int(x), int(y)) for x, y in points]).mask
    drawn = filled(window[step], mask.shape)
    found = iou(drawn, with_holes_filled(mask))
    record_property("iou", found)
    print(f"{step}: IoU {found:.4f}")
    assert found > 0.97  # what the tolerance of the tool's slider, epsilon_factor, leaves


@pytest.mark.client("X-AnyLabeling", "rectangles", package="x-anylabeling-cvhub")
def test_each_rectangle_is_an_object(window: dict[str, Any], client: Client, photo: Path) -> None:
    drawn = [shape["points"] for shape in window["rectangles"] if shape["label"] == "AUTOLABEL_ADD"]
    assert len(drawn) == 2
    boxes = [tuple(int(value) for corner in (points[0], points[2]) for value in corner) for points in drawn]
    masks = [client.segment(photo, box=box).mask for box in boxes]
    both = with_holes_filled(masks[0]) | with_holes_filled(masks[1])
    found = iou(filled(window["rectangles"], both.shape), both)
    print(f"rectangles: IoU {found:.4f}")
    assert found > 0.97
    for mask in masks:  # neither answers for both
        assert iou(filled(window["rectangles"], both.shape), with_holes_filled(mask)) < 0.95
