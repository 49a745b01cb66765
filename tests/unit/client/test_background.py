"""Blocking iterators over work on the background event loop."""

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from maskwire.background import iterate_in_background

_TURNS = 20  # turns of the event loop that work takes to end once it was cancelled


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Processes of parallel tests ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_work_before_it_is_raised(ctrl_c: None) -> None:
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    ended = threading.Event()

    async def work() -> AsyncIterator[int]:
        try:
            yield 1
            # A signal that comes just before Python waits for a lock does not end the waiting.
            while sys._current_frames()[main_thread].f_code is not threading.Condition.wait.__code__:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.1)
            signal.pthread_kill(main_thread, signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            ended.set()

    items = iterate_in_background(work())
    assert next(items) == 1
    with pytest.raises(KeyboardInterrupt):
        next(items)
    assert ended.is_set()
