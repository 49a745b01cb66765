"""/sam2: prompts against the size of their image, without a server."""

from typing import Any

import pytest
from maskwire.v1 import decoder_pb2
from maskwire_core.http.problems import Problem
from maskwire_core.runtime.process_memory import resident
from maskwire_gateway.roboflow.checked_prompts import MAX_REFUSED, CheckedPrompts, check_prompts, memory_of_messages
from maskwire_gateway.roboflow.forms import SegmentForm

WIDTH, HEIGHT = 600, 400
CLICK = {"points": [{"x": 260, "y": 130, "positive": True}]}
OUTSIDE = {"points": [{"x": 9999, "y": 10, "positive": True}]}
FLAT = {"box": {"x": 300, "y": 200, "width": 0, "height": 9}}


def check(**fields: Any) -> CheckedPrompts:
    return check_prompts(SegmentForm.model_validate(fields), WIDTH, HEIGHT)


def box(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    return {"box": {"x": x, "y": y, "width": width, "height": height}}


@pytest.mark.parametrize(
    ("prompt", "field", "said"),
    [
        (box(900, 3, 20, 9), "prompts[0].box", "the box of 20x9 px around (900, 3) covers nothing of the image, which"),
        (box(90, 30, -4, 9), "prompts[0].box.width", "-4; a box has a width and a height above 0, and x and y are its"),
        (box(90, 30, 4, 0), "prompts[0].box.height", "0; a box has a width and a height above 0"),
        (box(599.99999999, 30, 1e-12, 5), "prompts[0].box", "covers nothing of the image"),
        (OUTSIDE, "prompts[0].points[0].x", "9999 is outside of the image, which is 600 px wide"),
        (
            {"points": [{"x": 1, "y": -1, "positive": True}]},
            "prompts[0].points[0].y",
            "the image, which is 400 px high",
        ),
    ],
)
def test_a_wrong_prompt_is_told_in_its_senders_words(prompt: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(Problem) as caught:
        check(prompts=[prompt])
    assert (caught.value.status, caught.value.field) == (400, field)
    assert said in caught.value.message


def test_wrong_prompts_among_good_ones_are_set_aside() -> None:
    checked = check(prompts=[OUTSIDE, CLICK, FLAT, box(595, 200, 20, 40)])
    assert (checked.count, checked.places, sorted(checked.refused)) == (4, [1, 3], [0, 2])
    click, clipped = checked.messages
    assert (click.points[0].x_px, click.points[0].y_px, click.points[0].label) == (260, 130, 1)
    assert (clipped.box.x_min_px, clipped.box.x_max_px) == (585, 600)
    assert checked.place("prompts[1].points[0].x_px") == "prompts[3].points[0].x"
    assert checked.place("prompts[0].points") == "prompts[1].points"
    assert checked.place("output.formats") == "output.formats"


@pytest.mark.parametrize("prompts", [[FLAT, OUTSIDE], [CLICK, *[FLAT] * (MAX_REFUSED + 1)]], ids=["all", "too many"])
def test_the_first_wrong_prompt_is_the_error(prompts: list[dict[str, Any]]) -> None:
    with pytest.raises(Problem) as caught:
        check(prompts=prompts)
    assert caught.value.reason == "EMPTY_BOX"


@pytest.mark.parametrize(
    ("field", "place"),
    [
        ("prompts[0].points[1].x_px", "point_coords[1][0]"),
        ("prompts[0].points[1].y_px", "point_coords[1][1]"),
        ("prompts[0].points[1].label", "point_labels[1]"),
        ("prompts[0].points", "point_coords"),
        ("prompts[0].mask", "mask_input"),
    ],
)
def test_the_older_form_has_places_of_its_own(field: str, place: str) -> None:
    checked = check(point_coords=[[1, 2], [3, 4]])
    assert len(checked.messages[0].points) == 2
    assert checked.place(field) == place


@pytest.mark.parametrize("kind", ["base64", "BASE64", "Base64", "URL"])
def test_the_type_of_a_picture_is_in_any_case(kind: str) -> None:
    form = SegmentForm.model_validate({"image": {"type": kind, "value": "x"}})
    assert form.image is not None
    assert form.image.type == kind.lower()


@pytest.mark.parametrize(
    "fields",
    [
        {"prompts": [{}] * 30_000},
        {"prompts": [CLICK] * 30_000},
        {"prompts": [box(90, 30, 4, 4)] * 30_000},
        {"prompts": [{"points": CLICK["points"] * 100_000}]},
        {"point_coords": [[1, 2]] * 100_000},
    ],
    ids=["empty", "a click each", "boxes", "clicks", "coordinates"],
)
def test_messages_take_no_more_memory_than_is_counted(fields: dict[str, Any]) -> None:
    form = SegmentForm.model_validate(fields)
    before = resident()  # protobuf's own memory is not Python's
    checked = check_prompts(form, WIDTH, HEIGHT)
    request = decoder_pb2.SegmentRequest(prompts=checked.messages)
    sent = request.SerializeToString()
    assert resident() - before < memory_of_messages(form)
    assert sent
