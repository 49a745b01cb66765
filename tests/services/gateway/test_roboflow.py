"""/sam2: every field and default of the interface, and its unmodified client."""

import base64
import io
import json
import time
from pathlib import Path
from typing import Any

import cv2
import grpc
import httpx
import numpy as np
import pytest
import torch
from inference_sdk import InferenceHTTPClient
from maskwire import Client, Prompt
from maskwire.v1 import encoder_pb2, encoder_pb2_grpc
from numpy.typing import NDArray
from pycocotools import mask as coco

from testing.reference.predictor import random_prompt
from testing.servers import Stack, running_gateway
from testing.web_server import Web
from testing.wire import as_base64, picture

POINTS = {"points": [{"x": 260, "y": 130, "positive": True}, {"x": 300, "y": 330, "positive": False}]}
BOX = {"box": {"x": 317.5, "y": 192.5, "width": 365, "height": 305}}  # 135, 40, 500, 345
BOTH = {**POINTS, **BOX}
IDENTITY = ("inference_id", "frame_id", "resolved_model")


def segment(http: httpx.Client, **body: Any) -> Any:
    answer = http.post("/sam2/segment_image", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def decoded(masks: Any) -> NDArray[np.bool_]:
    return np.asarray(coco.decode({"size": masks["size"], "counts": masks["counts"].encode()})).astype(bool)


def outline(mask: NDArray[np.bool_]) -> list[list[list[int]]]:
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour[:, 0].tolist() for contour in found] or [[]]


# The unmodified client


@pytest.mark.client("inference-sdk", "`sam2_segment_image`: points, boxes, both, none; RLE and polygons")
@pytest.mark.parametrize("prompt", [POINTS, BOX, BOTH, None], ids=["points", "box", "both", "none"])
def test_inference_sdk_gets_the_masks_of_the_grpc_client(
    gateway: str, client: Client, photo: Path, prompt: dict[str, Any] | None
) -> None:
    sdk = InferenceHTTPClient(api_url=gateway, api_key="whatever")
    prompts = None if prompt is None else [prompt]
    arguments: dict[str, Any] = {}
    if prompt and "points" in prompt:
        arguments |= {"points": [(260, 130), (300, 330)], "labels": [1, 0]}
    if prompt and "box" in prompt:
        arguments["box"] = (135, 40, 500, 345)
    for multimask in (True, False):
        # The client sends its own JPEG of the picture: what arrives is what counts.
        answer = sdk.sam2_segment_image(
            str(photo), prompts=prompts, multimask_output=multimask, mask_input_format="rle"
        )
        expected = client.segment(sent_by_the_sdk(photo), multimask=multimask, **arguments)
        (prediction,) = answer["predictions"]
        assert prediction["format"] == "rle"
        assert prediction["masks"] == expected.rle
        assert prediction["confidence"] == pytest.approx(expected.score, abs=1e-6)
        assert isinstance(answer["time"], float)
        answer = sdk.sam2_segment_image(str(photo), prompts=prompts, multimask_output=multimask)
        (prediction,) = answer["predictions"]
        assert prediction["format"] == "polygon"
        assert prediction["masks"] == outline(expected.mask)


def sent_by_the_sdk(photo: Path) -> bytes:
    from inference_sdk.http.utils.loaders import load_static_inference_input

    ((value, _),) = load_static_inference_input(str(photo))
    return base64.b64decode(value)


