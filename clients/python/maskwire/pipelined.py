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
    """Processes many items concurrently, and yields each with its result in order of completion.

    Args:
        items: The items; the iterable is consumed as the work proceeds.
        work: Computes the result of an item.
        in_flight: Largest number of items in progress.
        yield_errors: Yield a `MaskwireError` as the result of its item instead of raising it.
        check: Called before each step; raises if the work cannot continue, as after `close`.
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
