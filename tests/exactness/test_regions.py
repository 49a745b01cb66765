"""Prompts on a region against sam2's own predictor on the crop, pasted into the whole image."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from maskwire import Client, InvalidRequest
from numpy.typing import NDArray

from testing.reference.predictor import Reference, build_demo, everything, over_white, random_prompt
from testing.servers import Stack

LEFT, TOP, RIGHT, BOTTOM = PLACE = (217, 60, 473, 290)
FP32_LOGITS = 1e-3


def pasted(masks: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    whole = np.zeros((len(masks), height, width), bool)
    whole[:, TOP:BOTTOM, LEFT:RIGHT] = masks
    return whole


def moved(prompt: dict[str, Any], x: int, y: int) -> dict[str, Any]:
    """A prompt in pixels of the whole image, given in pixels of the region; whole numbers, which fp32 holds exactly."""
    shifted = dict(prompt)
    if "points" in prompt:
        shifted["points"] = [(px + x, py + y) for px, py in prompt["points"]]
    if "box" in prompt:
        shifted["box"] = [value + (x, y)[index % 2] for index, value in enumerate(prompt["box"])]
    return shifted


def rounded(prompt: dict[str, Any]) -> dict[str, Any]:
    return {name: np.rint(value).tolist() for name, value in prompt.items()}


def test_masks_on_a_region_are_those_of_the_reference_on_the_crop(exact: Stack, photo: Path) -> None:
    rgb = over_white(photo)
    height, width = rgb.shape[:2]
    reference = Reference(build_demo(), rgb[TOP:BOTTOM, LEFT:RIGHT])
    random = np.random.default_rng(5)
    arguments: Any = {"region": PLACE, "every": True, "outputs": ("rle", "png", "logits"), "logits_dtype": "float32"}
    with Client(exact.encoder, exact.decoder) as client:
        for index, kind in enumerate(("points", "box", "both", "points") * 3):
            prompt = rounded(random_prompt(random, kind, RIGHT - LEFT, BOTTOM - TOP))
            multimask = bool(index % 3)
            expected = reference.predict(prompt, multimask)
            result = client.segment(photo, **moved(prompt, LEFT, TOP), multimask=multimask, **arguments)
            assert (result.region, result.width, result.height) == (PLACE, width, height)
            np.testing.assert_allclose([mask.logits for mask in result.candidates], expected.logits, atol=FP32_LOGITS)
            np.testing.assert_allclose([mask.score for mask in result.candidates], expected.scores, atol=1e-4)
            got = np.stack([mask.array for mask in result.candidates])
            wrong = got != pasted(expected.masks, height, width)
            assert not (wrong & ~pasted(expected.unsure, height, width)).any()
            assert got[:, TOP:BOTTOM, LEFT:RIGHT].sum() == got.sum()  # nothing outside
        # A mask of the whole image's size counts where the region is.
        first = client.segment(photo, box=(230, 80, 450, 270), region=PLACE)
        again = client.segment(photo, mask=first.mask, region=PLACE, outputs=("rle", "logits"), logits_dtype="float32")
        share = first.mask[TOP:BOTTOM, LEFT:RIGHT].astype(np.float32)
        low = np.asarray(cv2.resize(share, (128, 128), interpolation=cv2.INTER_AREA) * 20 - 10, np.float32)
        expected = reference.predict({"mask": low}, True)
        np.testing.assert_allclose(again.logits, expected.logits[expected.scores.argmax()], atol=FP32_LOGITS)


def test_a_session_on_a_region_refines_as_one_on_the_crop(exact: Stack, photo: Path) -> None:
    crop = np.ascontiguousarray(over_white(photo)[TOP:BOTTOM, LEFT:RIGHT])
    clicks = [((100, 90), True), ((180, 40), False), ((60, 120), True)]
    with (
        Client(exact.encoder, exact.decoder) as client,
        client.session(crop) as apart,
        client.session(photo, region=PLACE) as session,
    ):
        for (x, y), positive in clicks:
            expected = apart.click(x, y, positive=positive)
            result = session.click(x + LEFT, y + TOP, positive=positive)
            np.testing.assert_array_equal(result.mask[TOP:BOTTOM, LEFT:RIGHT], expected.mask)
            assert (result.area, result.score) == (expected.area, expected.score)
        undone, expected = session.undo(), apart.undo()
        assert undone is not None
        assert expected is not None
        assert (undone.area, undone.score) == (expected.area, expected.score)
        with pytest.raises(InvalidRequest) as caught:
            session.click(LEFT - 1, TOP)
        assert (caught.value.reason, caught.value.field) == ("OUT_OF_REGION", "x")


def test_everything_in_a_region_is_that_of_the_crop(exact: Stack, photo: Path) -> None:
    rgb = over_white(photo)
    low: Any = {"pred_iou_thresh": 0.05, "stability_score_thresh": 0.3, "stability_score_offset": 0.2}
    low["points_per_side"] = 4
    with Client(exact.encoder, exact.decoder) as client:
        found = client.everything(photo, region=PLACE, **low)
    expected = everything(build_demo(), rgb[TOP:BOTTOM, LEFT:RIGHT], **low)
    masks = [each["segmentation"] for each in expected]
    assert found
    for mask in found:  # of a crop's masks, those that its edges cut are left out
        assert mask.crop_box == [LEFT, TOP, RIGHT - LEFT, BOTTOM - TOP]
        assert mask.array.shape == rgb.shape[:2]
        part = mask.array[TOP:BOTTOM, LEFT:RIGHT]
        assert part.sum() == mask.area
        assert min(np.count_nonzero(part != each) for each in masks) <= 3