@pytest.mark.client("inference-sdk", "`sam2_segment_image` again on the same picture, warm")
def test_the_second_call_on_a_picture_encodes_and_decodes_nothing(gateway: str, stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "new.png"
    path.write_bytes(picture(int(time.time()), 300, 200))
    sdk = InferenceHTTPClient(api_url=gateway)
    with stack.client() as client:

        def load() -> tuple[int, int]:
            response = client_load(stack)
            return response.encoded, response.batches

        before, seen = load(), images(gateway)
        first = sdk.sam2_segment_image(str(path), prompts=[{"points": [{"x": 20, "y": 30, "positive": True}]}])
        assert load()[0] == before[0] + 1
        after = load()
        again = sdk.sam2_segment_image(str(path), prompts=[{"points": [{"x": 20, "y": 30, "positive": True}]}])
        sdk.sam2_segment_image(str(path), prompts=[{"points": [{"x": 120, "y": 30, "positive": True}]}])
        assert load() == after
        assert again["predictions"] == first["predictions"]
        assert images(gateway) == (seen[0] + 1, seen[1] + 2)
        timings = client.embed(sent_by_the_sdk(path)).timings  # by digest: nothing was received or read
        assert not timings.keys() & {"receive_ms", "read_ms", "encode_ms"}


def client_load(stack: Stack) -> encoder_pb2.GetLoadResponse:
    with grpc.insecure_channel(stack.encoder) as channel:
        return encoder_pb2_grpc.EncoderServiceStub(channel).GetLoad(encoder_pb2.GetLoadRequest())


def images(gateway: str) -> tuple[float, float]:
    """Images that the gateway was sent: encoded, and cached."""
    found = dict(
        line.rsplit(" ", 1) for line in httpx.get(f"{gateway}/metrics").text.splitlines() if not line.startswith("#")
    )
    name = "maskwire_gateway_images_total"
    return tuple(float(found.get(f'{name}{{cached="{cached}"}}', 0)) for cached in ("false", "true"))  # type: ignore[return-value]


# Fields and defaults


def test_embed_image(http: httpx.Client, client: Client, encoded: dict[str, str], photo: Path) -> None:
    answer = http.post("/sam2/embed_image", json={"image": encoded, "image_id": "cup-1"})
    assert answer.status_code == 200
    body = answer.json()
    assert {"inference_id": None, "frame_id": None, "resolved_model": None}.items() <= body.items()
    assert set(body) == {"image_id", "time", *IDENTITY}
    assert body["image_id"] == "cup-1"
    assert 0 < body["time"] < 60
    assert float(answer.headers["x-processing-time"]) == pytest.approx(body["time"], abs=1e-5)
    assert answer.headers["x-maskwire-model"] == "demo"
    stored = client.get("cup-1")
    assert (stored.width, stored.height) == (600, 400)
    # Without a name one is issued, the same for the same picture; a known name needs no image.
    issued = [http.post("/sam2/embed_image", json={"image": encoded, "image_id": None}).json() for _ in range(2)]
    assert issued[0]["image_id"] == issued[1]["image_id"] != ""
    assert client.get(issued[0]["image_id"]).content_key == stored.content_key
    known = http.post("/sam2/embed_image", json={"image": None, "image_id": "cup-1"})
    assert known.json()["image_id"] == "cup-1"
    # A name that is used again means the new image.
    other = picture(3, 61, 47)
    http.post("/sam2/embed_image", json={"image": as_base64(other), "image_id": "cup-1"})
    assert client.get("cup-1").width == 61
    answer = http.post("/sam2/segment_image", json={"image_id": "cup-1", "prompts": None, "format": "rle"})
    assert answer.json()["predictions"][0]["masks"]["size"] == [47, 61]


FORMS: dict[str, tuple[dict[str, Any], list[Prompt]]] = {
    "absent": ({}, [Prompt()]),
    "null": ({"prompts": None}, [Prompt()]),
    "null set": ({"prompts": {"prompts": None}}, [Prompt()]),
    "empty set": ({"prompts": {}}, [Prompt()]),
    "empty list": ({"prompts": {"prompts": []}}, [Prompt()]),
    "empty prompt": ({"prompts": {"prompts": [{}]}}, [Prompt()]),
    "null parts": ({"prompts": [{"points": None, "box": None}]}, [Prompt()]),
    "set": (
        {"prompts": {"prompts": [POINTS, BOX]}},
        [Prompt([(260, 130), (300, 330)], [1, 0]), Prompt(box=(135, 40, 500, 345))],
    ),
    "list": (
        {"prompts": [BOTH, {}]},
        [Prompt([(260, 130), (300, 330)], [1, 0], (135, 40, 500, 345)), Prompt()],
    ),
    "one": ({"prompts": POINTS}, [Prompt([(260, 130), (300, 330)], [1, 0])]),
    "old": ({"point_coords": [[380, 350]], "point_labels": [1]}, [Prompt([(380, 350)])]),
    "old, two": (
        {"point_coords": [[380, 350], [10.5, 20]], "point_labels": [1, 0]},
        [Prompt([(380, 350), (10.5, 20)], [1, 0])],
    ),
    "old without labels": ({"point_coords": [[380, 350]]}, [Prompt([(380, 350)])]),
    "box beyond the image": (
        {"prompts": [{"box": {"x": 595, "y": 395.5, "width": 20, "height": 100}}]},
        [Prompt(box=(585, 345.5, 600, 400))],
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_prompts(http: httpx.Client, client: Client, encoded: dict[str, str], photo: Path, name: str) -> None:
    body, prompts = FORMS[name]
    found = segment(http, image=encoded, format="rle", **body)["predictions"]
    expected = client.segment_objects(photo, prompts)
    assert [one["masks"] for one in found] == [one.rle for one in expected]
    assert [one["confidence"] for one in found] == pytest.approx([one.score for one in expected])


def test_defaults_and_ignored_fields(http: httpx.Client, client: Client, encoded: dict[str, str], photo: Path) -> None:
    plain = segment(http, image=encoded, prompts=[POINTS])
    full = http.post(
        "/sam2/segment_image?api_key=k&countinference=false&service_secret=s",
        json={
            "id": None,
            "api_key": None,
            "sam2_version_id": "hiera_large",
            "model_id": None,
            "image": encoded,
            "image_id": None,
            "format": "json",
            "prompts": {"prompts": [POINTS]},
            "multimask_output": True,
            "save_logits_to_cache": False,
            "load_logits_from_cache": False,
            "disable_preproc_auto_orient": True,
            "usage_billable": 3,
        },
    )
    assert full.status_code == 200
    assert full.json()["predictions"] == plain["predictions"]
    assert set(plain) == {"predictions", "time", *IDENTITY}
    (prediction,) = plain["predictions"]
    assert set(prediction) == {"masks", "confidence", "format"}
    points, labels = [(260, 130), (300, 330)], [1, 0]
    assert prediction["masks"] == outline(client.segment(photo, points=points, labels=labels).mask)
    (single,) = segment(http, image=encoded, prompts=[POINTS], multimask_output=False, format="rle")["predictions"]
    assert single["masks"] == client.segment(photo, points=points, labels=labels, multimask=False).rle
    # The media type is not looked at; data URIs and line breaks in base64 are fine.
    wrapped = base64.encodebytes(photo.read_bytes()).decode()
    for value in (f"data:image/jpeg;base64,{encoded['value']}", wrapped, encoded["value"].replace("+", "-")):
        body = {"image": {"type": "base64", "value": value}, "prompts": [POINTS]}
        answer = http.post("/sam2/segment_image", content=json.dumps(body), headers={"content-type": "text/plain"})
        assert answer.json()["predictions"] == plain["predictions"]


def test_polygons_are_outer_contours_only(
    http: httpx.Client, client: Client, encoded: dict[str, str], photo: Path
) -> None:
    random = np.random.default_rng(7)
    rings = 0
    for _ in range(25):
        prompt = random_prompt(random, "points", 600, 400)
        points = [
            {"x": x, "y": y, "positive": bool(label)}
            for (x, y), label in zip(prompt["points"], prompt["labels"], strict=True)
        ]
        (found,) = segment(http, image=encoded, prompts=[{"points": points}])["predictions"]
        result = client.segment(photo, outputs=("rle", "polygons"), **prompt)
        assert found["masks"] == outline(result.mask)
        assert all(isinstance(value, int) for polygon in found["masks"] for point in polygon for value in point)
        rings += len(result.best.contours) > len(found["masks"])
    assert rings  # some had holes


def test_an_empty_mask_is_one_empty_polygon(http: httpx.Client) -> None:
    # On noise the demo model finds nothing prominent.
    for seed in range(40):
        image = as_base64(picture(seed, 61, 47))
        (rle,) = segment(http, image=image, format="rle")["predictions"]
        if not decoded(rle["masks"]).any():
            (found,) = segment(http, image=image)["predictions"]
            assert found["masks"] == [[]]
            return
    pytest.fail("no mask was empty")


def test_binary_is_what_sam2_returns(http: httpx.Client, client: Client, encoded: dict[str, str], photo: Path) -> None:
    prompts = [POINTS, BOX, {}]
    answer = http.post("/sam2/segment_image", json={"image": encoded, "prompts": prompts, "format": "binary"})
    assert answer.headers["content-type"] == "application/octet-stream"
    assert float(answer.headers["x-processing-time"]) > 0
    with np.load(io.BytesIO(answer.content)) as arrays:
        masks, low = arrays["masks"], arrays["low_res_masks"]
    assert (masks.dtype, masks.shape) == (np.float32, (3, 400, 600))
    assert (low.dtype, low.shape) == (np.float32, (3, 128, 128))  # a quarter of the demo model's 512
    expected = client.segment_objects(
        photo,
        [Prompt([(260, 130), (300, 330)], [1, 0]), Prompt(box=(135, 40, 500, 345)), Prompt()],
        outputs=("rle", "logits"),
        logits_dtype="float32",
    )
    raw = client.segment_objects(
        photo,
        [Prompt([(260, 130), (300, 330)], [1, 0]), Prompt(box=(135, 40, 500, 345)), Prompt()],
        outputs=("logits",),
        logits_dtype="float32",
        unclamped_logits=True,
    )
    for index, result in enumerate(expected):
        np.testing.assert_array_equal(low[index], result.logits)
        np.testing.assert_array_equal(masks[index] > 0, result.mask)
        # The interface says >= 0 and Maskwire's masks are > 0: no pixel is exactly 0.
        np.testing.assert_array_equal(masks[index] >= 0, result.mask)
        sample = torch.from_numpy(raw[index].logits)[None, None]
        full = torch.nn.functional.interpolate(sample, (400, 600), mode="bilinear", align_corners=False)
        np.testing.assert_array_equal(masks[index], full[0, 0].numpy())


def test_logits_are_saved_and_refined(http: httpx.Client, client: Client, photo: Path) -> None:
    image = as_base64(photo.read_bytes() + b"\0")  # its own saved logits
    one = {"points": POINTS["points"][:1]}
    plain = segment(http, image=image, prompts=[POINTS], format="rle")["predictions"]
    asked = {"image": image, "format": "rle", "load_logits_from_cache": True}
    assert segment(http, prompts=[POINTS], **asked)["predictions"] == plain  # nothing is saved yet
    segment(http, image=image, prompts=[one], save_logits_to_cache=True)
    refined = segment(http, prompts=[POINTS], **asked)["predictions"]
    data = photo.read_bytes() + b"\0"
    first = client.segment(data, points=[(260, 130)], outputs=("logits",), logits_dtype="float32")
    expected = client.segment(data, points=[(260, 130), (300, 330)], labels=[1, 0], mask=first.logits)
    assert refined[0]["masks"] == expected.rle
    assert refined != plain
    # The logits go to the prompt that they came from, whatever else is asked; boxes count by all four sides.
    both = segment(http, prompts=[BOX, POINTS], **asked)["predictions"]
    assert both[1] == refined[0]
    assert both[0]["masks"] == client.segment(data, box=(135, 40, 500, 345)).rle


# The how-to


def test_the_published_how_tos_snippets(
    stack: Stack, client: Client, photo: Path, web: Web, encoded: dict[str, str]
) -> None:
    """Both send type base64 with a URL as value; the second asks embed_image with points, as the how-to prints it."""
    web.files["/Q6lDy8B.jpg"] = photo.read_bytes()
    url = f"http://localhost:{web.port}/Q6lDy8B.jpg"
    with running_gateway(stack, "--urls", "true", "--url-hosts", f"localhost:{web.port}") as (base_url, _):
        for image in ({"type": "base64", "value": url}, {"type": "url", "value": url}, encoded):
            payload: dict[str, Any] = {"image": image, "image_id": "example_image_id"}
            answer = httpx.post(f"{base_url}/sam2/embed_image?api_key=YOUR ROBOFLOW API KEY", json=payload)
            assert answer.status_code == 200
            assert answer.json()["image_id"] == "example_image_id"
            payload |= {"point_coords": [[380, 350]], "point_labels": [1]}
            answer = httpx.post(f"{base_url}/sam2/embed_image?api_key=YOUR ROBOFLOW API KEY", json=payload)
            assert answer.json()["image_id"] == "example_image_id"
            answer = httpx.post(f"{base_url}/sam2/segment_image?api_key=YOUR ROBOFLOW API KEY", json=payload)
            (prediction,) = answer.json()["predictions"]
            assert prediction["masks"] == outline(client.segment(photo, points=[(380, 350)]).mask)
            del payload["image"]
            answer = httpx.post(f"{base_url}/sam2/segment_image", json=payload)
            assert answer.json()["predictions"] == [prediction]


def test_what_integration_tests_of_others_call(http: httpx.Client) -> None:
    assert http.get("/").is_success
    assert http.post("/model/clear").is_success
