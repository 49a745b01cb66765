"""The gateway: its own API, limits, origins, and what it does under load and at its end."""

import concurrent.futures
import contextlib
import json
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import Stack, running_gateway, wait_until
from google.protobuf import json_format
from maskwire import Client
from maskwire.everything import Collection
from maskwire.v1 import decoder_pb2, encoder_pb2
from maskwire_gateway.fetching import is_public
from test_gateway_roboflow import as_base64, noise

CLICK = {"points": [{"x_px": 260, "y_px": 130}]}


def read(answer: httpx.Response, message: Any) -> Any:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return json_format.Parse(answer.text, message)


# The native API


def test_images(http: httpx.Client, client: Client, photo: Path) -> None:
    data = photo.read_bytes()
    plain = http.post("/v1/images", content=data, params={"image_id": "a/b c", "priority": "PRIORITY_BULK"})
    stored = read(plain, encoder_pb2.EncodeImageResponse())
    assert stored.image.image_id == "a/b c"
    assert stored.image.content_key == client.get("a/b c").content_key
    form = http.post("/v1/images", files={"file": ("x.jpg", data)}, params={"model": "demo"})
    again = read(form, encoder_pb2.EncodeImageResponse())
    assert again.cached
    assert again.image.image_id.startswith("img_")
    assert again.image.content_key == stored.image.content_key
    found = read(http.get("/v1/images/a%2Fb%20c"), encoder_pb2.GetImageResponse())
    assert (found.image.width_px, found.image.height_px) == (600, 400)
    # Field names are those of the .proto files, and values that are not set are there too.
    assert json.loads(plain.text)["timings"].keys() == {
        field.name for field in encoder_pb2.EncodeTimings.DESCRIPTOR.fields
    }
    other = http.get("/v1/images/a%2Fb%20c", params={"namespace": "others"})
    assert (other.status_code, other.json()["reason"]) == (404, "IMAGE_NOT_FOUND")
    gone = http.delete("/v1/images/a%2Fb%20c", params={"delete_embedding": "false"})
    assert read(gone, encoder_pb2.DeleteImageResponse()).deleted
    assert not read(http.delete("/v1/images/a%2Fb%20c"), encoder_pb2.DeleteImageResponse()).deleted
    models = read(http.get("/v1/models"), encoder_pb2.ListModelsResponse()).models
    assert [model.name for model in models] == ["demo"]


def test_segment_is_the_grpc_answer(http: httpx.Client, client: Client, photo: Path) -> None:
    client.embed(photo, image_id="cup-http")
    formats = ["MASK_FORMAT_RLE", "MASK_FORMAT_POLYGONS", "MASK_FORMAT_PNG", "MASK_FORMAT_LOGITS"]
    body = {"prompts": [CLICK, {}], "output": {"formats": formats, "candidates": "CANDIDATES_ALL"}}
    answer = read(http.post("/v1/images/cup-http/segment", json=body), decoder_pb2.SegmentResponse())
    expected = client.segment("cup-http", points=[(260, 130)], every=True, outputs=("rle", "polygons", "png", "logits"))
    for mask, same in zip(answer.results[0].masks, expected.candidates, strict=True):
        assert (mask.rle.counts, mask.png, mask.score) == (same.rle["counts"], same.png, pytest.approx(same.score))
        np.testing.assert_array_equal(np.frombuffer(mask.logits.data, "<f2").reshape(128, 128), same.logits)
        assert len(mask.polygons) == len(same.contours)
    # camelCase is fine too, and nothing at all asks for the most prominent object.
    camel = {"prompts": [{"points": [{"xPx": 260, "yPx": 130}]}]}
    body = http.post("/v1/images/cup-http/segment", json=camel).json()
    assert body["results"][0]["masks"][0]["rle"] == {"height": 400, "width": 600, "counts": expected.rle["counts"]}
    assert read(http.post("/v1/images/cup-http/segment"), decoder_pb2.SegmentResponse()).results


