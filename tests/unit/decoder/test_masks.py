"""Masks in all their forms, against each other and against a plain upsampling.

`tests/exactness` compares the upsampling itself with torch's, bit by bit.
"""

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from maskwire.bilinear import enlarge
from maskwire.mask import Mask
from maskwire.v1 import types_pb2 as pb
from maskwire_core.errors import ResourceExhausted
from maskwire_core.masks.answer_room import COPIES, AnswerRoom
from maskwire_core.masks.forms import polygons
from maskwire_core.masks.geometry import ImageSize, Rectangle
from maskwire_core.masks.rle import placed, rle
from maskwire_core.scheduling.byte_budget import ByteBudget
from maskwire_decoder.masks.rendering import render, without_specks
from maskwire_decoder.prompts.encoding import Prediction
from maskwire_decoder.prompts.parsing import Prompt, parse_output
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from testing.contours import filled

PROMPT = Prompt("p", np.zeros((0, 2), np.float32), np.zeros(0, np.int64), None, None)
FORMATS = {
    "rle": pb.MASK_FORMAT_RLE,
    "png": pb.MASK_FORMAT_PNG,
    "polygons": pb.MASK_FORMAT_POLYGONS,
    "packed_bits": pb.MASK_FORMAT_PACKED_BITS,
    "logits": pb.MASK_FORMAT_LOGITS,
}
SIZES = st.floats(0, 9, allow_subnormal=False).map(lambda exponent: round(2**exponent))


def rough(seed: int, side: int) -> NDArray[np.float32]:
    """Random SxS logits of one of four kinds; small whole numbers meet the threshold exactly."""
    random = np.random.default_rng(seed)
    match seed % 4:
        case 0:
            return random.standard_normal((side, side)).astype(np.float32)
        case 1:
            return random.integers(-2, 3, (side, side)).astype(np.float32)
        case 2:
            return random.standard_normal((side, side)).astype(np.float16).astype(np.float32)
    coarse = random.standard_normal((random.integers(2, 20),) * 2).astype(np.float32) + random.choice([-3, 0, 0, 3])
    return np.asarray(cv2.resize(coarse * 8, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 32, 128]), SIZES, SIZES)
@example(1, 128, 45, 45)
@example(1, 64, 64, 65)
@example(0, 128, 127, 1)
@settings(max_examples=100, deadline=None)
def test_run_lengths_are_those_of_the_upsampled_mask(seed: int, side: int, width: int, height: int) -> None:
    logits = rough(seed, side)
    expected = coco.encode(np.asfortranarray((enlarge(logits, width, height) > 0).view(np.uint8)))
    assert rle(logits, width, height) == expected


@given(st.integers(0, 2**32), st.sampled_from([32, 128]), st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_all_forms_are_the_same_mask(seed: int, side: int, width: int, height: int) -> None:
    logits = rough(seed, side)
    mask = enlarge(logits, width, height) > 0
    output = parse_output(pb.OutputOptions(formats=FORMATS.values(), logits_type=pb.DATA_TYPE_FP32))
    result = render(
        PROMPT, Prediction(logits[None], np.array([0.9], np.float32), 3.0), output, ImageSize(width, height)
    )
    assert (result.prompt_id, result.object_score) == ("p", 3.0)
    (message,) = result.masks
    read = Mask(message, (height, width), tuple(FORMATS), None)
    np.testing.assert_array_equal(read.array, mask)
    np.testing.assert_array_equal(coco.decode(read.rle | {"counts": read.rle["counts"].encode()}), mask)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(message.png))) == 255, mask)
    for form in ("packed_bits", "png"):
        np.testing.assert_array_equal(Mask(message, (height, width), [form], None).array, mask)
    np.testing.assert_array_equal(filled(read.contours, height, width), mask)
    np.testing.assert_array_equal(read.logits, logits.clip(-32, 32))


@pytest.mark.parametrize("name", FORMATS)
def test_only_the_forms_asked_for_are_made(name: str) -> None:
    output = parse_output(pb.OutputOptions(formats=[FORMATS[name]]))
    prediction = Prediction(np.ones((1, 8, 8), np.float32), np.ones(1, np.float32), 0)
    (mask,) = render(PROMPT, prediction, output, ImageSize(9, 5)).masks
    assert {field.name for field, _ in mask.ListFields()} == {name, "score"}


def test_every_mask_of_a_prediction_is_returned() -> None:
    candidates = np.stack([np.full((8, 8), value, np.float32) for value in (-1, 1, 2)])
    prediction = Prediction(candidates, np.array([0.2, 0.7, 0.3], np.float32), 0.5)
    result = render(PROMPT, prediction, parse_output(pb.OutputOptions()), ImageSize(8, 8))
    assert [round(mask.score, 3) for mask in result.masks] == [0.2, 0.7, 0.3]
    assert [mask.rle.counts for mask in result.masks] == ["P2", "0P2", "0P2"]


