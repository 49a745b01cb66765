"""Work on many items, several at a time."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

from maskwire.errors import MaskwireError

T = TypeVar("T")
Item = TypeVar("Item")


async def pipelined(
    items: Iterable[Item],
    work: Callable[[Item], Awaitable[T]],
    in_flight: int,
    yield_errors: bool,
    check: Callable[[], None],
) -> AsyncIterator[tuple[Item, Any]]:
    """Works on many items, several at a time. Yields each with its outcome as it is ready; takes items as it goes.

    Args:
        items: What to work on.
        work: Gives an item's result.
        in_flight: How many are worked on at a time.
        yield_errors: Yield a `MaskwireError` as an item's outcome instead of raising it.
        check: Raises where the work cannot go on, before each step.
    """
    waiting = iter(items)
    running: dict[asyncio.Future[T], Item] = {}
    try:
        while True:
            check()
            while len(running) < in_flight and (following := list(itertools.islice(waiting, 1))):
                running[asyncio.ensure_future(work(following[0]))] = following[0]
            if not running:
                return
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                item, error = running.pop(task), task.exception()
                if error is not None and not (yield_errors and isinstance(error, MaskwireError)):
                    raise error
                yield item, error if error is not None else task.result()
                check()
    finally:
        for task in running:
            task.cancel()
