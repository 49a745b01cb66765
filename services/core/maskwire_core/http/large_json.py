"""JSON that is large, or grows when it is parsed."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from maskwire_core.http.bodies import Body
from maskwire_core.http.problems import Problem

LARGE_BYTES = 1 << 17
"""Size in bytes from which on JSON is parsed and written outside of the event loop."""

_MAX_VALUES = 1_000_000
"""Values in one body: as Python objects they take up to 72 bytes each, and "[]," has three."""

_turn = asyncio.Lock()  # Python parses one at a time in any case, and what one takes meanwhile is enough

T = TypeVar("T")


async def in_turn(function: Callable[..., T], data: str | bytes, *arguments: object) -> T:
    """Calls a function that parses data: large data in another thread, one after the other.

    Raises:
        Problem: TOO_MANY_VALUES.
    """
    if len(data) < LARGE_BYTES:
        return function(data, *arguments)
    async with _turn:
        return await asyncio.to_thread(_checked, function, data, *arguments)


async def body_in_turn(function: Callable[..., T], body: Body, *arguments: object) -> T:
    """Calls a function that parses a body, as `in_turn`, and keeps no bytes of it: what the function returns counts for
    as many. Meanwhile they count once more.

    Raises:
        Problem: TOO_MANY_VALUES or TOO_MUCH_IN_PROGRESS.
    """
    size = len(body.data)
    if size < LARGE_BYTES:
        return function(body.text(), *arguments)
    async with _turn:
        with body.holding(size):
            return await asyncio.to_thread(_checked_body, function, body, *arguments)


def _checked_body(function: Callable[..., T], body: Body, *arguments: object) -> T:
    return _checked(function, body.text(), *arguments)


def _checked(function: Callable[..., T], data: str | bytes, *arguments: object) -> T:
    if isinstance(data, str):
        values = data.count(",") + data.count("[") + data.count("{")
    else:
        values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if values > _MAX_VALUES:
        raise Problem(413, f"the JSON has more than {_MAX_VALUES:,} values; send less at once", "TOO_MANY_VALUES")
    return function(data, *arguments)
