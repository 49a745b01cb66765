"""Regions of images: embedded once, found again, and deleted with their image."""

import io
from typing import Any

import grpc
import numpy as np
import pytest
import redis
from maskwire import Client, InvalidRequest
from maskwire.v1 import types_pb2
from maskwire.v1.decoder_pb2 import SegmentRequest
from numpy.typing import NDArray
from PIL import Image

from testing.processes import wait_until
from testing.servers import Stack
from testing.wire import details, frames, picture

PLACE = (40, 20, 296, 276)


@pytest.fixture
def scene() -> NDArray[np.uint8]:
    """A large picture with a small dark disc at (700, 500)."""
    pixels = np.full((800, 1200, 3), 190, np.uint8)
    y, x = np.ogrid[:800, :1200]
    pixels[(x - 700) ** 2 + (y - 500) ** 2 < 20**2] = 40, 60, 110
    return pixels


def test_a_region_is_embedded_once_and_shared(stack: Stack, scene: NDArray[np.uint8]) -> None:
    with stack.client(namespace="regions") as client, stack.client(namespace="regions") as other:
        image = client.embed(scene, image_id="scene")
        first = client.segment(image, points=[(100, 100)], region=PLACE)
        assert (first.cached, first.region, first.content_key != image.content_key) == (False, PLACE, True)
        assert first.overlay().size == (1200, 800)
        again = client.segment(image, points=[(100, 100)], region=np.array(PLACE))
        assert again.cached
        assert again == first
        assert other.segment(scene, points=[(100, 100)], region=PLACE).content_key == first.content_key
        # Equal pixels elsewhere are another region.
        beside = client.segment(image, points=[(100, 100)], region=(41, 20, 297, 276))
        assert beside.content_key != first.content_key
        assert {each.region for each in client.images()} == {None}  # no names of their own


def test_regions_are_deleted_with_their_image(stack: Stack, decoder: Any, scene: NDArray[np.uint8]) -> None:
    with stack.client(namespace="deleted-regions") as client, redis.Redis.from_url(stack.redis_url) as raw:
        image = client.embed(scene, image_id="scene")
        region = client.segment(image, points=[(100, 100)], region=PLACE)
        request = SegmentRequest(image_id="scene", namespace="deleted-regions", content_key=region.content_key)
        assert decoder.Segment(request).image.region.x_min_px == PLACE[0]
        assert raw.keys(f"maskwire:*{{deleted-regions/{region.content_key}}}")
        client.delete("scene", embedding=True)
        assert not raw.keys("maskwire:[^d]*deleted-regions*")
        wait_until(lambda: _is_gone(decoder, request))  # the decoder looks twice a second
        # The client has the picture, and embeds both again.
        assert not client.segment(scene, points=[(100, 100)], region=PLACE).cached
        assert not _is_gone(decoder, request)


def _is_gone(decoder: Any, request: SegmentRequest) -> bool:
    try:
        decoder.Segment(request)
    except grpc.RpcError as error:
        return details(error)[1] == "EMBEDDING_EXPIRED"
    return False


def test_a_region_without_its_images_list_is_no_region(stack: Stack, scene: NDArray[np.uint8]) -> None:
    """A store short of memory may drop the list that ties regions to their image: they are embedded again then."""
    with stack.client(namespace="untied") as client, redis.Redis.from_url(stack.redis_url) as raw:
        image = client.embed(scene)
        first = client.segment(image, points=[(100, 100)], region=PLACE)
        raw.delete(f"maskwire:regions:{{untied/{image.content_key}}}")
        with stack.client(namespace="untied") as other:
            assert not other.segment(scene, points=[(100, 100)], region=PLACE).cached
        raw.delete(f"maskwire:embedding:{{untied/{image.content_key}}}")
        with stack.client(namespace="untied") as other:
            other.embed(scene)  # a client that believes in the image embeds it again, too
            raw.delete(f"maskwire:embedding:{{untied/{image.content_key}}}")
            assert other.segment(scene, points=[(90, 90)], region=(0, 0, 200, 200)).region == (0, 0, 200, 200)
        assert client.segment(image, points=[(100, 100)], region=PLACE) == first


def test_auto_looks_closely_at_small_objects(stack: Stack, scene: NDArray[np.uint8]) -> None:
    with stack.client(namespace="auto") as client:
        box = (678, 478, 722, 522)
        result = client.segment(scene, box=box, region="auto")
        left, top, right, bottom = result.region
        assert right - left == bottom - top == 192
        assert left < 650 < 750 < right
        clicked = client.segment(scene, points=[(700, 500)], region="auto")
        assert clicked.region is not None
        assert clicked == client.segment(scene, points=[(700, 500)], region=clicked.region)
        y, x = np.ogrid[:800, :1200]
        disc = (x - 700) ** 2 + (y - 500) ** 2 < 20**2
        assert np.count_nonzero(clicked.mask & disc) > 0.8 * np.count_nonzero(clicked.mask | disc)
        whole, small = client.segment_objects(scene, boxes=[(10, 10, 1100, 790), box], region="auto")
        assert (whole.region, small.region) == (None, result.region)
        assert small == result
        with pytest.raises(InvalidRequest, match="logits belong"):
            client.segment(scene, mask=result.logits, region="auto")


