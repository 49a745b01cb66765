"""JSON read as messages: shorthands, and errors in the words of who wrote it."""

import asyncio
import json
import re
import time
import tracemalloc
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2
from maskwire_core.http.problems import Problem
from maskwire_gateway.rest.json_codec import load, text
from maskwire_gateway.rest.message_reader import Places, read_message, read_parameters

POINT = {"x_px": 260, "y_px": 130}
BOX = {"x_min_px": 10, "y_min_px": 20, "x_max_px": 30, "y_max_px": 40.5}

SHORT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "points": ({"prompts": [{"points": [[260, 130]]}]}, {"prompts": [{"points": [POINT]}]}),
    "labels": (
        {"prompts": [{"points": [[260, 130], {"xPx": 1, "y_px": 2}], "labels": [1, 0]}]},
        {"prompts": [{"points": [POINT | {"label": 1}, {"x_px": 1, "y_px": 2, "label": 0}]}]},
    ),
    "box": ({"prompts": [{"box": [10, 20, 30, 40.5]}]}, {"prompts": [{"box": BOX}]}),
    "words": (
        {"output": {"formats": ["png", "RLE", "packed_bits"], "candidates": "all", "logits_type": "fp16"}},
        {
            "output": {
                "formats": ["MASK_FORMAT_PNG", "MASK_FORMAT_RLE", "MASK_FORMAT_PACKED_BITS"],
                "candidates": "CANDIDATES_ALL",
                "logits_type": "DATA_TYPE_FP16",
            }
        },
    ),
    "long words": ({"output": {"formats": ["MASK_FORMAT_PNG"]}}, {"output": {"formats": ["MASK_FORMAT_PNG"]}}),
    "one word": ({"output": {"formats": "polygons"}}, {"output": {"formats": ["MASK_FORMAT_POLYGONS"]}}),
    "inline": (
        {"points": [[260, 130]], "box": [10, 20, 30, 40.5], "formats": ["png"], "wait_ms": 5},
        {"prompts": [{"points": [POINT], "box": BOX}], "output": {"formats": ["MASK_FORMAT_PNG"]}, "wait_ms": 5},
    ),
    "sam2's names": (
        {"point_coords": [[260, 130]], "point_labels": [0], "multimask_output": False},
        {"prompts": [{"points": [POINT | {"label": 0}]}], "output": {"multimask": False}},
    ),
    "sam2's names in prompts": (
        {"prompts": [{"point_coords": [[260, 130]], "point_labels": [1]}]},
        {"prompts": [{"points": [POINT | {"label": 1}]}]},
    ),
    "null": ({"prompts": None, "output": {"formats": None}, "points": None}, {"prompts": [{}], "output": {}}),
    "camelCase": ({"waitMs": 3, "output": {"maskThreshold": 0.5}}, {"wait_ms": 3, "output": {"mask_threshold": 0.5}}),
}


@pytest.mark.parametrize("name", SHORT)
def test_shorthands(name: str) -> None:
    short, long = SHORT[name]
    message, _ = read_message(json.dumps(short), decoder_pb2.SegmentRequest)
    assert message == ParseDict(long, decoder_pb2.SegmentRequest())


def test_a_mask_is_rows_of_numbers() -> None:
    for mask in ([[0.5, -1], [2, 3]], [[[0.5, -1], [2, 3]]]):
        message, _ = read_message(json.dumps({"mask_input": mask}), decoder_pb2.SegmentRequest)
        (prompt,) = message.prompts
        assert (prompt.mask.height, prompt.mask.width) == (2, 2)
        assert prompt.mask.data_type == types_pb2.DATA_TYPE_FP32
        assert prompt.mask.data.hex() == "0000003f000080bf0000004000004040"


def test_other_requests() -> None:
    grid, _ = read_message('{"points_per_side": 4, "multimask_output": false}', decoder_pb2.GenerateMasksRequest)
    assert (grid.grid.points_per_side, grid.multimask, grid.HasField("multimask")) == (4, False, True)
    click, _ = read_message(
        '{"segment": {"prompt_id": "a", "steps": [{"add_point": [3, 4]}]}, "masks_seen": "9"}',
        decoder_pb2.SegmentStreamRequest,
    )
    assert (click.segment.prompts[0].steps[0].add_point.y_px, click.masks_seen) == (4, 9)
    header = read_parameters({"priority": "bulk", "image_id": "a"}, encoder_pb2.EncodeImageHeader)
    assert header.priority == encoder_pb2.PRIORITY_BULK


