"""Scripts for Roboflow's package `inference`, whose imports come from maskwire.roboflow instead."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from maskwire import Client, InvalidRequest
from maskwire.bilinear import enlarge
from maskwire.roboflow import Box, Point, Sam2Prompt, Sam2PromptSet, SegmentAnything2, SegmentAnything2WithScores
from PIL import Image

from testing.servers import Stack

HOW_TO = Path(__file__).with_name("sam2_how_to.py").read_text()
LOGITS: Any = {"outputs": ("rle", "logits"), "logits_dtype": "float32", "unclamped_logits": True}


@pytest.fixture(scope="module")
def model(client: Client) -> SegmentAnything2:
    return SegmentAnything2("demo", client=client)


@pytest.fixture
def how_to(stack: Stack, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the how-to leaves, run with other imports."""
    (tmp_path / "examples" / "sam2").mkdir(parents=True)
    Image.open(photo).save(tmp_path / "examples" / "sam2" / "hand.png")
    monkeypatch.chdir(tmp_path)
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    names: dict[str, Any] = {}
    with pytest.warns(UserWarning, match="'sam2/hiera_large'.*the encoder's default model answers instead"):
        exec(re.sub(r"from inference\.[\w.]+ import", "from maskwire.roboflow import", HOW_TO), names)
    return names


@pytest.mark.client(
    "Roboflow's how-to for SAM 2",
    "from top to bottom with other imports: its picture in, the two that supervision draws out",
    package="supervision",
)
def test_the_how_to_runs_with_other_imports(how_to: dict[str, Any], client: Client) -> None:
    assert HOW_TO.count("\nfrom inference.") == 3
    assert how_to["img_shape"] == (400, 600)
    assert how_to["id_"] == how_to["embedding"].image_id
    prominent = client.segment(how_to["embedding"], **LOGITS)
    excluding = client.segment(how_to["embedding"], points=[(250, 300)], labels=[0], **LOGITS)
    for mask, low, result in (
        (how_to["raw_masks"], how_to["raw_low_res_masks"], prominent),
        (how_to["raw_masks2"], how_to["raw_low_res_masks2"][0], excluding),
    ):
        np.testing.assert_array_equal(mask, enlarge(result.logits, 600, 400) >= 0)
        assert np.count_nonzero(mask != result.mask) < 5  # the server's is > 0
        assert low.dtype == np.float32
        np.testing.assert_array_equal(low, result.logits.clip(-32, 32))
    (polygon,) = how_to["poly_masks"]
    contours, _ = cv2.findContours(prominent.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    np.testing.assert_array_equal(polygon, max(contours, key=len).reshape(-1, 2))
    assert polygon.dtype == np.float32
    photo = np.array(Image.open("examples/sam2/hand.png").convert("RGB"))
    for name, mask in (("sam.png", how_to["raw_masks"]), ("sam_negative_prompted.png", how_to["raw_masks2"])):
        changed = (np.array(Image.open(name)) != photo).any(2)
        away_from_the_dot = np.ones_like(mask)
        away_from_the_dot[285:316, 235:266] = "negative" not in name
        assert not (changed & ~mask & away_from_the_dot).any()
        assert (changed & mask).sum() > 0.9 * mask.sum() > 0


def test_prompts_of_every_kind(model: SegmentAnything2, client: Client, photo: Path) -> None:
    prompts = Sam2PromptSet(
        [
            Sam2Prompt(Box(300, 200, 300, 250), [Point(260, 130, True)]),
            {"box": {"x": 590, "y": 200, "width": 100, "height": 100}},  # leaves the image
            {},
        ]
    )
    masks, low = model.segment_image(photo, prompts=prompts)
    expected = [
        client.segment(photo, box=(150, 75, 450, 325), points=[(260, 130)], **LOGITS),
        client.segment(photo, box=(540, 150, 600, 250), **LOGITS),
        client.segment(photo, **LOGITS),
    ]
    assert (masks.shape, low.shape[0]) == ((3, 400, 600), 3)
    for mask, result in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(mask, enlarge(result.logits, 600, 400))
    again = model.segment_image(photo, prompts={"prompts": [{"points": [{"x": 9, "y": 8, "positive": 1}]}]})
    older = model.segment_image(photo, point_coords=[[9, 8]], point_labels=[1])
    np.testing.assert_array_equal(again[0], older[0][None])
    refined = model.segment_image(photo, point_coords=[[9, 8]], mask_input=low[:1], multimask_output=False)
    assert not np.array_equal(refined[0], older[0])


def test_newer_scripts_unpack_scores(client: Client, photo: Path) -> None:
    model = SegmentAnything2WithScores("demo", client=client)
    masks, scores, low = model.segment_image(photo, use_mask_input_cache=True)
    result = client.segment(photo, **LOGITS)
    assert (masks.shape, scores.shape, low.shape[0]) == ((1, 400, 600), (1,), 1)
    assert scores[0] == pytest.approx(result.score)


def test_pictures_of_every_kind(model: SegmentAnything2, photo: Path, tmp_path: Path) -> None:
    lossless = tmp_path / "cup.png"
    Image.open(photo).save(lossless)
    bgr = cv2.imread(str(lossless))
    expected = model.segment_image(lossless)[0]
    for picture in (bgr, {"type": "numpy_object", "value": bgr}, Image.open(lossless), lossless.read_bytes()):
        np.testing.assert_array_equal(model.segment_image(picture)[0], expected)
    _, _, name = model.embed_image(lossless, image_id="a cup")
    assert name == "a cup"
    np.testing.assert_array_equal(model.segment_image(image_id="a cup")[0], expected)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"prompts": {"prompts": [{"points": [{"x": 1, "y": 2}]}]}}, "prompts[0].points[0]"),
        ({"prompts": {"prompts": [{"pionts": []}]}}, "prompts[0].pionts"),
        ({"prompts": {"prompts": [{"points": [{"x": 900, "y": 2, "positive": True}]}]}}, "prompts[0].points[0].x"),
        ({"point_coords": [[900, 2]], "point_labels": [1]}, "point_coords[0]"),
        ({"prompts": Sam2PromptSet(), "point_coords": [[9, 2]]}, "point_coords"),
        ({"pormpts": Sam2PromptSet()}, "pormpts"),
        ({"mask_input": np.zeros((2, 128, 128))}, "mask_input"),
        ({"image": {"type": "picture", "value": "x"}}, "image"),
    ],
    ids=str,
)
def test_mistakes_name_the_field(model: SegmentAnything2, photo: Path, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        model.segment_image(**{"image": photo, **arguments})
    assert raised.value.field == field