def test_a_session_looks_closely_at_small_objects(stack: Stack, scene: NDArray[np.uint8]) -> None:
    with stack.client(namespace="auto") as client, client.session(scene, region="auto") as session:
        first = session.click(700, 500)
        plain = client.segment(scene, points=[(700, 500)], region="auto")
        assert first.region == plain.region is not None
        assert first.best.rle == plain.best.rle
        second = session.click(706, 504)
        assert second.region == first.region
        assert session.undo() == first
        hovered = session.hover(706, 504)
        assert (hovered.region, hovered.is_preview) == (None, True)
        session.new_object()
        assert session.box(10, 10, 1100, 790).region is None
    with stack.client(namespace="auto") as other, pytest.raises(InvalidRequest, match="has not seen"):
        other.session(first.image_id, region="auto").click(700, 500)


def test_wrong_regions_are_refused_by_name(client: Client, encoder: Any, scene: NDArray[np.uint8]) -> None:
    image = client.embed(scene)
    for region in ("all", (1, 2, 3), (5, 5, 5, 9), (0.5, 0, 9, 9), (-1, 0, 9, 9), (0, 0, 1201, 9)):
        with pytest.raises(InvalidRequest) as caught:
            client.segment(image, points=[(3, 3)], region=region)  # type: ignore[arg-type]
        assert (caught.value.reason, caught.value.field) == ("BAD_REGION", "region")
    with pytest.raises(InvalidRequest) as caught:
        client.segment(image, points=[(300, 100)], region=PLACE)
    assert (caught.value.reason, caught.value.field) == ("OUT_OF_REGION", "points[0]")
    with pytest.raises(InvalidRequest, match="segment_objects"):
        client.everything(image, region="auto")
    data = picture(7)  # 60x40

    def refused(**fields: Any) -> tuple[str, str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            encoder.EncodeImage(frames(data, **fields))
        return details(caught.value)

    def box(*sides: float) -> types_pb2.Box:
        return types_pb2.Box(**dict(zip(("x_min_px", "y_min_px", "x_max_px", "y_max_px"), sides, strict=True)))

    of = {"region_of": image.content_key}
    bad = ("INVALID_ARGUMENT", "BAD_REGION", "header.region")
    assert refused(region=box(0, 0, 60, 40)) == bad
    assert refused(**of) == bad
    assert refused(region=box(0, 0, 59, 40), **of) == bad
    assert refused(region=box(0, 0, 60, 40.5), **of) == bad
    assert refused(region=box(1160, 0, 1220, 40), **of) == bad
    assert refused(region=box(0, 0, 60, 40), region_of="b" * 64)[:2] == ("NOT_FOUND", "EMBEDDING_EXPIRED")
    assert refused(region=box(0, 0, 60, 40), region_of="b")[1:] == ("BAD_CONTENT_KEY", "header.region_of")
    part = encoder.EncodeImage(frames(data, region=box(0, 0, 60, 40), **of)).image
    assert (part.width_px, part.height_px, part.image_id) == (1200, 800, "")
    assert refused(region=box(0, 0, 60, 40), region_of=part.content_key) == bad


def test_regions_over_http(http: Any, scene: NDArray[np.uint8]) -> None:
    def png(pixels: NDArray[np.uint8]) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    kind = {"content-type": "image/png"}
    whole = http.post("/v1/images?image_id=scene-http", content=png(scene), headers=kind).json()["image"]
    query = {"region": "600,400,800,600", "region_of": whole["content_key"]}
    answer = http.post("/v1/images", params=query, content=png(scene[400:600, 600:800]), headers=kind)
    part = answer.json()["image"]
    assert (part["width_px"], part["region"]["x_min_px"]) == (1200, 600)
    asked = {"box": [678, 478, 722, 522], "content_key": part["content_key"]}
    answer = http.post("/v1/images/scene-http/segment", json=asked).json()
    assert answer["results"][0]["masks"][0]["rle"]["size"] == [800, 1200]
    assert answer["image"]["region"]["x_max_px"] == 800
    wrong = http.post("/v1/images", params={**query, "region": "1,2,3"}, content=b"x", headers=kind)
    assert (wrong.status_code, wrong.json()["reason"]) == (400, "BAD_PARAMETER")
