"""Label Studio's interface over real servers: its masks are the client's."""

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from maskwire import Client, ImageNotFound
from maskwire.sources import Source
from PIL import Image

from testing.adapters import adapter, data_uri, unpacked
from testing.processes import wait_until
from testing.servers import Stack
from testing.web_server import Web

BRUSH = """<View><Image name="img" value="$picture"/>
<BrushLabels name="tag" toName="img"><Label value="cup"/></BrushLabels>
<KeyPointLabels name="point" toName="img" smart="true"><Label value="cup"/></KeyPointLabels></View>"""
NOTHING = {"model_version": "demo", "score": 0, "result": []}
POLYGONS = BRUSH.replace("BrushLabels", "PolygonLabels")


@pytest.fixture(scope="module")
def label_studio(stack: Stack, photo: Path) -> Iterator[httpx.Client]:
    with adapter(stack, "label-studio", "--files", str(photo.parent), "--simplify-px", "0") as http:
        yield http


def keypoint(x: float, y: float, positive: bool = True, **more: object) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.3, "keypointlabels": ["cup"]}
    return {"type": "keypointlabels", "value": value, "is_positive": positive, "image_rotation": 0, **more}


def rectangle(x: float, y: float, width: float, height: float, **more: object) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": ["cup"]} | more
    return {"type": "rectanglelabels", "value": value}


def prediction(image: str, regions: list[dict[str, Any]] | None, config: str = BRUSH) -> dict[str, Any]:
    context = None if regions is None else {"result": regions}
    task = {"id": 7, "data": {"picture": image}}
    return {"tasks": [task], "project": "1.2", "label_config": config, "params": {"login": None, "context": context}}


def test_label_studio_connects(label_studio: httpx.Client) -> None:
    assert label_studio.get("/health").json()["status"] == "UP"
    setup = {"project": "1.2", "schema": BRUSH, "hostname": "http://x", "access_token": "y", "extra_params": None}
    assert label_studio.post("/setup", json=setup).json() == {"model_version": "demo"}
    assert label_studio.get("/versions").json() == {"versions": ["demo"]}
    for action in ("ANNOTATION_CREATED", "START_TRAINING"):
        answer = label_studio.post("/webhook", json={"action": action, "project": {"id": 1}})
        assert (answer.status_code, answer.json()) == (200, {"status": "ignored", "action": action})
    training = {"annotations": [], "project": "1.2", "label_config": BRUSH, "params": {"login": None}}
    assert label_studio.post("/train", json=training).status_code == 200


