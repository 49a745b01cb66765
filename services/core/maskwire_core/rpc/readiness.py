"""Whether a server does its work: tried again and again, and told by its health."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

_LONGEST_S = 60
_FAILURES = 3
_AGAIN_S = 1.0


async def watch(
    canary: Callable[[], Awaitable[None]],
    period_s: float,
    tell: Callable[[bool], Awaitable[None]],
    broken: asyncio.Event,
) -> None:
    """Runs a canary for good.

    Args:
        canary: Does a small piece of the server's work; raises, or takes over a minute, when that is not done right.
            It returns at once while real work is getting done: a busy server is no broken one.
        period_s: From one to the next while they succeed.
        tell: Told whether the latest succeeded, when that changes.
        broken: Set after three failures in a row: the process is to be started anew.
    """
    failures = 0
    while not broken.is_set():
        await asyncio.sleep(_AGAIN_S if failures else period_s)
        try:
            async with asyncio.timeout(_LONGEST_S):
                await canary()
        except Exception as error:  # whatever it is, the work is not done
            failures += 1
            log.error("the canary failed: %s", str(error) or type(error).__name__)
            if failures == 1:
                await tell(False)
            if failures == _FAILURES:
                broken.set()
        else:
            if failures:
                await tell(True)
            failures = 0
