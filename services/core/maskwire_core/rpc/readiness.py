"""Periodic self-tests, whose outcome the health service reports."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

_LONGEST_S = 60
_FAILURES = 3
_AGAIN_S = 1.0


async def watch(
    self_test: Callable[[], Awaitable[None]],
    period_s: float,
    tell: Callable[[bool], Awaitable[None]],
    broken: asyncio.Event,
) -> None:
    """Runs self-tests until three in a row have failed.

    Args:
        self_test: Does a small piece of the server's work. It fails if it raises or takes more than a minute, and
            returns at once while real work is being done, since a busy server is not a broken one.
        period_s: Seconds from one self-test to the next while they succeed.
        tell: Called with the outcome of the latest self-test when it differs from the one before.
        broken: Set after three failures in a row, so that the process exits and is started again.
    """
    failures = 0
    while not broken.is_set():
        await asyncio.sleep(_AGAIN_S if failures else period_s)
        try:
            async with asyncio.timeout(_LONGEST_S):
                await self_test()
        except Exception as error:  # any failure means that the server cannot do its work
            failures += 1
            log.error("the self-test failed: %s", str(error) or type(error).__name__)
            if failures == 1:
                await tell(False)
            if failures == _FAILURES:
                broken.set()
        else:
            if failures:
                await tell(True)
            failures = 0