@pytest.mark.parametrize(
    ("regions", "prompt"),
    [
        ([keypoint(43, 32.5)], {"points": [(258, 130)]}),
        ([keypoint(43, 32.5), keypoint(50, 82.5, False)], {"points": [(258, 130), (300, 330)], "labels": [1, 0]}),
        ([keypoint(100.0000001, 32.5)], {"points": [(600, 130)]}),
        ([keypoint(43, 32.5, original_width=600, original_height=400)], {"points": [(258, 130)]}),
        ([keypoint(43, 32.5, is_positive=None, image_rotation=None, original_width=None)], {"points": [(258, 130)]}),
        ([rectangle(22.5, 10, 60, 76.25)], {"box": (135, 40, 495, 345)}),
        ([rectangle(82.5, 86.25, -60, -76.25)], {"box": (135, 40, 495, 345)}),
        ([rectangle(-0.5, 10, 120, 76.25)], {"box": (0, 40, 600, 345)}),
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


def test_label_studio_gets_bitmasks_and_vectors_where_the_project_has_them(
    label_studio: httpx.Client, client: Client, photo: Path
) -> None:
    def values(tag: str) -> list[dict[str, Any]]:
        body = prediction(data_uri(photo), [keypoint(43, 32.5)], BRUSH.replace("BrushLabels", tag))
        found = label_studio.post("/predict", json=body).json()["results"][0]["result"]
        assert {region["type"] for region in found} == {tag.lower()}
        assert all(region["value"][tag.lower()] == ["cup"] for region in found)
        return [region["value"] for region in found]

    expected = client.segment(photo, points=[(258, 130)])
    (value,) = values("BitmaskLabels")
    png = base64.b64decode(value["imageDataURL"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.array(Image.open(io.BytesIO(png)))[..., 3] > 0, expected.mask)
    for vector, polygon in zip(values("VectorLabels"), expected.polygons(), strict=True):
        assert vector["closed"] is True
        assert np.allclose([(6 * each["x"], 4 * each["y"]) for each in vector["vertices"]], polygon)


def test_label_studio_asks_for_nothing_before_a_click(label_studio: httpx.Client, photo: Path) -> None:
    for regions in (None, []):
        answer = label_studio.post("/predict", json=prediction(data_uri(photo), regions))
        assert answer.json() == {"results": [NOTHING]}
    body = prediction(data_uri(photo), None)
    for params in (None, [], {}, {"context": []}, {"context": {}}, {"context": {"result": {}}}):
        assert label_studio.post("/predict", json=body | {"params": params}).json() == {"results": [NOTHING]}
    # Label Studio wants as many answers as there are tasks.
    several = body | {"tasks": body["tasks"] * 3}
    assert label_studio.post("/predict", json=several).json() == {"results": [NOTHING] * 3}


def test_label_studio_names_local_files(label_studio: httpx.Client, photo: Path) -> None:
    click = [keypoint(43, 32.5)]
    named = label_studio.post("/predict", json=prediction(f"/data/local-files/?d={photo.name}", click)).json()
    sent = label_studio.post("/predict", json=prediction(data_uri(photo), click)).json()
    assert named["results"][0]["result"][0]["value"] == sent["results"][0]["result"][0]["value"]


def test_label_studios_images_are_fetched_with_its_token_from_it_alone(stack: Stack, photo: Path, web: Web) -> None:
    url = f"http://127.0.0.1:{web.port}"
    web.files["/data/upload/1/photo.jpg"] = photo.read_bytes()
    click = [keypoint(43, 32.5)]
    options = ("--host-url", url, "--api-token", "t0ken", "--prewarm", "0")
    with adapter(stack, "label-studio", *options) as http:
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


def test_the_next_tasks_are_embedded_ahead_of_the_first_click(
    stack: Stack, client: Client, photo: Path, web: Web
) -> None:
    """Towards higher numbers first, and after a click in the task before towards lower ones."""
    pictures = {}
    for task in range(4, 10):
        file = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), task, np.uint8)).save(file, "PNG")
        pictures[task] = file.getvalue()
        web.files[f"/data/upload/{task}.png"] = file.getvalue()
    for after, operator, order, listed in ((6, "greater", "tasks:id", (7, 8)), (5, "less", "-tasks:id", (4,))):
        of_tasks = {"filter": "filter:tasks:id", "operator": operator, "type": "Number", "value": after}
        query = {"filters": {"conjunction": "and", "items": [of_tasks]}, "ordering": [order]}
        url = httpx.URL("/api/tasks/", params={"project": 3, "page_size": 2, "query": json.dumps(query)})
        tasks = [{"id": task, "data": {"picture": f"/data/upload/{task}.png"}} for task in listed]
        web.files[url.raw_path.decode()] = json.dumps({"tasks": tasks, "total": len(tasks)}).encode()

    def stored(task: int) -> bool:
        try:
            client.get(Source(pictures[task]).content_name())
        except ImageNotFound:
            return False
        return True

    url = f"http://127.0.0.1:{web.port}"
    with adapter(stack, "label-studio", "--host-url", url, "--api-token", "t0ken") as http:

        def click(task: int) -> None:
            body = prediction(f"/data/upload/{task}.png", [keypoint(50, 50)])
            body["tasks"][0]["id"] = task
            assert http.post("/predict", json=body | {"project": "3.1764000000"}).status_code == 200

        click(6)
        wait_until(lambda: stored(7) and stored(8), 60)
        assert not stored(5)
        click(5)
        wait_until(lambda: stored(4), 60)
        assert not stored(9)
    assert set(web.authorizations) == {"Token t0ken"}


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"tasks": []}, "tasks", "at least 1"),
        ({"tasks": None}, "tasks", "array"),
        ({"tasks": [{"data": {}}]}, "tasks[0].data.picture", "no image"),
        ({"tasks": [{"data": {"picture": "data:image/png;base64,@@"}}]}, "tasks[0].data.picture", "base64"),
        ({"tasks": [{"data": {"picture": "data:image/png;base64,QUJD"}}]}, "tasks[0].data.picture", "the file is text"),
        ({"tasks": [{"data": {"picture": "http://127.0.0.1/x.jpg"}}]}, "tasks[0].data.picture", "--host-url"),
        ({"tasks": [{"data": {"picture": "/data/local-files/?d=../x"}}]}, "tasks[0].data.picture", "--files"),
        ({"tasks": [{"data": {"picture": "/data/local-files/?d=/etc/passwd"}}]}, "tasks[0].data.picture", "--files"),
        ({"label_config": "<View>"}, "label_config", "XML"),
        ({"label_config": "<!DOCTYPE a []><View/>"}, "label_config", "document type"),
        ({"label_config": "<View/>"}, "label_config", "BrushLabels"),
        ({"regions": [{"type": "keypointlabels", "value": {"x": 1}}]}, "params.context.result[0].value.y", "required"),
        ({"regions": [keypoint(400, 50)]}, "params.context.result[0].value", "outside the image"),
        ({"regions": [rectangle(101, 5, 10, 10)]}, "params.context.result[0].value", "covers nothing"),
        (
            {"regions": [keypoint(40, 50, original_width=400, original_height=600)]},
            "params.context.result[0].original_width",
            "Label Studio shows the image with 400x600 pixels and Maskwire reads it as 600x400; its orientation",
        ),
        (
            {"regions": [keypoint(40, 50, original_width=300, original_height=200)]},
            "params.context.result[0].original_width",
            "smaller or larger copy",
        ),
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


