"""How regions are chosen."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskwire.errors import InvalidRequest
from maskwire.exports import bounding_box
from maskwire.prompts import Prompt
from maskwire.regions import Place, box_of, check_region, choose_region, choose_regions
from maskwire.v1 import types_pb2
from pycocotools import mask as coco


@given(st.integers(1, 6000), st.integers(1, 6000), st.tuples(*[st.floats(0, 1)] * 4))
def test_a_region_holds_its_object_and_lies_in_the_image(
    width: int, height: int, corners: tuple[float, float, float, float]
) -> None:
    x, y = np.sort(corners[:2]) * width, np.sort(corners[2:]) * height
    region = choose_region(width, height, np.array([x[0], y[0], x[1], y[1]]))
    if region is None:
        assert max(x[1] - x[0], y[1] - y[0], 100) > max(width, height) * 0.24
        return
    left, top, right, bottom = region
    assert 0 <= left <= x[0] <= x[1] <= right <= width
    assert 0 <= top <= y[0] <= y[1] <= bottom <= height
    side = max(right - left, bottom - top)
    assert side == 192 or 2 <= side / max(x[1] - x[0], y[1] - y[0]) < 2.9
    assert side <= 0.7 * max(width, height)


def test_near_prompts_share_a_region() -> None:
    first, near, far = (choose_region(4000, 3000, np.array([x, 500, x + 30, 530])) for x in (1000, 1004, 1100))
    assert first == near != far


@pytest.mark.parametrize(
    "region", ["Auto", 7, [1, 2, 3], [1, 2, 3, np.nan], [1, 2, 3, 1e400], [3, 2, 1, 4], "1,2,3,4", "1234"]
)
def test_what_is_no_region_is_refused(region: object) -> None:
    with pytest.raises(InvalidRequest, match="x_min, y_min"):
        check_region(region)


@given(st.integers(0, 1 << 32), st.integers(1, 9), st.integers(1, 9), st.floats(0, 1))
def test_boxes_of_masks_are_those_of_their_pixels(seed: int, height: int, width: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    rle: Any = coco.encode(np.asfortranarray(mask, np.uint8))
    assert box_of(types_pb2.Rle(size=rle["size"], counts=rle["counts"].decode())) == bounding_box(mask)


def test_regions_come_in_any_form() -> None:
    assert check_region(np.array([1.0, 2, 3, 4])) == check_region((1, 2, 3, 4)) == (1, 2, 3, 4)
    assert check_region("auto") == "auto"
    assert check_region(None) is None


def choices(objects: dict[tuple[float, float], Place], *prompts: Prompt) -> tuple[list[Place | None], list[int]]:
    """Which regions are chosen on a picture of 4000x3000 where clicks find these objects as far as they see them, and
    the sides of the regions that were looked at."""
    looks = []

    async def look(place: Place, asked: Sequence[types_pb2.Prompt]) -> Any:
        looks.append(place[2] - place[0])
        found = [objects[prompt.points[0].x_px, prompt.points[0].y_px] for prompt in asked]
        return [(*np.maximum(box[:2], place[:2]), *np.minimum(box[2:], place[2:])) for box in found]

    return asyncio.run(choose_regions([prompt.message() for prompt in prompts], (4000, 3000), look)), looks


def test_clicks_are_looked_at_from_near_by_first() -> None:
    objects = {
        (1000, 1000): (990, 990, 1030, 1020),
        (2000, 1500): (1900, 1350, 2200, 1650),
        (3000, 2000): (0, 0, 4000, 3000),
        (5, 5): (0, 0, 40, 40),
    }
    clicks = [Prompt(points=place) for place in objects]
    regions, looks = choices(objects, *clicks)
    small, large, none, corner = regions
    assert small == (912, 912, 1104, 1104)
    assert large is not None
    assert large[2] - large[0] == 768
    assert none is None
    assert corner == (0, 0, 192, 192)  # it ends where the picture does
    assert sorted(looks) == [192, 192, 192, 192, 768, 768]
    both, looks = choices({(1000, 1000): objects[1000, 1000]}, clicks[0], clicks[0])
    assert both == [small, small]
    assert looks == [192]


def test_other_prompts_say_how_large_their_object_is() -> None:
    mask = np.zeros((3000, 4000), bool)
    mask[500:800, 600:700] = True
    regions, looks = choices({}, Prompt(box=(600, 500, 700, 800)), Prompt(mask=mask), Prompt())
    assert regions == [choose_region(4000, 3000, np.array([600.0, 500, 700, 800]))] * 2 + [None]
    assert not looks
    with pytest.raises(InvalidRequest, match="logits belong"):
        choices({}, Prompt(mask=np.zeros((4, 4), np.float32)))
