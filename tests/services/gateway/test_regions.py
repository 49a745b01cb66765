"""Regions over HTTP: cut from the file that the encoder keeps of an image."""

import contextlib
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco
from websockets.sync.client import ClientConnection, connect

from testing.servers import Stack
from testing.wire import picture

SPACE = {"namespace": "http-regions"}


def test_a_region_is_cut_from_the_kept_file(http: httpx.Client) -> None:
    data = picture(51, 300, 200)
    kept = http.post("/v1/images", content=data, params={**SPACE, "keep_source": "true"}).json()["image"]
    of = {**SPACE, "region": "10,20,110,120", "region_of": kept["content_key"], "from_source": "true"}
    answer = http.post("/v1/images", params=of)
    assert answer.status_code == 200, answer.text
    assert answer.json()["image"]["region"] == {"x_min_px": 10, "y_min_px": 20, "x_max_px": 110, "y_max_px": 120}
    refused = http.post("/v1/images", params=of, content=data)
    assert (refused.status_code, refused.json()["reason"]) == (400, "BAD_SOURCE")
    not_kept = http.post("/v1/images", content=picture(52, 300, 200), params=SPACE).json()["image"]
    refused = http.post("/v1/images", params={**of, "region_of": not_kept["content_key"]})
    assert (refused.status_code, refused.json()["reason"], refused.json()["field"]) == (
        409,
        "SOURCE_NOT_KEPT",
        "from_source",
    )


def encoded(mask: NDArray[np.bool_]) -> dict[str, Any]:
    rle: Any = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def place_of(answer: dict[str, Any]) -> tuple[int, ...] | None:
    box = answer["image"].get("region")
    return tuple(int(box[side]) for side in ("x_min_px", "y_min_px", "x_max_px", "y_max_px")) if box else None


@pytest.fixture(scope="module")
def scene() -> bytes:
    """A JPEG of 1500x1000 pixels with discs of several sizes on a mottled ground."""
    random = np.random.default_rng(8)
    ground = Image.fromarray(random.integers(120, 220, (20, 30, 3), np.uint8)).resize((1500, 1000))
    pixels = np.array(ground)
    y, x = np.ogrid[:1000, :1500]
    for radius, middle_x, middle_y in ((9, 200, 150), (25, 700, 500), (60, 1200, 300), (200, 350, 750)):
        pixels[(x - middle_x) ** 2 + (y - middle_y) ** 2 < radius**2] = random.integers(0, 100, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def kept(http: httpx.Client, scene: bytes) -> str:
    answer = http.post("/v1/images", content=scene, params={**SPACE, "image_id": "scene", "keep_source": "true"})
    assert answer.status_code == 200, answer.text
    return "/v1/images/scene/segment"


def prompts() -> list[dict[str, Any]]:
    random = np.random.default_rng(9)
    places = [(200, 150), (700, 500), (1200, 300), (350, 750)]
    found: list[dict[str, Any]] = [{"points": [place], "labels": [1]} for place in places]
    for _ in range(4):
        x, y = (int(value) for value in random.uniform(0, (1500, 1000)))
        found.append({"points": [(x, y), (min(x + 15, 1499), y)], "labels": [1, int(random.integers(0, 2))]})
        side = int(2 ** random.uniform(3, 9))
        found.append({"box": (max(0, x - side), max(0, y - side), x + 1, y + 1)})
    mask = np.zeros((1000, 1500), bool)
    mask[480:520, 690:730] = True
    return [*found, {"mask": mask}, {"points": [(710, 505)], "labels": [1], "mask": mask}]


@pytest.mark.parametrize("multimask", [None, False])
def test_auto_answers_as_the_client_does(
    stack: Stack, http: httpx.Client, kept: str, scene: bytes, multimask: bool | None
) -> None:
    """The client cuts the regions itself. Masks, scores and regions are equal for all kinds of prompts."""
    regions = set()
    with stack.client(namespace=SPACE["namespace"]) as client:
        for prompt in prompts():
            body = {name: value for name, value in prompt.items() if name != "mask"}
            if "mask" in prompt:
                body["mask_rle"] = encoded(prompt["mask"])
            if multimask is not None:
                body["multimask"] = multimask
            answer = http.post(kept, json={**SPACE, **body, "candidates": "all", "region": "auto"})
            assert answer.status_code == 200, answer.text
            expected = client.segment(scene, **prompt, multimask=multimask, every=True, region="auto")
            (result,) = answer.json()["results"]
            assert place_of(answer.json()) == expected.region
            assert [mask["rle"] for mask in result["masks"]] == [each.rle for each in expected.candidates]
            assert [mask["score"] for mask in result["masks"]] == pytest.approx([x.score for x in expected.candidates])
            regions.add(expected.region)
    assert None in regions  # some see the whole picture
    assert len(regions) > 5


def test_a_region_that_is_given(stack: Stack, http: httpx.Client, kept: str, scene: bytes) -> None:
    place = (600, 400, 856, 656)
    two = [{"prompt_id": "a", "points": [(700, 500)]}, {"prompt_id": "b", "box": (650, 450, 750, 550)}]
    answer = http.post(kept, json={**SPACE, "prompts": two, "region": place, "formats": ["rle"]}).json()
    with stack.client(namespace=SPACE["namespace"]) as client:
        image = client.embed(scene)
        click = client.segment(image, points=[(700, 500)], region=place)
        box = client.segment(image, box=(650, 450, 750, 550), region=place)
    assert place_of(answer) == place
    assert [result["masks"][0]["rle"] for result in answer["results"]] == [click.rle, box.rle]
    pinned = {"content_key": answer["image"]["content_key"], "points": [(700, 500)]}
    again = http.post(kept, json={**SPACE, **pinned}).json()
    assert again["results"][0]["masks"][0]["rle"] == click.rle
    refused = http.post(kept, json={**SPACE, **pinned, "region": place})
    assert (refused.status_code, refused.json()["reason"]) == (400, "BAD_REGION")


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        ({"region": "all"}, "BAD_REGION", "region"),
        ({"region": [1, 2, 3]}, "BAD_REGION", "region"),
        ({"region": [0, 0, 1501, 10], "points": [[5, 5]]}, "BAD_REGION", "region"),
        ({"region": [0, 0, 100, 100], "points": [[500, 5]]}, "OUT_OF_REGION", "points[0][0]"),
        ({"region": "auto", "points": [[1500.5, 5]]}, "OUT_OF_IMAGE", "points[0][0]"),
        ({"region": "auto", "prompts": [{}, {}]}, "BAD_REGION", "region"),
        ({"region": "auto", "steps": [{"add_point": [4, 4]}]}, "BAD_REGION", "region"),
        ({"region": "auto", "mask_rle": {"size": [1000, 1500], "counts": "~~~"}}, "BAD_MASK_DATA", "mask_rle.counts"),
    ],
)
def test_wrong_regions(http: httpx.Client, kept: str, body: dict[str, Any], reason: str, field: str) -> None:
    refused = http.post(kept, json={**SPACE, **body})
    assert (refused.status_code, refused.json()["reason"], refused.json()["field"]) == (400, reason, field)


