"""Bodies of requests take the memory that is counted for them, and no more."""

import asyncio
import base64
import functools
import json
import os
import threading
import tracemalloc
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskwire_core.http import images
from maskwire_core.http.bodies import Bodies, Body
from maskwire_core.http.large_json import body_in_turn, memory_of_values
from maskwire_core.http.memory import Held, release_failed, set_holder
from maskwire_core.http.problems import Problem
from maskwire_core.runtime.in_thread import in_thread
from maskwire_core.runtime.process_memory import forget_frames
from maskwire_core.scheduling.shares import Shares
from maskwire_gateway.roboflow.form_reader import read_form
from maskwire_gateway.roboflow.forms import SegmentForm
from starlette.requests import Request

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
        body.write(json.dumps("x" * (size - 2)).encode())
        assert await body_in_turn(parse, body) == "x" * (size - 2)
        values = await memory_of_values(b'""')
        assert (body.data, held, shares.held) == (
            b"",
            [2 * size + values],
            size + values,
        )  # the text counts for the body
        body.release()

        body = Body(shares, "somebody")
        body.write(json.dumps("x" * (size - 2)).encode())
        shares.add("others", 9 * MIB)
        with pytest.raises(Problem) as refused:
            await body_in_turn(parse, body)
        assert refused.value.reason == "TOO_MUCH_IN_PROGRESS"
        assert len(held) == 1

    asyncio.run(run())


def test_a_refused_body_is_not_kept_while_the_rest_of_it_comes() -> None:
    kept = []

    async def run() -> None:
        shares, pieces = Shares(12 * MIB), iter(range(40))

        async def next_piece() -> Any:
            kept.append(tracemalloc.get_traced_memory()[0])
            return {"type": "http.request", "body": bytes(MIB), "more_body": next(pieces, None) is not None}

        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": []}
        with pytest.raises(Problem) as refused:
            async with Bodies(shares, 30).receive(Request(scope, next_piece), 100 * MIB):
                pass
        assert refused.value.reason == "BODY_TOO_LARGE"
        assert shares.held == 0

    tracemalloc.start()
    try:
        asyncio.run(run())
    finally:
        tracemalloc.stop()
    assert max(kept) > 7 * MIB
    assert kept[-1] < 4 * MIB


def test_what_was_released_counts_nothing_any_more() -> None:
    """Answers may come for a socket that was closed."""
    shares = Shares(MIB)
    held = Held(shares, "somebody")
    held.hold(1000)
    held.release()
    held.add(1000)
    held.hold(1000)
    held.give_back(1000)
    assert (held.held_bytes, shares.held) == (0, 0)


def test_what_a_failed_request_has_taken_counts_until_its_error_is_answered() -> None:
    """Until then the error's traceback keeps what was made of the body."""

    async def run() -> None:
        async def whole() -> Any:
            return {"type": "http.request", "body": bytes(MIB), "more_body": False}

        shares = Shares(10 * MIB)
        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": []}
        answer = Held(shares, "somebody")
        set_holder(scope, "somebody", answer)

        async def fail() -> None:
            async with Bodies(shares, 30).receive(Request(scope, whole), 10 * MIB) as body:
                with body.holding(2 * MIB):
                    raise Problem(400, "no")

        with pytest.raises(Problem):
            await fail()
        assert shares.held == 3 * MIB
        release_failed(scope)
        assert shares.held == 0
        answer.hold(MIB)  # the answer itself
        assert shares.held == MIB

        async with Bodies(shares, 30).receive(Request(scope, whole), 10 * MIB) as body:
            with body.holding(2 * MIB):
                assert shares.held == 4 * MIB
            assert shares.held == 2 * MIB
        assert shares.held == MIB

    asyncio.run(run())


class _TellsEarly(ThreadPoolExecutor):
    """One whose threads tell a call's result, and then do not run again for a while."""

    def __init__(self) -> None:
        super().__init__(1)
        self.runs_again = threading.Event()

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> "Future[Any]":
        told: Future[Any] = Future()

        def run(function: Any) -> None:
            result = None
            try:
                result = function()
                told.set_result(result)
            except BaseException as error:
                told.set_exception(error)
            self.runs_again.wait()  # it has `function` and `result`

        super().submit(run, functools.partial(function, *arguments, **options))
        return told


@pytest.mark.parametrize("fails", [False, True])
def test_another_thread_keeps_nothing_of_what_it_has_done(fails: bool) -> None:
    class Large:
        pass

    def work(large: Large) -> Large:
        if fails:
            raise ValueError(large.__class__.__name__)
        return large

    async def run() -> None:
        executor = _TellsEarly()
        asyncio.get_running_loop().set_default_executor(executor)
        large = Large()
        gone = weakref.ref(large)
        try:
            result = await in_thread(work, large)
            assert result is large
            del result
        except ValueError as error:
            forget_frames(error)
        try:
            del large
            assert gone() is None
        finally:
            executor.runs_again.set()

    asyncio.run(run())


def test_an_answered_error_keeps_nothing_of_its_request() -> None:
    class Large:
        pass

    large = Large()
    gone = weakref.ref(large)

    def fail(large: Large) -> None:
        try:
            raise ValueError(large)  # as pydantic's errors have what is wrong
        except ValueError as error:
            raise Problem(400, "no") from error

    try:
        fail(large)
    except Problem as problem:
        del large
        forget_frames(problem)
        assert gone() is None


def test_a_body_is_read_in_the_encoding_that_json_has() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        body = Body(Shares(MIB), "")
        body.write('{"name": "ß"}'.encode(encoding))
        assert json.loads(body.text()) == {"name": "ß"}
    body.write(b'{"name": "\xff"}')
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
