"""Functions on other threads, which keep nothing of what they are given once they have returned."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Calls a function on another thread, in the caller's context.

    With `asyncio.to_thread`, that thread keeps the arguments and the result until it runs once more after the caller
    has been told. While others compute, that takes tenths of a second, in which large ones are still there that count
    no longer. For the same reason a caller who is cancelled waits until the function has returned.
    """
    call = _Call(function, arguments, options)
    del arguments, options
    running = asyncio.ensure_future(asyncio.to_thread(call.run))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):  # once more
                await asyncio.wait({running})
        raise
    return call.result()


class _Call(Generic[T]):
    def __init__(self, function: Callable[..., T], arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._given = [(function, arguments, options)]
        self._made: list[T] = []

    def run(self) -> None:
        function, arguments, options = self._given.pop()
        self._made.append(function(*arguments, **options))

    def result(self) -> T:
        return self._made.pop()