def test_logits_are_clamped_unless_asked_otherwise() -> None:
    prediction = Prediction(np.full((1, 4, 4), -50, np.float32), np.ones(1, np.float32), 0)
    for unclamped, value in ((False, -32), (True, -50)):
        options = pb.OutputOptions(formats=[pb.MASK_FORMAT_LOGITS], unclamped_logits=unclamped)
        (mask,) = render(PROMPT, prediction, parse_output(options), ImageSize(4, 4)).masks
        assert mask.logits.data_type == pb.DATA_TYPE_FP16
        assert set(np.frombuffer(mask.logits.data, "<f2")) == {value}


def test_a_mask_at_another_threshold_is_that_of_shifted_logits() -> None:
    logits = rough(7, 64)
    options = pb.OutputOptions(mask_threshold=0.75)
    (mask,) = render(
        PROMPT, Prediction(logits[None], np.ones(1, np.float32), 0), parse_output(options), ImageSize(80, 90)
    ).masks
    assert mask.rle.counts.encode() == rle(logits - np.float32(0.75), 80, 90)["counts"]


def test_specks_are_removed_up_to_their_area() -> None:
    logits = np.full((12, 12), -1, np.float32)
    logits[2:8, 2:8] = 1
    logits[4, 4] = logits[5, 5] = -1  # a hole of two pixels, which touch at a corner
    logits[10, 10] = 1  # an island of one
    for area, hole, island in ((0, -1, 1), (1, -1, -10), (2, 10, -10)):
        cleaned = without_specks(logits, 0, area, area)
        assert (cleaned[4, 4], cleaned[10, 10]) == (hole, island)
        untouched = np.ones_like(logits, bool)
        untouched[[4, 5, 10], [4, 5, 10]] = False
        np.testing.assert_array_equal(cleaned[untouched], logits[untouched])


def test_holes_follow_the_contour_that_they_are_in() -> None:
    mask = np.zeros((30, 60), bool)
    mask[2:20, 2:20] = mask[2:20, 30:50] = True
    mask[5:9, 5:9] = mask[5:9, 35:39] = mask[12:15, 12:15] = False
    found = polygons(mask, AnswerRoom())
    assert [each.is_hole for each in found] in ([False, True, True, False, True], [False, True, False, True, True])
    outer: list[int] = []
    for each in found:
        xs = each.coordinates_px[::2]
        if each.is_hole:
            assert outer[0] <= min(xs)
            assert max(xs) <= outer[1]
        else:
            outer = [min(xs), max(xs)]


@pytest.mark.parametrize("form", ["rle", "png", "polygons", "packed_bits", "logits"])
def test_what_is_made_is_counted_and_refused_where_it_does_not_fit(form: str) -> None:
    noise = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    prediction = Prediction(noise[None], np.ones(1, np.float32), 1.0)
    output = parse_output(pb.OutputOptions(formats=[FORMATS[form]]))
    size = render(PROMPT, prediction, output, ImageSize(640, 480)).ByteSize()
    room = AnswerRoom(nbytes=2 * size + 100)
    render(PROMPT, prediction, output, ImageSize(640, 480), room=room)
    many = replace(prediction, logits=np.repeat(noise[None], 3, axis=0), iou=np.ones(3, np.float32))
    with pytest.raises(ResourceExhausted, match="Ask for RLE, or for fewer prompts") as caught:
        render(PROMPT, many, output, ImageSize(640, 480), room=room)
    assert (caught.value.reason, caught.value.field) == ("ANSWER_TOO_LARGE", "output.formats")


def test_coordinates_of_polygons_are_limited_by_number() -> None:
    checks = np.indices((40, 40)).sum(0) % 2 == 0
    with pytest.raises(ResourceExhausted, match="coordinates; an answer has at most 100"):
        polygons(checks, AnswerRoom(coordinates=100))


def test_room_for_parts_of_a_known_size_is_taken_ahead() -> None:
    budget = ByteBudget(6000)
    with budget.account("a") as memory:
        room = AnswerRoom(memory, known_bytes=1000)
        assert memory.nbytes == 1000 * COPIES
        room.take(600)
        room.take(300)
        assert memory.nbytes == 1000 * COPIES
        room.take(300)
        room.take(50)
        assert memory.nbytes == 1250 * COPIES
    with budget.account("a") as memory, pytest.raises(ResourceExhausted) as refused:
        AnswerRoom(memory, known_bytes=3001)
    assert (refused.value.reason, budget.held) == ("TOO_MUCH_IN_PROGRESS", 0)


@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 30)] * 2))
def test_a_regions_mask_is_placed_in_the_image(seed: int, size: tuple[int, int]) -> None:
    random, (width, height) = np.random.default_rng(seed), size
    wide, high = (int(random.integers(1, side + 1)) for side in size)
    x, y = int(random.integers(width - wide + 1)), int(random.integers(height - high + 1))
    mask = (random.random((high, wide)) < random.choice([0, 0.3, 0.9, 1])).astype(np.uint8)
    whole = np.zeros((height, width), np.uint8)
    whole[y : y + high, x : x + wide] = mask
    runs = placed(coco.encode(np.asfortranarray(mask)), ImageSize(width, height, Rectangle(x, y, wide, high)))
    assert runs == coco.encode(np.asfortranarray(whole))