def prompt(**fields: Any) -> dict[str, Any]:
    return {"prompts": [{}, fields]}


WRONG: dict[str, tuple[Any, str, str]] = {
    "field": (prompt(points=[{"x": 1}]), "prompts[1].points[0].x", "no field 'x'; did you mean 'x_px'?"),
    "field of the request": ({"promts": []}, "promts", "no field 'promts'; did you mean 'prompts'?"),
    "field of nothing": ({"output": {"zzz": 1}}, "output.zzz", "no field 'zzz'"),
    "text for a number": (
        prompt(points=[{"x_px": "abc", "y_px": 1}]),
        "prompts[1].points[0].x_px",
        'expected a number, got "abc"',
    ),
    "text in a pair": (prompt(points=[["abc", 1]]), "prompts[1].points[0][0]", 'expected a number, got "abc"'),
    "three numbers": (
        prompt(points=[[1, 2, 3]]),
        "prompts[1].points[0]",
        "expected [x, y] or an object with x_px, y_px, label, got [1, 2, 3]",
    ),
    "no list of points": (
        {"points": [260, 130]},
        "points[0]",
        "expected [x, y] or an object with x_px, y_px, label, got 260",
    ),
    "one point": ({"points": {"x_px": 1}}, "points", 'expected a list, got {"x_px": 1}'),
    "box of three": (
        {"box": [1, 2, 3]},
        "box",
        "expected [x_min, y_min, x_max, y_max] or an object with x_min_px, y_min_px, x_max_px, y_max_px, got [1, 2, 3]",
    ),
    "true for a number": ({"box": [1, 2, 3, True]}, "box[3]", "expected a number, got true"),
    "word": (
        {"output": {"formats": ["rle", "jpeg"]}},
        "output.formats[1]",
        "no value 'jpeg'; choose from logits, packed_bits, png, polygons, rle",
    ),
    "near word": ({"formats": ["pngs"]}, "formats[0]", "no value 'pngs'; did you mean 'png'?"),
    "number for a word": ({"candidates": 7}, "candidates", "expected one of best, all, got 7"),
    "yes": ({"save_logits": "yes"}, "save_logits", 'expected true or false, got "yes"'),
    "negative": ({"wait_ms": -1}, "wait_ms", "expected a whole number, not negative, got -1"),
    "fraction": (
        prompt(points=[POINT | {"label": 0.7}]),
        "prompts[1].points[0].label",
        "expected a whole number, got 0.7",
    ),
    "NaN": ('{"points": [[NaN, 1]]}', "points[0][0]", "expected a finite number, got NaN"),
    "too large": ('{"points": [[1, 1e999]]}', "points[0][1]", "expected a finite number, got Infinity"),
    "too large for 32 bits": ({"points": [[1, 1e39]]}, "points[0][1]", "expected a finite number, got 1e+39"),
    "NaN as text": ({"points": [["NaN", 1]]}, "points[0][0]", 'expected a number, got "NaN"'),
    "null in a list": ({"points": [None]}, "points[0]", "got null"),
    "half a character": ('{"image_id": "\\ud800"}', "image_id", "surrogate"),
    "base64": (prompt(mask={"data": "*"}), "prompts[1].mask.data", 'expected base64, got "*"'),
    "ragged rows": ({"mask_input": [[1], [1, 2]]}, "mask_input", "expected rows of finite numbers, SxS or 1xSxS"),
    "twice": ('{"output": {"multimask": true, "multimask": false}}', "output.multimask", "it is given twice"),
    "two names": (
        {"output": {"multimask": True, "multimask_output": True}},
        "output.multimask_output",
        "the same as multimask",
    ),
    "two cases": (prompt(points=[{"x_px": 1, "xPx": 2}]), "prompts[1].points[0].xPx", "the same as x_px"),
    "two places": ({"prompts": [{}], "points": [[1, 2]]}, "points", "prompts is there too; move points to prompts[0]"),
    "labels too few": ({"points": [[1, 2], [3, 4]], "labels": [1]}, "labels", "1 labels for 2 points"),
    "labels alone": ({"labels": [1]}, "labels", "1 labels for 0 points"),
    "label twice": ({"points": [POINT | {"label": 1}], "labels": [1]}, "labels[0]", "has a label of its own"),
    "no object": ([1], "", "the request: expected an object, got [1]"),
    "trailing": ('{} {"a": 1}', "", "invalid JSON: extra data at line 1, column 4"),
    "cut off": ('{"prompts": [', "", "invalid JSON: expecting value at line 1, column 14"),
    "a long number": ('{"wait_ms": ' + "9" * 5000 + "}", "", "a number that is too long"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_name_the_place_in_the_callers_words(name: str) -> None:
    body, field, said = WRONG[name]
    with pytest.raises(Problem) as caught:
        read_message(body if isinstance(body, str) else json.dumps(body), decoder_pb2.SegmentRequest)
    assert (caught.value.status, caught.value.reason, caught.value.field) == (400, "BAD_JSON", field)
    assert said in caught.value.message
    assert caught.value.message.startswith((f"{field}: ", "the request: ", "invalid JSON: "))
    assert "maskwire" not in caught.value.message


def test_a_name_among_many_that_is_given_twice_is_found_at_once() -> None:
    body = "".join(f'"{number}": 0, ' for number in range(100_000))
    started = time.thread_time()
    with pytest.raises(Problem, match="99999: it is given twice"):
        read_message(f'{{{body} "99999": 1}}', decoder_pb2.SegmentRequest)
    assert time.thread_time() - started < 10


def test_one_of() -> None:
    with pytest.raises(Problem) as caught:
        read_message('{"segment": {}, "set_image": {}}', decoder_pb2.SegmentStreamRequest)
    assert caught.value.message == "set_image: segment is there too; send one of them"


@pytest.mark.parametrize(
    ("body", "field", "place"),
    [
        ({"points": [[1, 2]]}, "prompts[0].points[0].y_px", "points[0][1]"),
        ({"point_coords": [[1, 2]], "point_labels": [5]}, "prompts[0].points[0].label", "point_labels[0]"),
        ({"prompts": [{"box": [1, 2, 3, 4]}]}, "prompts[0].box.x_max_px", "prompts[0].box[2]"),
        ({"box": [1, 2, 3, 4]}, "prompts[0].box", "box"),
        ({"prompts": [{"points": [POINT]}]}, "prompts[0].points[0].x_px", "prompts[0].points[0].x_px"),
        ({"formats": ["png"]}, "output.formats", "formats"),
        ({}, "image_id", "image_id"),
    ],
)
def test_fields_of_servers_errors_are_named_as_the_caller_did(body: Any, field: str, place: str) -> None:
    _, places = read_message(json.dumps(body), decoder_pb2.SegmentRequest)
    assert asyncio.run(places.find(field)) == place


def test_places_take_no_memory_of_their_own() -> None:
    data = json.dumps({"points": [[1, 2]] * 20_000})
    tracemalloc.start()
    message, places = read_message(data, decoder_pb2.SegmentRequest)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(message.prompts[0].points) == 20_000
    assert held < 5 * len(data)
    assert asyncio.run(places.find("prompts[0].points[19999].y_px")) == "points[19999][1]"


def test_answers_never_hold_what_json_has_no_word_for() -> None:
    answer = decoder_pb2.SegmentResponse(results=[types_pb2.PromptResult(prompt_id="NaN", object_score=float("-inf"))])
    answer.results[0].masks.add(score=float("nan")).polygons.add(coordinates_px=[1, 2])
    (result,) = json.loads(text(answer), parse_constant=pytest.fail)["results"]
    assert (result["prompt_id"], result["object_score"], result["masks"][0]["score"]) == ("NaN", None, None)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": "\xff"}', "not UTF-8"),
        ('{"a": ' + "9" * 5000 + "}", "a number that is too long"),
        ("[1, {", "at line 1, column 6"),
        ('{"a": [1, {"b": 2, "b": 3}]}', "a[1].b: it is given twice"),
    ],
)
def test_what_is_no_json_is_said(body: str | bytes, said: str) -> None:
    with pytest.raises(Problem, match=re.escape(said)) as caught:
        load(body)
    assert caught.value.reason == "BAD_JSON"


def test_fields_of_messages_that_were_not_json_have_their_own_names() -> None:
    assert asyncio.run(Places().find("open")) == "open"
    assert asyncio.run(Places().find("")) == ""
