"""The gateway: its own API, origins and probes."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from google.protobuf import json_format
from maskwire import Client
from maskwire.automatic_masks import MaskCollector
from maskwire.cli.free_ports import free_port
from maskwire.v1 import decoder_pb2, encoder_pb2
from pycocotools import mask as coco

from testing.chromium import PICTURES
from testing.servers import Stack, running_gateway
from testing.wire import as_base64, picture

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
    rle = body["results"][0]["masks"][0]["rle"]
    assert rle == expected.rle
    np.testing.assert_array_equal(coco.decode(rle), expected.mask)  # as it came: nothing to rename
    assert read(http.post("/v1/images/cup-http/segment"), decoder_pb2.SegmentResponse()).results


def test_events_are_those_of_everything(http: httpx.Client, client: Client, photo: Path) -> None:
    collection, updates = MaskCollector(client.embed(photo, image_id="cup-http").size), []
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
    "empty name": ("GET", "/v1/images/", {}, 404, "NO_ROUTE", ""),
    "no JSON": ("POST", "/v1/images/x/segment", {"content": b"{"}, 400, "BAD_JSON", ""),
    "not UTF-8": ("POST", "/v1/images/x/segment", {"content": b'{"\xff'}, 400, "BAD_JSON", ""),
    "deep": ("POST", "/v1/images/x/segment", {"content": b"[" * 100_000}, 400, "BAD_JSON", ""),
    "deep in a message": ("POST", "/v1/images/x/segment", {"content": b'{"prompts":' * 50_000}, 400, "BAD_JSON", ""),
    "two names": ("POST", "/v1/images/x/segment", {"json": {"image_id": "y"}}, 400, "TWO_IMAGE_IDS", "image_id"),
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
    "misspelt parameter": ("POST", "/v1/images?imageid=3", {"content": b"x"}, 400, "BAD_PARAMETER", "imageid"),
    "parameter twice": ("POST", "/v1/images?model=demo&model=x", {"content": b"x"}, 400, "BAD_PARAMETER", "model"),
    "part of a form": (
        "POST",
        "/v1/images",
        {"files": {"file": b"x", "modle": (None, "demo")}},
        400,
        "BAD_PARAMETER",
        "modle",
    ),
    "part that is a parameter too": (
        "POST",
        "/v1/images?model=demo",
        {"files": {"file": b"x", "model": (None, "demo")}},
        400,
        "BAD_PARAMETER",
        "model",
    ),
    "empty file": ("POST", "/v1/images", {"files": {"file": ("a.png", b"")}}, 400, "EMPTY_IMAGE", "file"),
    "text as file": ("POST", "/v1/images", {"files": {"file": ("a.png", b"hello")}}, 400, "IMAGE_UNREADABLE", "file"),
    "JSON for an image": ("POST", "/v1/images", {"json": {}}, 415, "UNSUPPORTED_MEDIA_TYPE", "content-type"),
    "image for JSON": (
        "POST",
        "/v1/images/x/segment",
        {"content": b"x", "headers": {"content-type": "image/png"}},
        415,
        "UNSUPPORTED_MEDIA_TYPE",
        "content-type",
    ),
    "compressed": (
        "POST",
        "/v1/images/x/segment",
        {"content": b"x", "headers": {"content-encoding": "gzip"}},
        415,
        "UNSUPPORTED_MEDIA_TYPE",
        "content-encoding",
    ),
    "outside, short": (
        "POST",
        "/v1/images/cup-http/segment",
        {"json": {"points": [[9, 401]]}},
        400,
        "OUT_OF_IMAGE",
        "points[0][1]",
    ),
    "grid": ("POST", "/v1/images/cup-http/masks", {"json": {"points_per_sid": 4}}, 400, "BAD_JSON", "points_per_sid"),
    "file under another name": (
        "POST",
        "/v1/images",
        {"files": {"image": ("a.png", b"x")}},
        400,
        "BAD_PARAMETER",
        "image",
    ),
    "boxes": ("POST", "/v1/images/cup-http/segment", {"json": {"boxes": [[1, 2, 3, 4]]}}, 400, "BAD_JSON", "boxes"),
    "form without file": ("POST", "/v1/images", {"files": {"model": (None, "demo")}}, 400, "NO_FILE", "file"),
    "broken form": (
        "POST",
        "/v1/images",
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        400,
        "BAD_FORM",
        "body",
    ),
    "unknown parameter": ("POST", "/v1/images?size=3", {"content": b"x"}, 400, "BAD_PARAMETER", "size"),
    "digest": ("POST", "/v1/images?sha256=eA==", {"content": b"x"}, 400, "BAD_PARAMETER", "sha256"),
    "priority": ("POST", "/v1/images?priority=NOW", {"content": b"x"}, 400, "BAD_PARAMETER", "priority"),
    "model": ("POST", "/v1/images?model=huge", {"content": b"x"}, 404, "MODEL_NOT_FOUND", "model"),
    "namespace": ("GET", "/v1/images/x?namespace=a%20b", {}, 400, "BAD_NAMESPACE", "namespace"),
    "no route": ("GET", "/v2/images", {}, 404, "NO_ROUTE", ""),
    "no method": ("PUT", "/v1/images", {}, 405, "NO_METHOD", ""),
    "parameter of a route that has none": ("GET", "/v1/models?namespace=x", {}, 400, "BAD_PARAMETER", "namespace"),
    "parameter beside a body": ("POST", "/v1/images/x/segment?wait_ms=1", {}, 400, "BAD_PARAMETER", "wait_ms"),
    "parameter of /sam2": ("POST", "/sam2/segment_image?apikey=1", {}, 400, "BAD_PARAMETER", "apikey"),
    "no WebSocket": ("GET", "/v1/stream", {}, 426, "NO_SOCKET", ""),
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
    assert document["components"]["schemas"]["Point"]["anyOf"][0]["properties"].keys() == {"x_px", "y_px", "label"}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation["tags"] == ["Videos"]:
                continue  # there is no tracker here; see test_videos.py
            answer = http.request(method.upper(), path.replace("{image_id}", "nobody"))
            assert answer.status_code != 405
            assert str(answer.status_code) in operation["responses"], (path, answer.status_code)
    for schema in document["components"]["schemas"].values():
        for field in schema.get("properties", {}).values():
            assert "maxim" not in str(field) or field["maximum"] <= 60_000  # bounds that mean something


def test_every_example_works(http: httpx.Client, client: Client, photo: Path) -> None:
    client.delete("example")
    document = http.get("/openapi.json").json()
    sent = 0
    paths = sorted(document["paths"].items(), key=lambda one: not one[0].startswith("/sam2/embed"))
    deletes = []
    (model,) = client.models()
    for path, methods in paths:
        path = path.replace("{decoder}", model.decoder)
        for method, operation in methods.items():
            if operation["tags"] == ["Videos"]:
                continue  # their examples need a clip
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
            content = operation.get("requestBody", {}).get("content", {})
            arguments: dict[str, Any] = {}
            if "multipart/form-data" in content:
                arguments = {"files": {"file": photo.read_bytes()}}
            elif content:
                arguments = {"json": content["application/json"]["example"]}
            if method == "delete":
                deletes.append(path)
                continue
            answer = http.request(method.upper(), path, **arguments)
            assert answer.status_code == 200, (method, path, answer.text)
            assert "event: error" not in answer.text
            sent += 1
    assert sent >= 10
    for path in deletes:
        assert http.delete(path).json() == {"deleted": True}


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
    assert http.get("/metrics", headers={"X-Forwarded-For": "203.0.113.7"}).status_code == 404  # by a proxy
    port = free_port()
    options = ("--retry-s", "0", "--metrics-port", str(port))
    with running_gateway(stack, *options, decoder="127.0.0.1:1") as (lonely, _):
        assert httpx.get(f"{lonely}/metrics").status_code == 404
        assert "maskwire_gateway_websockets 0.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
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


def test_a_name_that_is_not_the_gateways(stack: Stack, gateway: str) -> None:
    """A page of evil.example, whose name was made to lead here, does nothing; probes may use any name."""
    evil = {"Host": "evil.example:9001", "Origin": "http://evil.example:9001"}
    with httpx.Client(base_url=gateway, headers=evil) as page:
        answers = [
            page.post("/v1/images?image_id=theirs", content=picture(3, 40, 30)),
            page.get("/v1/images/theirs"),
            page.post("/v1/images/theirs/segment", json={"points": [[3, 3]]}),
            page.delete("/v1/images/theirs"),
            page.get("/"),
        ]
        assert [(answer.status_code, answer.json()["reason"]) for answer in answers] == [(403, "BAD_HOST")] * 5
        assert "MASKWIRE_HOSTS" in answers[0].json()["message"]
    for path in ("/healthz", "/readyz"):
        assert httpx.get(f"{gateway}{path}", headers={"Host": "evil.example"}).status_code == 200
    with running_gateway(stack, "--hosts", "masks.example") as (address, _):
        assert httpx.get(f"{address}/v1/models", headers={"Host": "masks.example"}).status_code == 200


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


def test_a_model_that_is_not_served_is_named(http: httpx.Client, photo: Path) -> None:
    answer = http.post("/v1/images?model=dmeo", content=photo.read_bytes())
    assert answer.json()["message"] == "no model 'dmeo'; did you mean 'demo'? served here: demo"
    answer = http.post("/v1/images", files={"file": photo.read_bytes(), "model": (None, "huge")})
    assert (answer.status_code, answer.json()["message"]) == (404, "no model 'huge'; choose from demo")


def test_parameters_may_be_parts_of_the_form(http: httpx.Client, client: Client, photo: Path) -> None:
    parts: Any = {"file": ("x.jpg", photo.read_bytes()), "image_id": (None, "from a form"), "priority": (None, "bulk")}
    assert http.post("/v1/images", files=parts).json()["image"]["image_id"] == "from a form"
    assert client.get("from a form").width == 600


def test_shorthands_are_the_grpc_answer(http: httpx.Client, client: Client, photo: Path) -> None:
    client.embed(photo, image_id="cup-http")
    body = {"point_coords": [[260, 130], [300, 330]], "point_labels": [1, 0], "formats": ["rle", "png"]}
    (mask,) = http.post("/v1/images/cup-http/segment", json=body).json()["results"][0]["masks"]
    expected = client.segment("cup-http", points=[(260, 130), (300, 330)], labels=[1, 0])
    assert mask["rle"] == expected.rle
    assert mask["png"]


@pytest.mark.parametrize(
    ("method", "path", "status", "said", "allowed"),
    [
        ("GET", "/v1/images/photo/segmnt", 404, "did you mean /v1/images/photo/segment?", None),
        ("GET", "/v1/model", 404, "did you mean /v1/models?", None),
        ("POST", "/sam2/segment_imag", 404, "did you mean /sam2/segment_image?", None),
        ("GET", "/zzz", 404, "/docs lists what there is", None),
        ("GET", "/v1/images/photo/segment", 405, "takes POST, not GET", "POST"),
        ("PUT", "/v1/images/photo", 405, "takes DELETE, GET, HEAD, not PUT", "DELETE, GET, HEAD"),
        ("DELETE", "/healthz", 405, "takes GET, HEAD, not DELETE", "GET, HEAD"),
    ],
)
def test_wrong_paths_and_methods(
    http: httpx.Client, method: str, path: str, status: int, said: str, allowed: str | None
) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, answer.headers.get("allow")) == (status, allowed)
    assert said in answer.json()["message"]


def test_the_api_page(http: httpx.Client, browser: Any) -> None:
    """Swagger UI, from the gateway alone, sends a request and shows its answer."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    wrong: list[str] = []
    hosts = set()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: hosts.add(httpx.URL(request.url).netloc))
    page.goto(str(http.base_url.join("/docs")))
    for path, shown in (
        ("/sam2/embed_image", '"image_id": "example"'),
        ("/v1/images/{image_id}/segment", '"counts"'),
    ):
        for link in page.locator(".opblock.is-open a.nostyle").all():
            link.click()  # closes what was tried before
        page.get_by_role("link", name=path, exact=True).click()
        page.get_by_role("button", name="Execute").click()
        page.locator(".live-responses-table").get_by_text(shown).first.wait_for()
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / "docs.png", full_page=True)
    page.get_by_role("link", name="Maskwire", exact=False).first.click()
    assert page.url == str(http.base_url.join("/"))
    context.close()
    assert (wrong, hosts) == ([], {http.base_url.netloc})


def test_stored_images_are_listed(http: httpx.Client, photo: Path) -> None:
    for index in range(3):
        named = {"image_id": f"listed/{index}", "namespace": "gallery", "stretch": "none"}
        assert http.post("/v1/images", params=named, content=photo.read_bytes()).status_code == 200
    found, token = set(), ""
    while True:
        page = {"namespace": "gallery", "prefix": "listed/", "page_size": 2, "page_token": token}
        answer = read(http.get("/v1/images", params=page), encoder_pb2.ListImagesResponse())
        found |= {image.image_id for image in answer.images}
        token = answer.next_page_token
        if not token:
            break
    assert found == {"listed/0", "listed/1", "listed/2"}
    for parameters, field in (("page_size=many", "page_size"), ("prefx=a", "prefx"), ("page_size=5000", "page_size")):
        wrong = http.get(f"/v1/images?{parameters}")
        assert (wrong.status_code, wrong.json()["field"]) == (400, field)
