"""What JSON takes in memory is known, and counted, before it is parsed."""

import asyncio
import contextlib
import json
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from maskwire_core.http.bodies import Body
from maskwire_core.http.large_json import LARGE_BYTES, body_in_turn, memory_of_json, memory_of_values
from maskwire_core.http.problems import Problem
from maskwire_core.scheduling.shares import Shares
from maskwire_gateway.rest.json_codec import load
from maskwire_gateway.roboflow.form_reader import read_form
from maskwire_gateway.roboflow.forms import SegmentForm

_MANY = 10_000
_VALUES = {
    "objects": ["{}"] * _MANY,
    "lists": ["[]"] * _MANY,
    "numbers": ["1.5", "12345", "-1e9"] * _MANY,
    "texts": ['"ab"', '"é猫"', '"😀"'] * _MANY,
    "members": ['{"a":1}', '{"":{"":[]}}'] * _MANY,
    "names": ["{" + ",".join(f'"name {at}":1' for at in range(_MANY)) + "}"],
    "depth": ['{"a":' * 50 + "{}" + "}" * 50] * (_MANY // 50),
}


@pytest.mark.parametrize("values", _VALUES)
def test_values_of_json_take_no_more_memory_than_is_counted(values: str) -> None:
    data = "[" + ",".join(_VALUES[values]) + "]"
    counted = asyncio.run(memory_of_values(data))
    assert asyncio.run(memory_of_values(data.encode())) == counted
    assert _most_memory(lambda: load(data)) < counted + len(data)


_CLICK = {"x": 1, "y": 1, "positive": True}
_FORMS: dict[str, Any] = {
    "prompts": {"prompts": [{}] * _MANY},
    "prompts of a click": {"prompts": [{"points": [_CLICK]}] * _MANY},
    "clicks": {"prompts": [{"points": [_CLICK] * _MANY}]},
    "wrong clicks": {"prompts": [{"points": [{}] * _MANY}]},
    "coordinates": {"point_coords": [[1, 2]] * _MANY, "point_labels": [1] * _MANY},
    "logits": {"mask_input": [[1.5] * 100] * 100},
}


@pytest.mark.parametrize("form", _FORMS)
def test_forms_take_no_more_memory_than_is_counted_of_their_json(form: str) -> None:
    data = json.dumps(_FORMS[form], separators=(",", ":"))

    def read() -> Any:
        with contextlib.suppress(Problem):
            return read_form(data, SegmentForm)

    assert _most_memory(read) < asyncio.run(memory_of_values(data)) + len(data)


def _most_memory(make: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        make()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [1 << 10, LARGE_BYTES])
def test_values_of_a_body_count_until_it_is_released(size: int) -> None:
    async def run() -> None:
        shares = Shares(1 << 30)
        body = Body(shares, "somebody")
        data = b"[" + b"{}," * (size // 3) + b"{}]"
        body.write(data)
        await body_in_turn(json.loads, body)
        assert shares.held == len(data) + await memory_of_values(data)
        body.release()
        assert not shares.held

        scarce = Body(Shares(10 * len(data)), "somebody")
        scarce.write(data)
        with pytest.raises(Problem) as refused:
            await body_in_turn(pytest.fail, scarce)
        assert (refused.value.status, refused.value.reason) == (413, "BODY_TOO_LARGE")

    asyncio.run(run())


@pytest.mark.parametrize("rare", ["", "é", "猫", "😀", r"\u00e9", r"\u732b", r"\ud83d\ude00", "é猫😀"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_json_takes_no_more_memory_than_is_counted(rare: str, encoding: str) -> None:
    """Python keeps a text with as many bytes a character as its rarest character needs."""
    data = f'["{"A" * 100_000}{rare}"]'.encode(encoding)
    text_bytes, value_bytes = memory_of_json(data)
    text = data.decode(encoding)
    overhead = sys.getsizeof("😀")
    assert sys.getsizeof(text) <= text_bytes + overhead
    assert sys.getsizeof(json.loads(text)[0]) <= value_bytes + overhead
    if not rare and encoding == "utf-8":
        assert text_bytes == value_bytes == len(data)
