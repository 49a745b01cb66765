"""Waits for encoders and the store where they are away for a moment, so that a track outlives their restarts."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from maskwire_core.errors import Unavailable
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

T = TypeVar("T")

_PATIENCE_S = 30


async def patient(step: Callable[[], Awaitable[T]]) -> T:
    """Does a step, again and again while something that it needs is away.

    Args:
        step: Does what may be done twice.

    Raises:
        Unavailable: It was away for half a minute.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(Unavailable),
        wait=wait_exponential_jitter(multiplier=0.05, max=1, jitter=0.05),
        stop=stop_after_delay(_PATIENCE_S),
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            return await step()
    raise AssertionError("unreachable: the last attempt returns or raises")