def test_an_image_whose_file_is_not_kept(http: httpx.Client) -> None:
    stored = http.post("/v1/images", content=picture(53, 900, 700), params=SPACE).json()["image"]
    address = f"/v1/images/{stored['image_id']}/segment"
    for region in ("auto", [0, 0, 200, 200]):
        refused = http.post(address, json={**SPACE, "points": [[50, 50]], "region": region})
        assert (refused.status_code, refused.json()["reason"], refused.json()["field"]) == (
            409,
            "SOURCE_NOT_KEPT",
            "region",
        )
    whole = http.post(address, json={**SPACE, "box": [5, 5, 890, 690], "region": "auto"}).json()
    assert place_of(whole) is None  # needs no file


def asked(socket: ClientConnection, name: str, **fields: Any) -> dict[str, Any]:
    """The answer to a frame, which must be the next one."""
    socket.send(json.dumps({"request_id": name, **fields}))
    answer: dict[str, Any] = json.loads(socket.recv(60))
    assert answer["request_id"] == name
    return answer


@contextlib.contextmanager
def opened(gateway: str, image_id: str = "scene") -> Iterator[ClientConnection]:
    with connect(f"ws{gateway[4:]}/v1/stream") as socket:
        assert "image_ready" in asked(socket, "image", set_image={**SPACE, "image_id": image_id})
        yield socket


def test_a_socket_answers_as_a_request_does(http: httpx.Client, gateway: str, kept: str) -> None:
    """Masks, scores and regions, for all kinds of prompts; what has no region is answered by the decoder's stream."""
    given = {"prompts": [{"points": [(700, 500)]}, {"box": (650, 450, 750, 550)}], "region": (600, 400, 856, 656)}
    steps = {"steps": [{"add_point": (700, 500)}, {"add_point": (720, 530)}], "region": (600, 400, 856, 656)}
    with opened(gateway) as socket:
        for prompt in [*prompts(), given, steps]:
            body = {"region": "auto", "candidates": "all", **prompt}
            if "mask" in body:
                body["mask_rle"] = encoded(body.pop("mask"))
            expected = http.post(kept, json={**SPACE, **body}).json()
            answer = asked(socket, "in a region", segment=body)["result"]
            assert place_of(answer) == place_of(expected)
            assert answer["image"] == expected["image"]
            assert [each["masks"] for each in answer["results"]] == [each["masks"] for each in expected["results"]]
        whole = {"points": [(700, 500)], "candidates": "all"}
        expected = http.post(kept, json={**SPACE, **whole}).json()
        answer = asked(socket, "of the whole", segment=whole)["result"]
        assert answer["results"][0]["masks"] == expected["results"][0]["masks"]


