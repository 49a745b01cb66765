"""Bodies of requests take the memory that is counted for them, and no more."""

import asyncio
import base64
import json
import os
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskwire_core.http import images
from maskwire_core.http.bodies import Body
from maskwire_core.http.large_json import body_in_turn
from maskwire_core.http.problems import Problem
from maskwire_core.scheduling.shares import Shares
from maskwire_gateway.roboflow.form_reader import read_form
from maskwire_gateway.roboflow.forms import SegmentForm

MIB = 1 << 20
_TOLERATED = str.maketrans({"-": "+", "_": "/", "\n": "", "\r": "", " ": "", "\t": ""})


def decoded_at_once(text: str) -> bytes | None:
    """What is tolerated, without pieces; None for what is no base64."""
    for plain in (text, (tolerated := text.translate(_TOLERATED).rstrip("=")) + "=" * (-len(tolerated) % 4)):
        try:
            return base64.b64decode(plain, validate=True)
        except ValueError:
            pass
    return None


@given(
    data=st.binary(max_size=40),
    line=st.integers(3, 50),
    is_for_urls=st.booleans(),
    end=st.sampled_from(("", "=", "==", "\n", " =", "= ", "====", "*", "A")),
    is_padded=st.booleans(),
)
def test_base64_in_pieces_is_what_it_is_at_once(
    data: bytes, line: int, is_for_urls: bool, end: str, is_padded: bool
) -> None:
    text = (base64.urlsafe_b64encode(data) if is_for_urls else base64.b64encode(data)).decode()
    text = text if is_padded else text.rstrip("=")
    text = "\n".join(text[at : at + line] for at in range(0, len(text), line)) + end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_PIECE", 8)
        try:
            found: bytes | None = images.decode_base64(f"data:,{text}", len("data:,"))
        except ValueError:
            found = None
    assert found == decoded_at_once(text)


def test_base64_takes_the_memory_of_its_result() -> None:
    data = os.urandom(24 * MIB)
    text = base64.b64encode(data).decode()
    tracemalloc.start()
    try:
        assert images.decode_image(f"data:image/png;base64,{text}") == data
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - len(text) < 1.5 * len(data)  # the data URI itself was made meanwhile


def test_a_body_of_json_counts_once_more_while_it_is_parsed() -> None:
    async def run() -> None:
        size, held = MIB, []
        shares = Shares(10 * MIB)

        def parse(text: str | bytes) -> Any:
            held.append(shares.held)
            return json.loads(text)

        body = Body(shares, "somebody")
        body.data = json.dumps("x" * (size - 2)).encode()
        body.hold(size)
        assert await body_in_turn(parse, body) == "x" * (size - 2)
        assert (body.data, held, shares.held) == (b"", [2 * size], size)  # the text counts for the body

        body.data = json.dumps("x" * (size - 2)).encode()
        shares.add("others", 9 * MIB)
        with pytest.raises(Problem) as refused:
            await body_in_turn(parse, body)
        assert refused.value.reason == "TOO_MUCH_IN_PROGRESS"
        assert len(held) == 1

    asyncio.run(run())


def test_a_body_is_read_in_the_encoding_that_json_has() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        body = Body(Shares(MIB), "")
        body.data = '{"name": "ß"}'.encode(encoding)
        assert json.loads(body.text()) == {"name": "ß"}
    body.data = b'{"name": "\xff"}'
    assert body.text() == b'{"name": "\xff"}'  # for whoever parses it to say so


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"x" * MIB: 1}, "no field 'xxx"),
        ({f"a{number}": 1 for number in range(1000)}, "it has 1000 fields"),
        ({"prompts": [0] * 1000}, "expected an object, got 0"),
        ({"point_coords": [[1]] * 1000, "point_labels": ["x"] * 1000}, "expected 2 numbers, got [1]"),
    ],
)
def test_the_errors_of_a_form_are_few_and_short(form: Any, said: str) -> None:
    with pytest.raises(Problem) as refused:
        read_form(json.dumps(form), SegmentForm)
    assert refused.value.message.startswith(said)
    assert len(json.dumps(refused.value.content())) < 1000