def web_token(kind: str, expires_in_s: float) -> str:
    """A JSON web token as Label Studio issues them; its signature is never looked at."""
    claims = json.dumps({"token_type": kind, "exp": time.time() + expires_in_s}).encode()
    return f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.c2ln"


def test_label_studios_personal_access_tokens_are_exchanged(stack: Stack, photo: Path, web: Web) -> None:
    personal, access = web_token("refresh", 3600), web_token("access", 300)
    web.files["/data/upload/1/photo.jpg"] = photo.read_bytes()
    body = prediction("/data/upload/1/photo.jpg", [keypoint(43, 32.5)])
    arguments = (
        "label-studio",
        "--host-url",
        f"http://127.0.0.1:{web.port}",
        "--api-token",
        personal,
        "--prewarm",
        "0",
    )
    with adapter(stack, *arguments) as http:
        refused = http.post("/predict", json=body)
        assert refused.status_code == 400
        assert "personal access token" in refused.json()["message"]
        web.answers["/api/token/refresh/"] = json.dumps({"access": access}).encode()
        for _ in range(2):
            assert http.post("/predict", json=body).status_code == 200
        assert [json.loads(posted) for posted in web.posted["/api/token/refresh/"]] == [{"refresh": personal}] * 2
        assert web.authorizations == [f"Bearer {access}"] * 2


def test_label_studios_expired_bearer_tokens_are_replaced(stack: Stack, photo: Path, web: Web) -> None:
    first, second = web_token("access", 5), web_token("access", 300)
    web.files["/data/upload/1/photo.jpg"] = photo.read_bytes()
    web.answers["/api/token/refresh/"] = json.dumps({"access": first}).encode()
    body = prediction("/data/upload/1/photo.jpg", [keypoint(43, 32.5)])
    token = web_token("refresh", 3600)
    options = ("--host-url", f"http://127.0.0.1:{web.port}", "--api-token", token, "--prewarm", "0")
    with adapter(stack, "label-studio", *options) as http:
        assert http.post("/predict", json=body).status_code == 200
        web.answers["/api/token/refresh/"] = json.dumps({"access": second}).encode()
        assert http.post("/predict", json=body).status_code == 200
        web.accepted = f"Bearer {second}x"  # refused before it expires: revoked, or the clocks differ
        web.answers["/api/token/refresh/"] = json.dumps({"access": f"{second}x"}).encode()
        assert http.post("/predict", json=body).status_code == 200
    assert web.authorizations == [f"Bearer {first}", f"Bearer {second}", f"Bearer {second}", f"Bearer {second}x"]
