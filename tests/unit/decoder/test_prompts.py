"""Prompts: checked, read from messages, and encoded as the mask decoder takes them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire.v1 import types_pb2 as pb
from maskwire_core.errors import Internal, InvalidArgument
from maskwire_core.masks.geometry import ImageSize
from maskwire_core.models.decoder_bundle import BEST, DecoderConfig
from maskwire_decoder.prompts import mask_input
from maskwire_decoder.prompts.encoding import EncodedPrompt, Prediction
from maskwire_decoder.prompts.mask_input import mask_to_logits
from maskwire_decoder.prompts.parsing import Limits, Prompt, parse_output, parse_prompts
from numpy.typing import NDArray
from pycocotools import mask as coco

SIZE = ImageSize(600, 400)
CONFIG = DecoderConfig("demo", "f", 512, 128, True, 0.05, 0.98)


def parse(*prompts: pb.Prompt, size: ImageSize = SIZE, **options: Any) -> tuple[Prompt, ...]:
    return parse_prompts(
        prompts, pb.OutputOptions(**options), size, 4, Limits(prompts=3, points=2, mask_pixels=300_000)
    )


def point(x: float = 1, y: float = 1, **fields: Any) -> pb.Point:
    return pb.Point(x_px=x, y_px=y, **fields)


def box(x_min: float = 1, y_min: float = 2, x_max: float = 30, y_max: float = 40) -> pb.Box:
    return pb.Box(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max)


def test_a_prompt_is_read_as_it_was_sent() -> None:
    (prompt,) = parse(pb.Prompt(prompt_id="a", points=[point(3, 4), point(600, 400, label=0)], box=box()))
    assert (prompt.prompt_id, prompt.multimask) == ("a", True)
    assert prompt.points.tolist() == [[3, 4], [600, 400]]
    assert prompt.labels.tolist() == [1, 0]  # a point is positive unless it says otherwise
    assert prompt.box is not None
    assert prompt.box.tolist() == [1, 2, 30, 40]
    assert prompt.mask is None
    assert not parse(pb.Prompt(points=[point()]), multimask=False)[0].multimask


def test_no_prompts_are_one_empty_prompt() -> None:
    (prompt,) = parse()
    assert prompt.points.shape == (0, 2)
    assert (prompt.box, prompt.mask) == (None, None)


LOGITS = pb.Logits(height=4, width=4, data_type=pb.DATA_TYPE_FP32, data=np.arange(16, dtype="<f4").tobytes())


@pytest.mark.parametrize(
    ("prompts", "options", "reason", "field"),
    [
        ([pb.Prompt()] * 4, {}, "TOO_MANY_PROMPTS", "prompts"),
        ([pb.Prompt(points=[point()] * 3)], {}, "TOO_MANY_POINTS", "prompts[0].points"),
        ([pb.Prompt(), pb.Prompt(points=[point(), point(601)])], {}, "OUT_OF_IMAGE", "prompts[1].points[1].x_px"),
        ([pb.Prompt(points=[point(y=400.5)])], {}, "OUT_OF_IMAGE", "prompts[0].points[0].y_px"),
        ([pb.Prompt(points=[point(-0.5)])], {}, "OUT_OF_IMAGE", "prompts[0].points[0].x_px"),
        ([pb.Prompt(points=[point(float("nan"))])], {}, "OUT_OF_IMAGE", "prompts[0].points[0].x_px"),
        ([pb.Prompt(points=[point(label=2)])], {}, "BAD_LABEL", "prompts[0].points[0].label"),
        ([pb.Prompt(box=box(y_max=401))], {}, "OUT_OF_IMAGE", "prompts[0].box.y_max_px"),
        ([pb.Prompt(box=box(x_min=-1))], {}, "OUT_OF_IMAGE", "prompts[0].box.x_min_px"),
        ([pb.Prompt(box=box(x_min=30))], {}, "EMPTY_BOX", "prompts[0].box"),
        ([pb.Prompt(box=box(y_min=41))], {}, "EMPTY_BOX", "prompts[0].box"),
        ([pb.Prompt(steps=[pb.Step()] * 10_001)], {}, "TOO_MANY_STEPS", "prompts"),
        ([pb.Prompt(steps=[pb.Step(add_point=point())])], {"multimask": True}, "STEPS_AND_PROMPTS", "output.multimask"),
        ([pb.Prompt(steps=[pb.Step()], box=box())], {}, "STEPS_AND_PROMPTS", "prompts[0].steps"),
        ([pb.Prompt(steps=[pb.Step(clear={})])], {}, "NO_PROMPTS", "prompts[0].steps"),
        ([pb.Prompt(mask=LOGITS, mask_rle=pb.Rle())], {}, "TWO_MASKS", "prompts[0].mask_rle"),
        ([pb.Prompt(mask=pb.Logits(height=4, width=5))], {}, "BAD_MASK_SIZE", "prompts[0].mask"),
        ([pb.Prompt(mask=pb.Logits(height=4, width=4))], {}, "BAD_DATA_TYPE", "prompts[0].mask.data_type"),
        (
            [pb.Prompt(mask=pb.Logits(height=4, width=4, data_type=pb.DATA_TYPE_FP16, data=b"0" * 33))],
            {},
            "BAD_MASK_DATA",
            "prompts[0].mask.data",
        ),
        (
            [pb.Prompt(mask=pb.Logits(height=4, width=4, data_type=pb.DATA_TYPE_FP32, data=b"\xff" * 64))],
            {},
            "NOT_FINITE",
            "prompts[0].mask.data",
        ),
        ([pb.Prompt(mask_rle=pb.Rle(size=[600, 400]))], {}, "BAD_MASK_SIZE", "prompts[0].mask_rle"),
        ([pb.Prompt(mask_rle=pb.Rle(size=[400, 600], counts="0"))], {}, "BAD_MASK_DATA", "prompts[0].mask_rle.counts"),
    ],
)
def test_what_is_wrong_is_named(prompts: list[pb.Prompt], options: dict[str, Any], reason: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(*prompts, **options)
    assert (caught.value.reason, caught.value.field) == (reason, field)


@pytest.mark.parametrize(
    ("options", "reason", "field"),
    [
        ({"formats": [1, 99]}, "UNKNOWN_VALUE", "output.formats[1]"),
        ({"candidates": 99}, "UNKNOWN_VALUE", "output.candidates"),
        ({"logits_type": 99}, "UNKNOWN_VALUE", "output.logits_type"),
        ({"mask_threshold": float("inf")}, "NOT_FINITE", "output.mask_threshold"),
    ],
)
def test_wrong_output_options_are_named(options: dict[str, Any], reason: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_output(pb.OutputOptions(**options))
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_output_is_rle_of_the_best_candidate_unless_asked_otherwise() -> None:
    output = parse_output(pb.OutputOptions())
    assert output.formats == {pb.MASK_FORMAT_RLE}
    assert (output.every, output.logits_type, output.threshold) == (False, pb.DATA_TYPE_FP16, 0)


def test_masks_of_huge_images_are_no_pixels() -> None:
    huge, formats = ImageSize(600, 501), [pb.MASK_FORMAT_RLE, pb.MASK_FORMAT_LOGITS]
    assert len(parse(pb.Prompt(), size=huge, formats=formats)) == 1
    for prompts, options, field in (
        ([pb.Prompt(), pb.Prompt(mask_rle=pb.Rle(size=[501, 600]))], {}, "prompts[1].mask_rle"),
        ([pb.Prompt()], {"formats": [*formats, pb.MASK_FORMAT_PNG]}, "output.formats"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            parse(*prompts, size=huge, **options)
        assert (caught.value.reason, caught.value.field) == ("MASK_TOO_LARGE", field)
        parse(*prompts[:1], size=ImageSize(600, 500), **options)


def test_mask_logits_are_read_in_both_types() -> None:
    for data_type, dtype in ((pb.DATA_TYPE_FP16, "<f2"), (pb.DATA_TYPE_FP32, "<f4")):
        sent = np.linspace(-3, 3, 16).astype(dtype).reshape(4, 4)
        (prompt,) = parse(pb.Prompt(mask=pb.Logits(height=4, width=4, data_type=data_type, data=sent.tobytes())))
        np.testing.assert_array_equal(prompt.mask, sent.astype(np.float32))


@given(st.integers(0, 2**32), st.integers(1, 70), st.integers(1, 70), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_mask_of_the_images_size_becomes_logits(seed: int, width: int, height: int, share: float) -> None:
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    runs: Any = coco.encode(np.asfortranarray(mask))
    sent = pb.Prompt(mask_rle=pb.Rle(size=runs["size"], counts=runs["counts"].decode()))
    (prompt,) = parse(sent, size=ImageSize(width, height))
    np.testing.assert_array_equal(prompt.mask, mask_to_logits(mask, 4))


def test_a_low_resolution_pixel_is_the_mean_of_what_it_covers() -> None:
    mask = np.zeros((8, 16), np.uint8)
    mask[:2, :4] = 1  # all of the first pixel of 2x4
    mask[2:4, :2] = 1  # half of the one below
    logits = mask_to_logits(mask, 4)
    assert logits[:2, 0].tolist() == [10, 0]
    assert (np.delete(logits.ravel(), [0, 4]) == -10).all()


@given(st.text(st.characters(min_codepoint=40, max_codepoint=130), max_size=40), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_any_text_as_counts_is_read_or_refused(counts: str, width: int, height: int) -> None:
    sent = pb.Prompt(mask_rle=pb.Rle(size=[height, width], counts=counts))
    reasons: list[str] = []
    try:
        (prompt,) = parse(sent, size=ImageSize(width, height))
    except InvalidArgument as error:
        reasons.append(error.reason)
    else:
        assert prompt.mask is not None
        assert np.isfinite(prompt.mask).all()
    assert set(reasons) <= {"BAD_MASK_DATA"}


def made(points: Any = (), labels: Any = (), corners: Any = None, mask: Any = None) -> Prompt:
    return Prompt(
        "",
        np.array(points, np.float32).reshape(-1, 2),
        np.array(labels, np.int64),
        None if corners is None else np.array(corners, np.float32),
        mask,
    )


def encoded(prompt: Prompt, *, multimask: bool = True, every: bool = True, config: DecoderConfig = CONFIG) -> Any:
    return EncodedPrompt.of(config, replace(prompt, multimask=multimask), 1024, 256, every)


@pytest.mark.parametrize(
    ("prompt", "points", "labels"),
    [
        # A point outside of the image, labelled -1, ends the points, as in sam2's prompt encoder.
        (made([[512, 128]], [1]), [[256, 256], [0, 0]], [1, -1]),
        (made([[512, 128], [0, 256]], [0, 1]), [[256, 256], [0, 512], [0, 0]], [0, 1, -1]),
        (made(corners=[0, 0, 1024, 256]), [[0, 0], [512, 512], [0, 0]], [2, 3, -1]),
        (made([[2, 2]], [0], [4, 4, 8, 8]), [[2, 8], [4, 16], [1, 4], [0, 0]], [2, 3, 0, -1]),
        (made(), [[0, 0], [0, 0]], [-1, -1]),
        (made(mask=np.zeros((128, 128), np.float32)), [], []),
    ],
)
def test_points_and_boxes_are_encoded_as_sam2_does(prompt: Prompt, points: Any, labels: Any) -> None:
    made_of = encoded(prompt)
    assert made_of.points.tolist() == points
    assert made_of.labels.tolist() == labels
    assert (made_of.points.dtype, made_of.labels.dtype) == (np.float32, np.int64)


def test_as_few_masks_are_computed_as_are_asked_for() -> None:
    prompt = made([[1, 1]], [1])
    static = DecoderConfig("demo", "f", 512, 128, False, 0.05, 0.98)
    assert encoded(prompt).wanted == (1, 2, 3)
    assert encoded(prompt, every=False).wanted == (BEST,)
    assert encoded(prompt, multimask=False).wanted == (0, BEST)
    assert encoded(prompt, multimask=False, config=static).wanted == (0,)


def test_an_unstable_single_mask_gives_way_to_the_best_candidate() -> None:
    iou, score = np.array([0.5, 0.1, 0.9, 0.3], np.float32), np.float32(2)
    stable = np.full((128, 128), -1, np.float32)
    stable[:50] = 1
    unstable = stable.copy()
    unstable[50:60] = 0.01  # within the stability's delta
    best = np.full((128, 128), 3, np.float32)
    single = encoded(made([[1, 1]], [1]), multimask=False)
    for first, expected, expected_iou in ((stable, stable, 0.5), (unstable, best, 0.9)):
        prediction = single.select(np.stack([first, best]), iou, score)
        assert prediction.logits.shape == (1, 128, 128)
        np.testing.assert_array_equal(prediction.logits[0], expected)
        assert prediction.iou.tolist() == pytest.approx([expected_iou])
        assert prediction.object_score == 2
    empty = np.full((128, 128), -1, np.float32)
    np.testing.assert_array_equal(single.select(np.stack([empty, best]), iou, score).logits[0], empty)


def test_the_best_mask_has_the_highest_predicted_iou() -> None:
    logits: NDArray[np.float32] = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    prediction = Prediction(logits, np.array([0.2, 0.7, 0.3], np.float32), 1)
    np.testing.assert_array_equal(prediction.best, logits[1])
    np.testing.assert_array_equal(prediction.only_best().logits, logits[1:2])
    assert prediction.only_best().iou.tolist() == pytest.approx([0.7])
    for wrong in (
        Prediction(np.full((1, 2, 2), np.nan, np.float32), np.ones(1, np.float32), 1),
        Prediction(logits[:1], np.array([np.inf], np.float32), 1),
        Prediction(logits[:1], np.ones(1, np.float32), float("nan")),
    ):
        with pytest.raises(Internal) as caught:
            wrong.checked("demo")
        assert caught.value.reason == "MODEL_OUTPUT_NOT_FINITE"


@pytest.mark.parametrize(("height", "width"), [(700, 640), (672, 640), (333, 1111), (900, 12)])
def test_a_large_mask_is_averaged_in_bands_to_the_same(
    monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    mask = np.random.default_rng(height).integers(0, 2, (height, width), np.uint8)
    whole = mask_to_logits(mask, 32)
    monkeypatch.setattr(mask_input, "_BAND_PIXELS", 3000)
    np.testing.assert_allclose(mask_to_logits(mask, 32), whole, rtol=0, atol=1e-5)


def test_more_formats_than_there_are_forms_are_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_output(pb.OutputOptions(formats=1000 * [pb.MASK_FORMAT_RLE]))
    assert (caught.value.reason, caught.value.field) == ("BAD_OUTPUT", "output.formats")