def test_a_socket_refuses_what_a_request_is_refused(http: httpx.Client, gateway: str, kept: str) -> None:
    wrong: list[dict[str, Any]] = [
        {"region": "all"},
        {"region": [0, 0, 1501, 10], "points": [[5, 5]]},
        {"region": [0, 0, 100, 100], "points": [[500, 5]]},
        {"region": "auto", "prompts": [{}, {}]},
        {"region": "auto", "steps": [{"add_point": [4, 4]}]},
        {"region": "auto", "mask_rle": {"size": [1000, 1500], "counts": "~~~"}},
    ]

    def told(answer: dict[str, Any]) -> tuple[str, str, str]:
        reason, *others = answer["error"]["details"]
        (violation,) = next(each["field_violations"] for each in others if "field_violations" in each)
        return reason["reason"], violation["field"], answer["error"]["message"]

    with opened(gateway) as socket:
        for body in wrong:
            refused = http.post(kept, json={**SPACE, **body}).json()
            answer = told(asked(socket, "wrong", segment=body))
            assert answer == (refused["reason"], f"segment.{refused['field']}", refused["message"])
        click = {"points": [[700, 500]], "region": "auto"}
        hover = asked(socket, "hover", segment=click, speculative=True)
        assert told(hover)[:2] == ("NOT_SPECULATIVE", "speculative")
        good = asked(socket, "good", segment=click)["result"]
        assert place_of(good) is not None
        part = good["image"]["content_key"]
        asked(socket, "part", set_image={**SPACE, "image_id": "scene", "content_key": part})
        assert told(asked(socket, "of a part", segment=click))[:2] == ("BAD_REGION", "segment.region")
        assert "error" in asked(socket, "nobody", set_image={**SPACE, "image_id": "nobody"})
        assert told(asked(socket, "of nothing", segment=click))[:2] == ("NO_IMAGE", "segment")
    with connect(f"ws{gateway[4:]}/v1/stream") as socket:
        assert told(asked(socket, "first", segment=click))[:2] == ("NO_IMAGE", "segment")
    data = http.post("/v1/images", content=picture(54, 900, 700), params=SPACE).json()["image"]
    with opened(gateway, data["image_id"]) as socket:
        refused = asked(socket, "not kept", segment={"points": [[50, 50]], "region": [0, 0, 200, 200]})
        assert told(refused)[:2] == ("SOURCE_NOT_KEPT", "segment.region")


def test_a_socket_does_not_wait_for_regions(gateway: str, kept: str) -> None:
    """Answers without a region overtake those with one, which come in their order, each for the image that was set
    when it was asked for; and all of them count as masks that were seen."""
    with opened(gateway) as socket:
        frames: list[tuple[str, dict[str, Any]]] = [
            ("a", {"segment": {"points": [[333, 444]], "region": [300, 400, 500, 600]}}),
            ("b", {"segment": {"points": [[333, 444]], "region": [301, 400, 501, 600]}}),
            ("c", {"segment": {"points": [[333, 444]]}}),
            ("d", {"set_image": {**SPACE, "image_id": "nobody"}}),
        ]
        for name, fields in frames:
            socket.send(json.dumps({"request_id": name, "masks_seen": "0", **fields}))
        answers = [json.loads(socket.recv(60)) for _ in frames]
        assert [each["request_id"] for each in answers] == ["c", "d", "a", "b"]
        assert [place_of(each["result"]) for each in answers[2:]] == [(300, 400, 500, 600), (301, 400, 501, 600)]
        asked(socket, "again", set_image={**SPACE, "image_id": "scene"})
        socket.send(json.dumps({"masks_seen": "3"}))  # one of them the decoder's
        hovers = [{"segment": {"points": [[30 + number, 44]]}, "speculative": True} for number in range(3)]
        for hover in hovers[:2]:
            assert "result" in asked(socket, "hover", **hover)
        socket.send(json.dumps({"request_id": "last", **hovers[2]}))  # waits while two masks of the decoder are unseen
        with pytest.raises(TimeoutError):
            socket.recv(0.5)
        socket.send(json.dumps({"masks_seen": "4"}))
        answer = json.loads(socket.recv(60))
        assert answer["request_id"] == "last"
        assert "result" in answer


def test_the_description_has_it(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    body = paths["/v1/images/{image_id}/segment"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["region"]["anyOf"][0] == {"const": "auto"}


def test_the_client_needs_no_picture_where_the_file_is_kept(stack: Stack, scene: bytes) -> None:
    place = {"namespace": "client-regions"}
    with stack.client(**place) as sender, stack.client(**place) as other:
        sender.embed(scene, image_id="kept", keep_source=True)
        found = other.segment(image_id="kept", points=[(700, 500)], region="auto")
        expected = sender.segment(scene, points=[(700, 500)], region="auto")
        assert found.region == expected.region is not None
        assert found.best.rle == expected.best.rle
        with other.session("kept", region="auto") as session:
            assert session.click(700, 500).region == expected.region
        boxes = other.segment_objects("kept", boxes=[(690, 490, 710, 510), (10, 10, 1490, 990)], region="auto")
        assert [each.region is None for each in boxes] == [False, True]
