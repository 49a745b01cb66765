"""JSON that is large, or grows when it is parsed."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import TypeVar

from maskwire_core.http.bodies import Body
from maskwire_core.http.problems import Problem
from maskwire_core.runtime.in_thread import in_thread

LARGE_BYTES = 1 << 17
"""Size in bytes from which on JSON is parsed and written outside of the event loop."""

_MAX_VALUES = 1_000_000
"""Values in one body; "[]," has three."""

_BYTES_OF = {b"{": 640, b":": 96, b"[": 112, b'"': 48, b",": 48}
"""The most memory, in bytes, that a character of JSON stands for: as a Python value, beside its text, and as what is
made of that, the largest of which is an object of a form. Some of these are in texts and stand for nothing."""

_BELOW_U_0100, _BELOW_U_10000 = bytes(range(0xC4)), bytes(range(0xF0))  # what UTF-8 has in characters below these
_BEYOND_U_FFFF, _BEYOND_U_00FF = re.compile(rb"\\u[dD][89a-bA-B]"), re.compile(rb"\\u(?!00)")

_turn = asyncio.Lock()  # Python parses one at a time in any case, and what one takes meanwhile is enough

T = TypeVar("T")


async def in_turn(function: Callable[..., T], data: str | bytes, *arguments: object) -> T:
    """Calls a function that parses data: large data in another thread, one after the other. The data's memory, with
    `memory_of_values`, must count already.

    Raises:
        Problem: TOO_MANY_VALUES.
    """
    if len(data) < LARGE_BYTES:
        return function(data, *arguments)
    async with _turn:
        return await in_thread(_checked, function, data, *arguments)


async def body_in_turn(function: Callable[..., T], body: Body, *arguments: object) -> T:
    """Calls a function that parses a body, as `in_turn`, and keeps no bytes of it. What the function returns counts for
    the body, and while it is parsed so does the text: Python's takes up to four bytes a character, all of them as many
    as the rarest.

    Raises:
        Problem: TOO_MANY_VALUES or TOO_MUCH_IN_PROGRESS.
    """
    if body.size < LARGE_BYTES:
        body.hold(_memory_of_values(body.data) + memory_of_json(body.data)[1] - body.size)
        return function(body.text(), *arguments)
    async with _turn:
        values = await in_thread(_checked, _memory_of_values, body.data)
        text_bytes, value_bytes = await in_thread(memory_of_json, body.data)
        body.hold(values + value_bytes - body.size)
        with body.holding(text_bytes):
            return await in_thread(_parsed, function, body, *arguments)


async def memory_of_values(data: str | bytes) -> int:
    """Returns the most bytes of memory that JSON's values, and what is made of them, take beside its texts."""
    return _memory_of_values(data) if len(data) < LARGE_BYTES else await in_thread(_memory_of_values, data)


def _memory_of_values(data: str | bytes) -> int:
    if isinstance(data, str):
        return sum(data.count(character.decode()) * size for character, size in _BYTES_OF.items())
    return sum(data.count(character) * size for character, size in _BYTES_OF.items())


def memory_of_json(data: bytes) -> tuple[int, int]:
    """Returns the most bytes of memory that JSON takes as text, and those that the texts in it take."""
    if json.detect_encoding(data) not in ("utf-8", "utf-8-sig"):
        return 4 * len(data), 4 * len(data)
    in_text = in_values = 1
    if not data.isascii():
        beyond = data.translate(None, _BELOW_U_0100)
        in_text = in_values = (4 if beyond.translate(None, _BELOW_U_10000) else 2) if beyond else 1
    if b"\\u" in data:
        escaped = 4 if _BEYOND_U_FFFF.search(data) else 2 if _BEYOND_U_00FF.search(data) else 1
        in_values = max(in_values, escaped)
    return in_text * len(data), in_values * len(data)


def _parsed(function: Callable[..., T], body: Body, *arguments: object) -> T:
    return function(body.text(), *arguments)


def _checked(function: Callable[..., T], data: str | bytes, *arguments: object) -> T:
    if isinstance(data, str):
        values = data.count(",") + data.count("[") + data.count("{")
    else:
        values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if values > _MAX_VALUES:
        raise Problem(413, f"the JSON has more than {_MAX_VALUES:,} values; send less at once", "TOO_MANY_VALUES")
    return function(data, *arguments)
