"""Work on many images, several at a time."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from maskwire.errors import MaskwireError

Item = TypeVar("Item")
T = TypeVar("T")


def work_through(
    items: Sequence[Item], work: Callable[[Item], T], at_once: int
) -> Iterator[tuple[Item, T | MaskwireError]]:
    """Yields each item with its result, or with the error that it raised, in order.

    After Ctrl-C or when the iterator is closed, nothing further is begun.
    """

    def attempt(item: Item) -> T | MaskwireError:
        try:
            return work(item)
        except MaskwireError as error:
            return error

    with ThreadPoolExecutor(at_once) as threads:
        try:
            yield from zip(items, threads.map(attempt, items), strict=True)
        finally:
            threads.shutdown(cancel_futures=True)
