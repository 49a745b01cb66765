"""Work that is done again and again in the background."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def repeating(period_s: float, action: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Awaits `action` every `period_s` seconds while the body runs. Its errors are logged."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(period_s)
            try:
                await action()
            except Exception as error:  # whatever it is, the next attempt may succeed
                log.warning("%s", error)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
