"""What Roboflow's server does beside clicks: its models and state, code for SAM 3, wrong prompts among good ones."""

import asyncio
import io
import uuid
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from inference_sdk import InferenceHTTPClient
from inference_sdk.http.errors import HTTPCallErrorError
from maskwire import Client, __version__
from PIL import Image
from pycocotools import mask as coco

from testing.servers import Stack, running_gateway
from testing.wire import as_base64

CLICK = {"points": [{"x": 260, "y": 130, "positive": True}]}
OUTSIDE = {"points": [{"x": 9999, "y": 130, "positive": True}]}
FLAT = {"box": {"x": 300, "y": 200, "width": 0, "height": 40}}
NAMES = ["demo", "sam2/hiera_tiny"]


@pytest.fixture(scope="module")
def sdk(gateway: str) -> InferenceHTTPClient:
    return InferenceHTTPClient(api_url=gateway)


@pytest.mark.client("inference-sdk", "`get_server_info`")
def test_the_server_says_what_it_is(sdk: InferenceHTTPClient, http: httpx.Client) -> None:
    info = sdk.get_server_info()
    assert (info.name, info.version) == ("Maskwire", __version__)
    assert str(uuid.UUID(info.uuid)) == info.uuid == sdk.get_server_info().uuid
    assert http.get("/healthz").json() == {"status": "healthy"}
    assert http.get("/readiness").json() == {"status": "ready"}


@pytest.mark.client(
    "inference-sdk",
    "`list_loaded_models`, `load_model`, `get_model_description`, `unload_model`, `unload_all_models`, sync and async",
    works="yes; the encoder's settings say which models there are, and nothing is loaded or removed",
)
def test_models_as_the_sdk_manages_them(sdk: InferenceHTTPClient) -> None:
    def ids(models: Any) -> list[str]:
        return [model.model_id for model in models.models]

    assert ids(sdk.list_loaded_models()) == ["demo"]
    loaded = sdk.load_model("sam2/hiera_tiny", set_as_default=True)
    assert (ids(loaded), sdk.selected_model) == (NAMES, "sam2/hiera_tiny")
    found = sdk.get_model_description("sam2/hiera_tiny")
    assert (found.task_type, found.input_height, found.input_width) == ("unsupervised-segmentation", 512, 512)
    assert ids(sdk.unload_model("sam2/hiera_tiny")) == ["demo"]
    assert sdk.selected_model is None
    assert ids(sdk.unload_all_models()) == ["demo"]

    async def all_again() -> list[list[str]]:
        return [
            ids(await sdk.list_loaded_models_async()),
            ids(await sdk.load_model_async("sam2/hiera_tiny")),
            ids(await sdk.unload_model_async("sam2/hiera_tiny")),
            ids(await sdk.unload_all_models_async()),
        ]

    assert asyncio.run(all_again()) == [["demo"], NAMES, ["demo"], ["demo"]]


def test_models_that_there_are_not(sdk: InferenceHTTPClient, http: httpx.Client) -> None:
    with pytest.raises(HTTPCallErrorError, match="did you mean 'hiera_tiny'"):
        sdk.load_model("hiera_tny")
    answer = http.post("/model/add", json={"model": "demo"})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "model"])


# Prompts


@pytest.mark.client("inference-sdk", "`sam2_segment_image_async`, several at once; lists of pictures")
def test_pictures_at_once_and_in_lists(sdk: InferenceHTTPClient, photo: Path) -> None:
    options: dict[str, Any] = {"prompts": [CLICK], "mask_input_format": "rle"}
    expected = sdk.sam2_segment_image(str(photo), **options)["predictions"]

    async def at_once() -> list[Any]:
        return await asyncio.gather(*(sdk.sam2_segment_image_async(str(photo), **options) for _ in range(8)))

    both = sdk.sam2_segment_image([str(photo), str(photo)], **options)
    assert [one["predictions"] for one in (*asyncio.run(at_once()), *both)] == [expected] * 10


