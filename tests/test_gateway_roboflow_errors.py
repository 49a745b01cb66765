"""/sam2: what is wrong with a request, and where."""

from typing import Any

import httpx
import pytest
from wire import as_base64, picture

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
        ["body", "prompts", "prompts", 0, "points", 0, "y"],
    ),
    "NaN": (
        '{"prompts": [{"points": [{"x": NaN, "y": 1, "positive": true}]}]}',
        ["body", "prompts", "prompts", 0, "points", 0, "x"],
    ),
    "infinity": ('{"point_coords": [[1, 1e999]]}', ["body", "point_coords", 0, 1]),
    "three coordinates": ('{"point_coords": [[1, 2, 3]]}', ["body", "point_coords", 0]),
    "prompts": ('{"prompts": 3}', ["body", "prompts"]),
    "multimask": ('{"multimask_output": "perhaps"}', ["body", "multimask_output"]),
    "image_id": ('{"image_id": 3}', ["body", "image_id"]),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_bodies_are_422_with_their_place(http: httpx.Client, name: str) -> None:
    body, place = INVALID[name]
    answer = http.post("/sam2/segment_image", content=body)
    assert answer.status_code == 422, answer.text
    (detail, *_) = answer.json()["detail"]
    assert detail["loc"][: len(place)] == place
    assert detail["msg"]
