"""Arguments of SAM2ImagePredictor's face, before anything is sent."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from maskwire import EmbeddedImage, InvalidRequest, UnknownArgument
from maskwire.sam2.build_sam import ServedModel, build_sam2, build_sam2_hf
from maskwire.sam2.prompt_batch import in_arguments_words, prompts_of
from maskwire.sam2.sam2_image_predictor import ImageNotSet, NotServed, SAM2ImagePredictor

IMAGE = EmbeddedImage("cup", 600, 400, "demo", "key", True, 1, datetime.now(UTC))
NOBODY: Any = object()  # a client that nothing is asked of
ZEROS = np.zeros((1, 128, 128), np.float32)


def made(point_coords: Any = None, point_labels: Any = None, box: Any = None, mask_input: Any = None) -> list[Any]:
    return prompts_of(IMAGE, point_coords, point_labels, box, mask_input, True)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("configs/sam2.1/sam2.1_hiera_l.yaml", "../checkpoints/sam2.1_hiera_large.pt"), "sam2.1_hiera_large"),
        (("configs/sam2.1/sam2.1_hiera_b+.yaml",), "sam2.1_hiera_b+"),
    ],
)
def test_a_built_model_is_the_servers_of_that_name(arguments: tuple[str, ...], name: str) -> None:
    assert build_sam2(*arguments, device="cuda") == ServedModel(name)
    assert build_sam2_hf("facebook/sam2.1-hiera-large") == ServedModel("facebook/sam2.1-hiera-large")


def test_a_model_that_would_be_another_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"hydra_overrides_extra: .*maskwire models add"):
        build_sam2("sam2.1_hiera_l.yaml", hydra_overrides_extra=["model.image_size=512"])
    with pytest.raises(InvalidRequest, match="apply_postprocessing"):
        build_sam2("sam2.1_hiera_l.yaml", apply_postprocessing=False)
    with pytest.raises(NotServed, match="sam_model: dict would run in this process"):
        SAM2ImagePredictor({})  # type: ignore[arg-type]


def test_what_needs_an_image_says_so_as_sam2_does() -> None:
    predictor = SAM2ImagePredictor("demo", client=NOBODY)
    for call, method in ((predictor.predict, "set_image"), (predictor.predict_batch, "set_image_batch")):
        with pytest.raises(ImageNotSet, match=rf"call {method}\(") as raised:
            call()
        assert isinstance(raised.value, RuntimeError)
        assert raised.value.reason == "NO_IMAGE"
    with pytest.raises(NotImplementedError, match="sam2's own"):
        predictor.get_image_embedding()
    with pytest.raises(UnknownArgument, match="point_coords"):
        predictor.predict(point_cords=[(1, 2)])  # type: ignore[call-arg]


def test_from_pretrained_takes_the_arguments_of_both() -> None:
    predictor = SAM2ImagePredictor.from_pretrained(
        "facebook/sam2-hiera-tiny", device="cpu", mask_threshold=0.5, client=NOBODY
    )
    assert (predictor.model.name, predictor.mask_threshold) == ("facebook/sam2-hiera-tiny", 0.5)


def test_one_prompt_or_several() -> None:
    (one,) = made([[1, 2], [3, 4]], [1, 0])
    assert (one.points, one.labels, one.box) == (((1, 2), (3, 4)), (1, 0), None)
    (boxed,) = made([[1, 2]], [0], [5, 6, 7, 8], ZEROS)
    assert (boxed.box, boxed.mask.shape) == ((5, 6, 7, 8), (128, 128))
    several = made([[[1, 2]], [[3, 4]]], [[1], [0]], [[5, 6, 7, 8], [1, 2, 3, 4]], ZEROS)
    assert [(each.points, each.box) for each in several] == [(((1, 2),), (5, 6, 7, 8)), (((3, 4),), (1, 2, 3, 4))]
    assert all(each.mask is not None for each in several)  # one mask is for all
    (nothing,) = made([[0, 0]], [-1])
    assert nothing.points == ()
    (fractions,) = prompts_of(IMAGE, None, None, [0.25, 0.5, 0.75, 1], None, False)
    assert fractions.box == (150, 200, 450, 400)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "point_coords"),
        ({"point_coords": [[1, 2]]}, "point_labels"),
        ({"point_labels": [1], "box": [1, 2, 3, 4]}, "point_labels"),
        ({"point_coords": [[1, 2]], "point_labels": [1, 0]}, "point_labels"),
        ({"point_coords": [1, 2, 3], "point_labels": [1]}, "point_coords"),
        ({"point_coords": [["a", 2]], "point_labels": [1]}, "point_coords"),
        ({"point_coords": [[1, 2], [3, 4]], "point_labels": [1, -1]}, "point_labels[1]"),
        ({"point_coords": [[0, 0]], "point_labels": [-1], "box": [1, 2, 3, 4]}, "point_labels[0]"),
        ({"point_coords": [[1, 2], [3, np.nan]], "point_labels": [1, 1]}, "point_coords[1]"),
        ({"box": [1, 2, 3]}, "box"),
        ({"box": [[1, 2, 3, 4], [1, 2, 3, np.inf]]}, "box[1][3]"),
        ({"box": [[1, 2, 3, 4], [1, 2, 3, 4]], "point_coords": [[1, 2]], "point_labels": [1]}, "point_coords"),
        ({"mask_input": ZEROS[0]}, "mask_input"),
        ({"mask_input": np.zeros((3, 128, 128))}, "mask_input"),
        ({"mask_input": np.zeros((2, 1, 128, 128))}, "mask_input"),
        ({"mask_input": np.full((1, 128, 128), np.nan)}, "mask_input"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        made(**arguments)
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("field", "count", "expected"),
    [
        ("prompts[0].points[2].x_px", 1, "point_coords[2]"),
        ("prompts[0].points[2].label", 1, "point_labels[2]"),
        ("prompts[3].box.x_max_px", 40, "box[19]"),
        ("prompts[0].mask", 1, "mask_input"),
        ("output.formats", 1, "output.formats"),
    ],
)
def test_errors_of_servers_name_the_argument(field: str, count: int, expected: str) -> None:
    error = in_arguments_words(InvalidRequest("wrong", "BAD", field), 16, count)
    assert (error.field, error.message, error.reason) == (expected, "wrong", "BAD")