def test_wrong_prompts_cost_the_others_nothing(http: httpx.Client, encoded: dict[str, str]) -> None:
    def segment(prompts: list[Any], form: str) -> httpx.Response:
        answer = http.post("/sam2/segment_image", json={"image": encoded, "prompts": prompts, "format": form})
        assert answer.status_code == 200, answer.text
        return answer

    for form, empty in (("json", [[]]), ("rle", None)):
        (good,) = segment([CLICK], form).json()["predictions"]
        first, second, third = segment([OUTSIDE, CLICK, FLAT], form).json()["predictions"]
        assert second == good
        assert (first["confidence"], third["confidence"]) == (0, 0)
        assert "prompts[0].points[0].x: 9999 is outside" in first["error"]
        assert third["error"].startswith("prompts[2].box.width: 0; a box has a width")
        if empty:
            assert first["masks"] == third["masks"] == empty
        else:
            assert first["masks"]["size"] == [400, 600]
            assert coco.decode({**first["masks"], "counts": first["masks"]["counts"].encode()}).sum() == 0
    with np.load(io.BytesIO(segment([CLICK], "binary").content)) as arrays:
        good, low = arrays["masks"], arrays["low_res_masks"]
    with np.load(io.BytesIO(segment([OUTSIDE, CLICK], "binary").content)) as arrays:
        np.testing.assert_array_equal(arrays["masks"][1], good[0])
        np.testing.assert_array_equal(arrays["low_res_masks"][1], low[0])
        assert (arrays["masks"][0] == -32).all()


@pytest.mark.parametrize("kind", ["GIF", "JPEG2000"])
def test_formats_that_the_other_server_reads(http: httpx.Client, client: Client, photo: Path, kind: str) -> None:
    file = io.BytesIO()
    with Image.open(photo) as image:
        image.save(file, kind)
    picture = {**as_base64(file.getvalue()), "type": "BASE64"}
    answer = http.post("/sam2/segment_image", json={"image": picture, "prompts": [CLICK], "format": "rle"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][0]["masks"] == client.segment(file.getvalue(), points=[(260, 130)]).rle


# Code for SAM 3


@pytest.mark.client(
    "inference-sdk", "`sam3_visual_segment`, `sam3_embed_image`, sync and async", works="yes, answered by SAM 2"
)
def test_clicks_and_boxes_of_code_for_sam_3(sdk: InferenceHTTPClient, photo: Path) -> None:
    expected = sdk.sam2_segment_image(str(photo), prompts=[CLICK])
    found = sdk.sam3_visual_segment(str(photo), prompts=[CLICK])
    assert found["predictions"] == expected["predictions"]
    assert found.keys() == expected.keys()
    again = asyncio.run(sdk.sam3_visual_segment_async(str(photo), prompts=[CLICK], mask_input_format="rle"))
    assert again["predictions"][0]["format"] == "rle"
    assert sdk.sam3_embed_image(str(photo), image_id="of sam3")["image_id"] == "of sam3"


@pytest.mark.client(
    "inference-sdk", "`sam3_concept_segment`", works="refused with a reason: SAM 2 finds nothing by words"
)
def test_concepts_in_words_are_refused(sdk: InferenceHTTPClient, http: httpx.Client, photo: Path) -> None:
    text = {"type": "text", "text": "cup"}
    for refused in (
        lambda: sdk.sam3_visual_segment(str(photo), prompts=[text]),
        lambda: sdk.sam3_concept_segment(str(photo), prompts=[text]),
    ):
        with pytest.raises(HTTPCallErrorError, match="prompts of text need SAM 3"):
            refused()
    answer = http.post("/sam3/concept_segment", json={"prompts": [text]})
    assert (answer.status_code, answer.json()["reason"]) == (400, "NO_TEXT_PROMPTS")


def test_sam_3_where_other_models_are_refused(stack: Stack, encoded: dict[str, str]) -> None:
    with running_gateway(stack, "--other-model", "refuse", "--origins", "https://app.example") as (address, _):

        def post(path: str, **options: Any) -> httpx.Response:
            return httpx.post(f"{address}{path}", json={"image": encoded, "prompts": [CLICK]} | options, timeout=60)

        answer = post("/sam3/visual_segment")
        assert (answer.status_code, answer.json()["reason"]) == (404, "MODEL_NOT_FOUND")
        assert post("/sam3/visual_segment", model_id="demo").status_code == 200

        # A page of another origin, as a browser asks for it: by a preflight, also from the internet to a LAN.
        origin = {"Origin": "https://app.example"}
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        private = {"Access-Control-Request-Private-Network": "true"}
        preflight = httpx.options(f"{address}/sam2/segment_image", headers=origin | asked | private)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == origin["Origin"]
        assert preflight.headers["access-control-allow-private-network"] == "true"
        body = {"image": encoded, "prompts": [CLICK], "model_id": "demo"}
        answer = httpx.post(f"{address}/sam2/segment_image", headers=origin, json=body)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin["Origin"])
        assert "X-Maskwire-Model" in answer.headers["access-control-expose-headers"]
        stranger = httpx.post(f"{address}/sam2/segment_image", headers={"Origin": "https://evil.example"}, json=body)
        assert (stranger.status_code, stranger.json()["reason"]) == (403, "BAD_ORIGIN")
