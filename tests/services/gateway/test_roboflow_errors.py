"""/sam2: what is wrong with a request, and where."""

from typing import Any

import httpx
import pytest

from testing.wire import as_base64, picture

POINTS = {"points": [{"x": 260, "y": 130, "positive": True}, {"x": 300, "y": 330, "positive": False}]}


BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "no image": ({}, 400, "NO_IMAGE"),
    "null image": ({"image": None}, 400, "NO_IMAGE"),
    "unknown image_id": ({"image_id": "nobody knows it"}, 404, "IMAGE_NOT_FOUND"),
    "control characters": ({"image_id": "a\nb"}, 400, "BAD_IMAGE_ID"),
    "no base64": ({"image": {"type": "base64", "value": "ä*"}}, 400, "BAD_BASE64"),
    "empty": ({"image": {"type": "base64", "value": ""}}, 400, "EMPTY_IMAGE"),
    "data URI without base64": ({"image": {"type": "base64", "value": "data:image/png,abc"}}, 400, "BAD_BASE64"),
    "no picture": ({"image": as_base64(b"GIF, or is it?")}, 400, ""),
    "truncated": ({"image": as_base64(picture(1, 61, 47)[:2000])}, 400, ""),
    "URL": ({"image": {"type": "url", "value": "http://example.org/a.jpg"}}, 400, "URLS_OFF"),
    "URL as base64": ({"image": {"type": "base64", "value": "https://example.org/a.jpg"}}, 400, "URLS_OFF"),
    "point outside": ({"prompts": [{"points": [{"x": 601, "y": 3, "positive": True}]}]}, 400, "OUT_OF_IMAGE"),
    "box outside": ({"prompts": [{"box": {"x": 900, "y": 3, "width": 20, "height": 9}}]}, 400, "EMPTY_BOX"),
    "empty box": ({"prompts": [{"box": {"x": 90, "y": 30, "width": 0, "height": 9}}]}, 400, "EMPTY_BOX"),
    "negative box": ({"prompts": [{"box": {"x": 90, "y": 30, "width": -4, "height": 9}}]}, 400, "EMPTY_BOX"),
    "labels too few": ({"point_coords": [[1, 2], [3, 4]], "point_labels": [1]}, 400, "LABELS_MISMATCH"),
    "labels unknown": ({"point_coords": [[1, 2]], "point_labels": [7]}, 400, "BAD_LABEL"),
    "10,000 points": ({"prompts": [{"points": [{"x": 1, "y": 1, "positive": True}] * 10_000}]}, 400, "TOO_MANY_POINTS"),
    "1,000 prompts": ({"prompts": [POINTS] * 1000}, 400, "TOO_MANY_PROMPTS"),
    "version": ({"sam2_version_id": "hiera_huge"}, 400, "BAD_VERSION"),
    "too much for one answer": (
        {"prompts": [POINTS] * 128, "format": "binary", "image": as_base64(picture(1, 900, 800))},
        413,
        "ANSWER_TOO_LARGE",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_say_what_is_wrong(http: httpx.Client, encoded: dict[str, str], name: str) -> None:
    body, status, reason = BAD[name]
    if not body.keys() & {"image", "image_id"} and reason != "NO_IMAGE":
        body = {"image": encoded, **body}
    answer = http.post("/sam2/segment_image", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["message"]
    assert "_px" not in answer.json()["field"]  # a name that these callers do not know
    if reason:
        assert answer.json()["reason"] == reason


INVALID: dict[str, tuple[str, list[Any]]] = {
    "no JSON": ("{", ["body"]),
    "nothing": ("", ["body"]),
    "a list": ("[]", ["body"]),
    "deep": ("[" * 100_000, ["body"]),
    "format": ('{"format": "png"}', ["body", "format"]),
    "null format": ('{"format": null}', ["body", "format"]),
    "image type": ('{"image": {"type": "numpy", "value": "x"}}', ["body", "image", "type"]),
    "image value": ('{"image": {"type": "base64"}}', ["body", "image", "value"]),
    "image": ('{"image": "abc"}', ["body", "image"]),
    "point": (
        '{"prompts": [{"points": [{"x": 1, "positive": true}]}]}',
        ["body", "prompts", 0, "points", 0, "y"],
    ),
    "NaN": (
        '{"prompts": [{"points": [{"x": NaN, "y": 1, "positive": true}]}]}',
        ["body", "prompts", 0, "points", 0, "x"],
    ),
    "infinity": ('{"point_coords": [[1, 1e999]]}', ["body", "point_coords", 0, 1]),
    "three coordinates": ('{"point_coords": [[1, 2, 3]]}', ["body", "point_coords", 0]),
    "prompts": ('{"prompts": 3}', ["body", "prompts"]),
    "multimask": ('{"multimask_output": "perhaps"}', ["body", "multimask_output"]),
    "image_id": ('{"image_id": 3}', ["body", "image_id"]),
    "twice": ('{"format": "rle", "format": "json"}', ["body"]),
    "trailing": ('{} {"a": 1}', ["body"]),
    "mask_input": ('{"mask_input": [[1], [2, 3]]}', ["body", "mask_input"]),
    "both ways": ('{"prompts": [{}], "point_coords": [[1, 2]]}', ["body"]),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_bodies_are_422_with_their_place(http: httpx.Client, name: str) -> None:
    body, place = INVALID[name]
    answer = http.post("/sam2/segment_image", content=body)
    assert answer.status_code == 422, answer.text
    (detail, *_) = answer.json()["detail"]
    assert detail["loc"][: len(place)] == place
    assert detail["msg"]


UNKNOWN: dict[str, tuple[dict[str, Any], str, str]] = {
    "near": ({"promts": []}, "promts", "no field 'promts'; did you mean 'prompts'?"),
    "far": ({"unknown": {"a": [1]}}, "unknown", "no field 'unknown'"),
    "in a list": ({"prompts": [{"pionts": []}]}, "prompts[0].pionts", "did you mean 'points'?"),
    "in a set": ({"prompts": {"prompts": [{"boxes": 1}]}}, "prompts.prompts[0].boxes", "did you mean 'box'?"),
    "in one prompt": (
        {"prompts": {"points": [{"x": 1, "y": 2, "positive": True, "label": 1}]}},
        "prompts.points[0].label",
        "no field 'label'; choose from positive, x, y",
    ),
    "in the image": ({"image": {"type": "url", "value": "", "valu": ""}}, "image.valu", "did you mean 'value'?"),
}


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("route", ["segment_image", "embed_image"])
def test_unknown_fields_are_named(http: httpx.Client, name: str, route: str) -> None:
    body, field, said = UNKNOWN[name]
    if route == "embed_image" and "prompts" in body:
        body, field, said = {"prompts": []}, "prompts", "no field 'prompts'"
    answer = http.post(f"/sam2/{route}", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    if route == "segment_image":
        assert said in answer.json()["message"]
    assert answer.json()["message"].startswith(f"{field}: no field")


@pytest.mark.parametrize("nothing", [[], {}, None])
def test_what_is_empty_is_absent(http: httpx.Client, encoded: dict[str, str], nothing: Any) -> None:
    click = {"x": 260, "y": 130, "positive": True}
    plain = http.post("/sam2/segment_image", json={"image": encoded, "prompts": [{"points": [click]}]})
    prompt = {"points": [click], "box": nothing}
    extra = {"point_coords": nothing, "point_labels": nothing, "mask_input": nothing, "id": nothing}
    answer = http.post("/sam2/segment_image", json={"image": encoded, "prompts": [prompt], **extra})
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == plain.json()["predictions"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompts": [{"points": [{"x": 601, "y": 3, "positive": True}]}]}, "prompts[0].points[0].x"),
        ({"point_coords": [[3, 3], [4, 444]]}, "point_coords[1][1]"),
        ({"point_coords": [[1, 2]], "point_labels": [7]}, "point_labels[0]"),
        ({"prompts": [{}], "mask_input": [[1, 2], [3, 4]]}, "mask_input"),
    ],
)
def test_servers_errors_are_in_these_callers_words(
    http: httpx.Client, encoded: dict[str, str], body: Any, field: str
) -> None:
    answer = http.post("/sam2/segment_image", json={"image": encoded, **body})
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert answer.json()["message"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"sam2_version_id": "hiera_tny"}, "did you mean 'hiera_tiny'? served here: demo"),
        ({"model_id": "sam2/hiera_huge"}, "served here: demo"),
        (
            {"sam2_version_id": "hiera_tiny", "model_id": "dmeo"},
            "no model 'dmeo'; did you mean 'demo'? served here: demo",
        ),
    ],
)
def test_wrong_models_are_named(http: httpx.Client, encoded: dict[str, str], named: dict[str, str], said: str) -> None:
    for route in ("segment_image", "embed_image"):
        answer = http.post(f"/sam2/{route}", json={"image": encoded, **named})
        assert (answer.status_code, answer.json()["reason"]) == (400, "BAD_VERSION")
        assert said in answer.json()["message"]
        assert answer.json()["field"] in named