def test_events_are_those_of_everything(http: httpx.Client, client: Client, photo: Path) -> None:
    client.embed(photo, image_id="cup-http")
    collection, updates = Collection(), []
    body = {"grid": {"points_per_side": 6}, "points_per_batch": 9, "pred_iou_thresh": 0.2, "stability_score_thresh": 0}
    with http.stream("POST", "/v1/images/cup-http/masks", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line:
                assert line.startswith("data: ")
                message = json_format.Parse(line.removeprefix("data: "), decoder_pb2.GenerateMasksResponse())
                updates.append(collection.add(message))
    assert len(updates) >= 4
    expected = client.everything(
        "cup-http", points_per_side=6, points_per_batch=9, pred_iou_thresh=0.2, stability_score_thresh=0
    )
    assert expected
    assert [mask.annotation("coco_rle") for mask in updates[-1].masks] == [
        mask.annotation("coco_rle") for mask in expected
    ]
    bad = http.post("/v1/images/cup-http/masks", json={"grid": {"points_per_side": 9999}})
    assert bad.status_code == 400
    assert http.post("/v1/images/nobody/masks").status_code == 404


NATIVE_ERRORS: dict[str, tuple[str, str, dict[str, Any], int, str, str]] = {
    "unknown image": ("POST", "/v1/images/nobody/segment", {"json": {}}, 404, "IMAGE_NOT_FOUND", "image_id"),
    "empty name": ("GET", "/v1/images/", {}, 400, "BAD_IMAGE_ID", "image_id"),
    "no JSON": ("POST", "/v1/images/x/segment", {"content": b"{"}, 400, "BAD_JSON", ""),
    "not UTF-8": ("POST", "/v1/images/x/segment", {"content": b'{"\xff'}, 400, "BAD_JSON", ""),
    "deep": ("POST", "/v1/images/x/segment", {"content": b"[" * 100_000}, 400, "BAD_JSON", ""),
    "deep in a message": ("POST", "/v1/images/x/segment", {"content": b'{"prompts":' * 50_000}, 400, "BAD_JSON", ""),
    "unknown field": (
        "POST",
        "/v1/images/x/segment",
        {"json": {"prompts": [{"point": []}]}},
        400,
        "BAD_JSON",
        "prompts[0]",
    ),
    "bare NaN": (
        "POST",
        "/v1/images/x/segment",
        {"content": b'{"prompts":[{"points":[{"x_px":NaN}]}]}'},
        400,
        "BAD_JSON",
        "prompts.points.x_px",
    ),
    "wrong type": ("POST", "/v1/images/x/segment", {"json": {"prompts": 3}}, 400, "BAD_JSON", "prompts"),
    "two names": ("POST", "/v1/images/x/segment", {"json": {"image_id": "y"}}, 400, "TWO_IMAGE_IDS", "image_id"),
    "NaN": (
        "POST",
        "/v1/images/cup-http/segment",
        {"content": b'{"prompts":[{"points":[{"x_px":"NaN","y_px":1}]}]}'},
        400,
        "OUT_OF_IMAGE",
        "prompts[0].points[0].x_px",
    ),
    "outside": (
        "POST",
        "/v1/images/cup-http/segment",
        {"json": {"prompts": [{"points": [{"x_px": 700, "y_px": 1}]}]}},
        400,
        "OUT_OF_IMAGE",
        "prompts[0].points[0].x_px",
    ),
    "no image": ("POST", "/v1/images", {"content": b"hello"}, 400, "", "body"),
    "empty": ("POST", "/v1/images", {"content": b""}, 400, "EMPTY_IMAGE", "body"),
    "form without file": ("POST", "/v1/images", {"files": {"picture": b"x"}}, 400, "NO_FILE", "file"),
    "broken form": (
        "POST",
        "/v1/images",
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        400,
        "BAD_FORM",
        "body",
    ),
    "unknown parameter": ("POST", "/v1/images?size=3", {"content": b"x"}, 400, "BAD_PARAMETER", ""),
    "digest": ("POST", "/v1/images?sha256=eA==", {"content": b"x"}, 400, "BAD_PARAMETER", "sha256"),
    "priority": ("POST", "/v1/images?priority=NOW", {"content": b"x"}, 400, "BAD_PARAMETER", "priority"),
    "model": ("POST", "/v1/images?model=huge", {"content": b"x"}, 404, "MODEL_NOT_FOUND", "model"),
    "namespace": ("GET", "/v1/images/x?namespace=a%20b", {}, 400, "BAD_NAMESPACE", "namespace"),
    "no route": ("GET", "/v2/images", {}, 404, "NO_ROUTE", ""),
    "no method": ("PUT", "/v1/images", {}, 405, "NO_ROUTE", ""),
}


@pytest.mark.parametrize("name", NATIVE_ERRORS)
def test_errors_have_status_reason_and_field(http: httpx.Client, client: Client, photo: Path, name: str) -> None:
    method, path, arguments, status, reason, field = NATIVE_ERRORS[name]
    client.embed(photo, image_id="cup-http")
    answer = http.request(method, path, **arguments)
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["message"]
    assert body["field"] == field
    if reason:
        assert body["reason"] == reason


def test_openapi_and_docs(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    references = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            references.update([value["$ref"]] if "$ref" in value else [])
            value = list(value.values())
        for part in value if isinstance(value, list) else []:
            look(part)

    look(document)
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references <= known
    assert document["components"]["schemas"]["Point"]["properties"].keys() == {"x_px", "y_px", "label"}
    for path, methods in document["paths"].items():
        for method in methods:
            answer = http.request(method.upper(), path.replace("{image_id}", "nobody"))
            assert answer.status_code != 405
            assert str(answer.status_code) in methods[method]["responses"], (path, answer.status_code)
    docs = http.get("/docs").text
    assert "/v1/images/{image_id}/segment" in docs
    assert "http" not in docs.replace(str(http.base_url), "")  # nothing is loaded from elsewhere


def test_probes_metrics_and_request_ids(http: httpx.Client, stack: Stack) -> None:
    assert (http.get("/healthz").status_code, http.get("/readyz").status_code) == (200, 200)
    answer = http.get("/v1/models", headers={"X-Request-ID": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    issued = {http.get("/v1/models", headers={"X-Request-ID": "a b"}).headers["x-request-id"] for _ in range(2)}
    assert len(issued) == 2
    http.get("/v1/images/never-heard-of")
    metrics = http.get("/metrics").text
    assert 'maskwire_gateway_request_seconds_count{method="GET",route="/v1/models",status="200"}' in metrics
    assert "never-heard-of" not in metrics
    assert "process_resident_memory_bytes" in metrics
    with running_gateway(stack, "--retry-s", "0", decoder="127.0.0.1:1") as (lonely, _):
        ready = httpx.get(f"{lonely}/readyz")
        assert (ready.status_code, ready.json()["message"]) == (503, "no decoder answers")
        assert httpx.get(f"{lonely}/healthz").status_code == 200
        away = httpx.post(f"{lonely}/v1/images/x/segment", timeout=60)
        assert away.status_code == 503
        assert int(away.headers["retry-after"]) >= 1


# Origins


def test_origins(stack: Stack, gateway: str) -> None:
    def get(address: str, path: str = "/v1/models", **headers: str) -> httpx.Response:
        return httpx.get(f"{address}{path}", headers=headers)

    assert get(gateway, Origin="https://labels.example").status_code == 403
    assert get(gateway, Origin="null").status_code == 403
    own = get(gateway, Origin=gateway)
    assert own.status_code == 200
    assert "access-control-allow-origin" not in own.headers
    with running_gateway(stack, "--origins", "https://labels.example") as (address, _):
        fine = get(address, Authorization="Bearer any", Origin="https://labels.example")
        assert fine.status_code == 200
        assert fine.headers["access-control-allow-origin"] == "https://labels.example"
        wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        preflight = httpx.options(f"{address}/v1/images", headers={"Origin": "https://labels.example", **wanted})
        assert preflight.status_code == 200
        assert httpx.options(f"{address}/v1/images", headers={"Origin": "https://other.example", **wanted}).is_error
        assert get(address, "/", Origin="https://other.example").status_code == 403
        for path in ("/", "/healthz", "/docs", "/openapi.json", "/metrics"):
            assert get(address, path).status_code == 200


# Models


def test_versions_that_are_not_served(stack: Stack, gateway: str, photo: Path) -> None:
    picture = as_base64(photo.read_bytes())
    for version in ("hiera_tiny", "hiera_small", "hiera_b_plus", "hiera_large", "demo"):
        answer = httpx.post(f"{gateway}/sam2/embed_image", json={"image": picture, "sam2_version_id": version})
        assert answer.status_code == 200
        assert answer.headers["x-maskwire-model"] == "demo"
    with running_gateway(stack, "--other-model", "refuse") as (address, _):

        def embed(**body: Any) -> httpx.Response:
            return httpx.post(f"{address}/sam2/embed_image", json={"image": picture, **body})

        assert embed(sam2_version_id="hiera_tiny").json()["reason"] == "MODEL_NOT_FOUND"
        assert embed().status_code == 404  # hiera_large is meant
        assert embed(model_id="sam2/hiera_tiny").status_code == 404
        assert embed(sam2_version_id="demo").status_code == 200


# Limits


def test_bodies_have_limits(stack: Stack, photo: Path) -> None:
    options = ("--max-image-bytes", "100000", "--body-memory-bytes", "6000000", "--body-timeout-s", "1")
    with running_gateway(stack, *options) as (address, _):
        answer = httpx.post(f"{address}/v1/images", content=bytes(200_000))
        assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")

        def pieces(count: int) -> Iterator[bytes]:
            for _ in range(count):
                yield bytes(100_000)

        assert httpx.post(f"{address}/v1/images", content=pieces(100)).status_code == 413  # of no declared size
        image = as_base64(bytes(1_000_000))
        answer = httpx.post(f"{address}/sam2/embed_image", json={"image": image})
        assert (answer.status_code, answer.json()["reason"]) == (413, "IMAGE_TOO_LARGE")
        assert httpx.post(f"{address}/sam2/embed_image", content=bytes(9_000_000)).status_code == 413
        # Those who send slowly are sent away; what they had sent is free again.
        slow = [socket.create_connection(("127.0.0.1", httpx.URL(address).port)) for _ in range(2)]
        for one in slow:
            one.sendall(
                b"POST /v1/images/x/segment HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n" + bytes(3_900_000)
            )
        said = sorted(one.makefile("rb").readline().split()[1] for one in slow)
        assert said == [b"408", b"429"]  # one was too slow, the other too much beside it
        wait_until(lambda: httpx.post(f"{address}/v1/images", content=photo.read_bytes()).status_code == 200, 5)
        for one in slow:
            one.close()


def test_public_addresses() -> None:
    for address in ("8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"):
        assert is_public(address), address
    for address in (
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "ff02::1",
    ):
        assert not is_public(address), address


# Under load, and at the end


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_fifty_clients_with_mixed_bad_input(stack: Stack, photo: Path) -> None:
    """Right statuses, nothing unexpected, and memory that stays bounded."""
    picture, big = as_base64(photo.read_bytes()), as_base64(bytes(3_000_000))
    point = {"points": [{"x": 260, "y": 130, "positive": True}]}
    kinds: list[tuple[str, dict[str, Any], set[int]]] = [
        ("/sam2/segment_image", {"json": {"image": picture, "prompts": [point], "format": "rle"}}, {200}),
        ("/sam2/segment_image", {"json": {"image": picture, "prompts": [point], "format": "binary"}}, {200}),
        ("/v1/images", {"content": photo.read_bytes()}, {200}),
        ("/v1/images/loaded/segment", {"json": {"prompts": [CLICK]}}, {200}),
        ("/sam2/embed_image", {"json": {"image": big}}, {400}),
        ("/sam2/embed_image", {"json": {"image": as_base64(noise(1)[:900])}}, {400}),
        (
            "/sam2/segment_image",
            {"json": {"image": picture, "prompts": [{"points": [{"x": 1e9, "y": 1, "positive": True}]}]}},
            {400},
        ),
        ("/sam2/segment_image", {"content": b"[" * 200_000}, {422}),
        ("/sam2/segment_image", {"json": {"image": picture, "format": "tiff"}}, {422}),
        ("/sam2/segment_image", {"json": {"image_id": "nobody"}}, {404}),
        ("/v1/images/loaded/segment", {"content": b'{"prompts":' * 10_000}, {400}),
        ("/v1/images/loaded/segment", {"json": {"prompts": [{"points": [{"x_px": 1, "y_px": 1}] * 3000}]}}, {400}),
        ("/v1/images", {"content": bytes(9_000_000)}, {413}),
        ("/v1/images", {"content": b""}, {400}),
        ("/v1/images/" + "x" * 400 + "/segment", {"json": {}}, {400}),
    ]
    options = ("--max-image-bytes", "8000000", "--body-memory-bytes", str(128 << 20))
    with running_gateway(stack, *options) as (address, pid), httpx.Client(base_url=address, timeout=120) as client:
        client.post("/v1/images", content=photo.read_bytes(), params={"image_id": "loaded"})
        peaks: list[int] = []
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                peaks.append(resident_bytes(pid))

        def use(seed: int) -> list[str]:
            wrong = []
            order = random.Random(seed).sample(kinds, len(kinds))
            with httpx.Client(base_url=address, timeout=120) as one:
                for path, arguments, expected in order:
                    answer = one.post(path, **arguments)
                    if answer.status_code not in expected | {429, 503}:
                        wrong.append(f"{path} {answer.status_code} {answer.text[:200]}")
                    if answer.status_code in (429, 503):
                        assert int(answer.headers["retry-after"]) >= 1
            return wrong

        watcher = threading.Thread(target=watch)
        watcher.start()
        resident, fine = [], 0
        try:
            for sweep in range(2):
                with concurrent.futures.ThreadPoolExecutor(50) as pool:
                    wrong = [
                        problem for found in pool.map(use, range(50 * sweep, 50 * sweep + 50)) for problem in found
                    ]
                assert wrong == []
                resident.append(resident_bytes(pid))
        finally:
            done.set()
            watcher.join()
        assert client.get("/readyz").status_code == 200
        metrics = client.get("/metrics").text
        assert 'status="500"' not in metrics
        fine = sum(
            float(line.rsplit(" ", 1)[1])
            for line in metrics.splitlines()
            if "seconds_count" in line and 'status="200"' in line
        )
        assert fine > 200
        assert max(peaks) < 700e6
        assert resident[1] - resident[0] < 60e6


def test_drain_finishes_what_was_accepted(stack: Stack) -> None:
    with running_gateway(stack) as (address, pid):
        answers: list[int] = []

        def embed(seed: int) -> None:
            data = noise(seed, 900, 700)
            answers.append(httpx.post(f"{address}/v1/images", content=data, timeout=60).status_code)

        seeds = np.random.default_rng().integers(1 << 40, size=4).tolist()
        callers = [threading.Thread(target=embed, args=(seed,)) for seed in seeds]
        for caller in callers:
            caller.start()
        metrics = "maskwire_gateway_requests_in_progress 4.0"
        wait_until(lambda: answers != [] or metrics in httpx.get(f"{address}/metrics").text, 20)
        os.kill(pid, signal.SIGTERM)
        for caller in callers:
            caller.join()
        assert answers == [200] * 4
        wait_until(lambda: not alive(address), 20)


def alive(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        httpx.get(f"{address}/healthz", timeout=2)
        return True
    return False
