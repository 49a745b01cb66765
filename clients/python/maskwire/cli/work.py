"""Work on many images, several at a time."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from types import FrameType
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
    with ThreadPoolExecutor(at_once) as threads:
        try:
            yield from zip(items, threads.map(_attempting(work), items), strict=True)
        finally:
            threads.shutdown(cancel_futures=True)


def work_until_stopped(
    items: Sequence[Item], work: Callable[[Item], T], at_once: int, stopping: threading.Event
) -> Iterator[list[tuple[Item, T | MaskwireError]]]:
    """Yields the items that are done, each with its result or with the error that it raised, as soon as they are.

    Args:
        items: The items.
        work: Computes the result of an item.
        at_once: Largest number of items in progress.
        stopping: Once it is set, nothing further is begun, and what is in progress is finished.

    Yields:
        What was done since the last time: at least one item.
    """
    attempt = _attempting(work)
    waiting, running = iter(items), dict[Future[T | MaskwireError], Item]()
    threads = ThreadPoolExecutor(at_once)
    try:
        while True:
            for item in islice(waiting, at_once - len(running)):
                if stopping.is_set():
                    break
                running[threads.submit(attempt, item)] = item
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            yield [(running.pop(each), each.result()) for each in done]
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _attempting(work: Callable[[Item], T]) -> Callable[[Item], T | MaskwireError]:
    """Makes a function return the errors that it raises."""

    def attempt(item: Item) -> T | MaskwireError:
        try:
            return work(item)
        except MaskwireError as error:
            return error

    return attempt


@contextlib.contextmanager
def stopped_by_signals(stopping: threading.Event, say: Callable[[], None]) -> Iterator[list[int]]:
    """Makes Ctrl-C and SIGTERM set an event, so that what is in progress can be finished; a second one ends at once.

    Args:
        stopping: The event.
        say: Called at the first signal.

    Yields:
        A list that gets the number of the first signal.
    """
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        stopping.set()
        say()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
