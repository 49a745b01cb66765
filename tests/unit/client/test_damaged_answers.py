"""Answers that no server sends cost a client an error, whatever they say: no memory, and no crash."""

import random
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status
from maskwire.automatic_masks import FoundMask, MaskCollector
from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import InvalidRequest, MaskwireError, from_status
from maskwire.mask import Mask
from maskwire.output_options import Format
from maskwire.regions import box_of
from maskwire.results import Result
from maskwire.v1 import decoder_pb2, types_pb2

from tests.faults import fuzz_answers

HUGE = 2**31 - 1


def test_random_damage_is_an_answer_or_an_error() -> None:
    pick = random.Random(1)
    real = fuzz_answers.answers(pick)
    for answer in real:
        answer.read(answer.real)
    assert {fuzz_answers.read_damaged(pick, real) for _ in range(500)} == {"answer", "BAD_ANSWER", "no message"}


@pytest.mark.parametrize(
    ("form", "attribute", "fields"),
    [
        ("rle", "rle", {"rle": {"size": [4, 6], "counts": "o"}}),
        ("rle", "array", {"rle": {"size": [4, 6], "counts": "0"}}),
        ("rle", "array", {"rle": {"size": [6, 4], "counts": "h0"}}),
        ("rle", "area", {"rle": {"size": [HUGE, HUGE], "counts": "0"}}),
        ("packed_bits", "array", {"packed_bits": b"abc"}),
        ("png", "array", {"png": b"GIF89a"}),
        ("logits", "logits", {"logits": {"height": 4, "width": 4, "data_type": 1, "data": b"a"}}),
        ("logits", "logits", {"logits": {"height": 4, "width": 4, "data_type": 0, "data": b""}}),
        ("polygons", "contours", {"polygons": [{"coordinates_px": []}]}),
        ("polygons", "contours", {"polygons": [{"coordinates_px": [1, 1, 2]}]}),
        ("polygons", "contours", {"polygons": [{"coordinates_px": [0, 0, HUGE, HUGE]}]}),
        ("polygons", "contours", {"polygons": [{"coordinates_px": [0, -1]}]}),
    ],
)
def test_damaged_forms_are_errors(form: Format, attribute: str, fields: dict[str, Any]) -> None:
    mask = Mask(types_pb2.Mask(**fields), (4, 6), (form,), None)
    with pytest.raises(MaskwireError) as caught:
        getattr(mask, attribute)
    assert caught.value.reason == "BAD_ANSWER"


def test_damaged_found_masks_are_errors() -> None:
    for rle in (types_pb2.Rle(size=[4, 6], counts="o"), types_pb2.Rle(size=[HUGE, HUGE], counts="0"), types_pb2.Rle()):
        with pytest.raises(MaskwireError, match=r"run lengths|an image of"):
            _ = FoundMask(decoder_pb2.GeneratedMask(rle=rle)).array
    with pytest.raises(MaskwireError, match="finite"):
        _ = FoundMask(decoder_pb2.GeneratedMask(box=types_pb2.Box(x_min_px=float("nan")))).box
    with pytest.raises(MaskwireError, match="run lengths"):
        box_of(types_pb2.Rle(size=[4, 6], counts="o"))
    for list_ in ("kept", "dropped", "revived"):
        with pytest.raises(MaskwireError, match="not sent"):
            MaskCollector((6, 4)).add(decoder_pb2.GenerateMasksResponse(**{list_: [1]}))  # type: ignore[arg-type]


def test_damaged_images_are_errors() -> None:
    info = types_pb2.ImageInfo(region=types_pb2.Box(x_min_px=float("inf")))
    with pytest.raises(MaskwireError, match="whole pixels"):
        EmbeddedImage.from_messages(info)
    info = types_pb2.ImageInfo()
    info.expires_at.seconds = 1 << 60
    with pytest.raises(MaskwireError, match="no time"):
        EmbeddedImage.from_messages(info)


@pytest.mark.parametrize(("known", "said"), [(None, "an image of"), ((6, 4), "and not of 6x4")])
@pytest.mark.parametrize("size", [(1 << 16, 1 << 16), (0, HUGE + 1)])
def test_images_of_sizes_that_cannot_be_are_errors(
    known: tuple[int, int] | None, said: str, size: tuple[int, int]
) -> None:
    """A few bytes would make masks of gigabytes here."""
    image = decoder_pb2.SegmentedImage(width_px=size[0], height_px=size[1])
    with pytest.raises(MaskwireError, match=said) as caught:
        Result(
            types_pb2.PromptResult(masks=[types_pb2.Mask()]),
            response=decoder_pb2.SegmentResponse(image=image),
            prompt=types_pb2.Prompt(),
            forms=(),
            cached=True,
            source=None,
            fetch=None,
            known_size=known,
        )
    assert caught.value.reason == "BAD_ANSWER"
    with pytest.raises(MaskwireError, match="an image of"):
        EmbeddedImage.from_messages(types_pb2.ImageInfo(width_px=size[0], height_px=size[1]))


def test_found_masks_of_another_size_are_errors() -> None:
    found = decoder_pb2.GeneratedMask(rle=types_pb2.Rle(size=[4, 7], counts="l0"))
    with pytest.raises(MaskwireError, match="not of the image's size"):
        MaskCollector((6, 4)).add(decoder_pb2.GenerateMasksResponse(found=[found]))
    with pytest.raises(MaskwireError, match="an image of"):
        _ = FoundMask(decoder_pb2.GeneratedMask(rle=types_pb2.Rle(size=[1 << 16, 1 << 16], counts="0"))).array


def test_a_prompt_without_masks_is_an_error() -> None:
    with pytest.raises(MaskwireError, match="no mask"):
        Result(
            types_pb2.PromptResult(),
            response=decoder_pb2.SegmentResponse(),
            prompt=types_pb2.Prompt(),
            forms=(),
            cached=True,
            source=None,
            fetch=None,
            known_size=None,
        )


def test_an_error_whose_details_cannot_be_read_is_one_without_them() -> None:
    damaged = AnyMessage(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
    error = from_status(Status(code=3, message="wrong", details=[damaged]))
    assert (type(error), error.message, error.reason) == (InvalidRequest, "wrong", "")
