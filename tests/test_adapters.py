"""Labelling tools' interfaces over real servers: their masks are the client's."""

import base64
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import Stack, free_port, running, wait_until
from maskwire import Client
from maskwire_adapters import brush
from web import Web

BRUSH = """<View><Image name="img" value="$picture"/>
<BrushLabels name="tag" toName="img"><Label value="cup"/></BrushLabels>
<KeyPointLabels name="point" toName="img" smart="true"><Label value="cup"/></KeyPointLabels></View>"""
POLYGONS = BRUSH.replace("BrushLabels", "PolygonLabels")


@contextlib.contextmanager
def adapter(stack: Stack, *arguments: str) -> Iterator[httpx.Client]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "maskwire_adapters", *arguments, "--port", str(port)]
    with running([*command, "--encoder", stack.encoder, "--decoder", stack.decoder]) as process:

        def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(address).status_code < 500
            return False

        wait_until(answers, process=process)
        with httpx.Client(base_url=address, timeout=60) as http:
            yield http


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with stack.client() as client:
        yield client


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def data_uri(path: Path) -> str:
    return f"data:image/jpeg;base64,{encoded(path)}"


def unpacked(rle: list[int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """rle-pack's decoder, by its description, one bit at a time."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, width = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeated = read(1)
        count = read(sizes[read(2)]) + 1
        values += [read(width)] * count if repeated else [read(width) for _ in range(count)]
    assert len(bits) - place < 8
    return np.array(values, np.uint8)


@pytest.mark.parametrize("seed", range(8))
def test_brush_run_lengths_come_back(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 300, 2)
    scale = int(random.integers(1, 60))
    coarse = random.random((height // scale + 1, width // scale + 1)) < random.uniform(0, 1)
    mask = np.kron(coarse, np.ones((scale, scale), bool))[:height, :width]
    rle = brush.encode(mask)
    assert np.array_equal(
        unpacked(rle).reshape(height, width, 4), np.repeat(mask[..., None] * np.uint8(255), 4, axis=2)
    )


def test_long_runs_are_told_in_pieces() -> None:
    for size in (1 << 14, (1 << 14) + 1, 3 << 14):  # four channels: one piece, and more
        assert np.array_equal(unpacked(brush.encode(np.ones((1, size), bool))), np.full(4 * size, 255))


@pytest.mark.parametrize("command", ["label-studio", "cvat", "anylabeling"])
def test_help_teaches(command: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "maskwire_adapters", command, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--port" in shown
    assert "MASKWIRE_DECODER" in shown


# --- Label Studio


@pytest.fixture(scope="module")
def label_studio(stack: Stack, photo: Path) -> Iterator[httpx.Client]:
    with adapter(stack, "label-studio", "--files", str(photo.parent), "--simplify-px", "0") as http:
        yield http


def keypoint(x: float, y: float, positive: bool = True, **more: object) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.3, "keypointlabels": ["cup"]}
    return {"type": "keypointlabels", "is_positive": positive, "value": value, "image_rotation": 0, **more}


def rectangle(x: float, y: float, width: float, height: float, **more: object) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": ["cup"], **more}
    return {"type": "rectanglelabels", "value": value}


def prediction(image: str, regions: list[dict[str, Any]] | None, config: str = BRUSH) -> dict[str, Any]:
    context = None if regions is None else {"result": regions}
    task = {"id": 7, "data": {"picture": image}}
    return {"tasks": [task], "project": "1.2", "label_config": config, "params": {"login": None, "context": context}}


def test_label_studio_connects(label_studio: httpx.Client) -> None:
    assert label_studio.get("/health").json()["status"] == "UP"
    setup = {"project": "1.2", "schema": BRUSH, "hostname": "http://x", "access_token": "y", "extra_params": None}
    assert label_studio.post("/setup", json=setup).json() == {"model_version": "demo"}
    assert label_studio.post("/webhook", json={"action": "ANNOTATION_CREATED"}).status_code == 200


@pytest.mark.parametrize(
    ("regions", "prompt"),
    [
        ([keypoint(43, 32.5)], {"points": [(258, 130)]}),
        ([keypoint(43, 32.5), keypoint(50, 82.5, False)], {"points": [(258, 130), (300, 330)], "labels": [1, 0]}),
        ([rectangle(22.5, 10, 60, 76.25)], {"box": (135, 40, 495, 345)}),
        (
            [keypoint(50, 50), {"type": "choices", "value": {"choices": ["a"]}}, rectangle(22.5, 10, 60, 76.25)],
            {"points": [(300, 200)], "box": (135, 40, 495, 345)},
        ),
    ],
)
def test_label_studio_gets_the_clients_mask(
    label_studio: httpx.Client, client: Client, photo: Path, regions: list[dict[str, Any]], prompt: dict[str, Any]
) -> None:
    answer = label_studio.post("/predict", json=prediction(data_uri(photo), regions))
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    (region,) = result["result"]
    expected = client.segment(photo, **prompt)
    assert result["model_version"] == expected.model
    assert result["score"] == region["score"] == pytest.approx(expected.score, abs=1e-6)
    assert (region["from_name"], region["to_name"], region["type"]) == ("tag", "img", "brushlabels")
    assert (region["original_width"], region["original_height"], region["image_rotation"]) == (600, 400, 0)
    assert region["value"]["brushlabels"] == ["cup"]
    assert region["value"]["format"] == "rle"
    alpha = unpacked(region["value"]["rle"]).reshape(400, 600, 4)[:, :, 3]
    assert np.array_equal(alpha > 0, expected.mask)
    assert expected.mask.any()


def test_label_studio_gets_polygons_where_the_project_has_them(
    label_studio: httpx.Client, client: Client, photo: Path
) -> None:
    answer = label_studio.post("/predict", json=prediction(data_uri(photo), [keypoint(43, 32.5)], POLYGONS))
    (result,) = answer.json()["results"]
    expected = [polygon for polygon in client.segment(photo, points=[(258, 130)]).polygons() if len(polygon) > 2]
    assert expected
    for region, polygon in zip(result["result"], expected, strict=True):
        assert region["type"] == "polygonlabels"
        assert region["value"]["polygonlabels"] == ["cup"]
        assert np.allclose(np.array(region["value"]["points"]) * (6, 4), polygon)


def test_label_studio_asks_for_nothing_before_a_click(label_studio: httpx.Client, photo: Path) -> None:
    for regions in (None, []):
        assert label_studio.post("/predict", json=prediction(data_uri(photo), regions)).json() == {"results": []}
    without = prediction(data_uri(photo), None) | {"params": None}
    assert label_studio.post("/predict", json=without).json() == {"results": []}


def test_label_studio_names_local_files(label_studio: httpx.Client, photo: Path) -> None:
    click = [keypoint(43, 32.5)]
    named = label_studio.post("/predict", json=prediction(f"/data/local-files/?d={photo.name}", click)).json()
    sent = label_studio.post("/predict", json=prediction(data_uri(photo), click)).json()
    assert named["results"][0]["result"][0]["value"] == sent["results"][0]["result"][0]["value"]


def test_label_studios_images_are_fetched_with_its_token_from_it_alone(stack: Stack, photo: Path, web: Web) -> None:
    url = f"http://127.0.0.1:{web.port}"
    web.files["/data/upload/1/photo.jpg"] = photo.read_bytes()
    click = [keypoint(43, 32.5)]
    with adapter(stack, "label-studio", "--host-url", url, "--api-token", "t0ken") as http:
        for reference in ("/data/upload/1/photo.jpg", f"{url}/data/upload/1/photo.jpg"):
            answer = http.post("/predict", json=prediction(reference, click))
            assert answer.status_code == 200, answer.text
            assert answer.json()["results"][0]["result"]
        assert web.authorizations == ["Token t0ken"] * 2
        for reference in ("http://example.com/photo.jpg", "//example.com/photo.jpg", "s3://bucket/photo.jpg"):
            refused = http.post("/predict", json=prediction(reference, click))
            assert refused.status_code == 400
            assert refused.json()["field"] == "tasks[0].data.picture"
            assert "alone" in refused.json()["message"]
        for reference, told in (("/data/upload/1/other.jpg", "404"), ("/redirect", "302")):
            failed = http.post("/predict", json=prediction(reference, click))
            assert failed.status_code == 400
            assert told in failed.json()["message"]


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"tasks": []}, "tasks", "at least 1"),
        ({"tasks": [{"data": {}}]}, "tasks[0].data.picture", "no image"),
        ({"tasks": [{"data": {"picture": "data:image/png;base64,@@"}}]}, "tasks[0].data.picture", "base64"),
        ({"tasks": [{"data": {"picture": "data:image/png;base64,QUJD"}}]}, "image", "image"),
        ({"tasks": [{"data": {"picture": "http://127.0.0.1/x.jpg"}}]}, "tasks[0].data.picture", "--host-url"),
        ({"tasks": [{"data": {"picture": "/data/local-files/?d=../x"}}]}, "tasks[0].data.picture", "--files"),
        ({"tasks": [{"data": {"picture": "/data/local-files/?d=/etc/passwd"}}]}, "tasks[0].data.picture", "--files"),
        ({"label_config": "<View>"}, "label_config", "XML"),
        ({"label_config": "<!DOCTYPE a []><View/>"}, "label_config", "document type"),
        ({"label_config": "<View/>"}, "label_config", "BrushLabels"),
        ({"regions": [{"type": "keypointlabels", "value": {"x": 1}}]}, "params.context.result[0].value.y", "required"),
        ({"regions": [keypoint(400, 50)]}, "prompts[0].points[0].x_px", "not within"),
        ({"regions": [keypoint(40, 50, image_rotation=90)]}, "params.context.result[0]", "turn"),
        ({"regions": [rectangle(4, 5, 10, 10, rotation=30)]}, "params.context.result[0]", "turn"),
    ],
)
def test_label_studio_is_told_what_is_wrong(
    label_studio: httpx.Client, photo: Path, change: dict[str, Any], field: str, said: str
) -> None:
    body = prediction(data_uri(photo), change.pop("regions", [keypoint(43, 32.5)])) | change
    answer = label_studio.post("/predict", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["field"] == field
    assert said in answer.json()["message"]


def test_label_studio_is_told_that_it_sends_no_json(label_studio: httpx.Client) -> None:
    assert label_studio.post("/predict", content=b"{").status_code == 400
    assert label_studio.post("/setup", json={"schema": "<View/>"}).status_code == 400
    assert label_studio.get("/nothing").status_code == 404


# --- CVAT


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
        ({"pos_points": [[9000, 5]]}, "prompts[0].points[0].x_px"),
        ({"obj_bbox": [[1, 2]]}, "obj_bbox"),
    ],
)
def test_cvat_is_told_what_is_wrong(cvat: httpx.Client, photo: Path, change: dict[str, Any], field: str) -> None:
    body = {"image": encoded(photo), "pos_points": [[260, 130]], "neg_points": []} | change
    answer = cvat.post("/api/function_invocations", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["field"] == field


# --- X-AnyLabeling


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
    assert answer.json() == {"success": True, "data": {"shapes": [], "description": ""}}


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"model": "other"}, 404, "demo"),
        ({"image": "data:image/png;base64,@@"}, 400, "base64"),
        ({"image": "QUJD"}, 400, "image"),
        ({"params": {"marks": [{"type": "point", "data": [1, 2, 3]}]}}, 400, "params.marks[0].data"),
        ({"params": {"marks": [{"type": "circle", "data": [1, 2]}]}}, 400, "params.marks[0].type"),
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
