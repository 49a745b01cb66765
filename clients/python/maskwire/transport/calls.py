"""Calls with a deadline, retries, and hedging between equal servers."""

import asyncio
import math
import random
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

import grpc
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_before_delay, wait_exponential_jitter

from maskwire.errors import DeadlineExceeded, MaskwireError, Overloaded, ServerUnavailable, from_rpc
from maskwire.token_bucket import TokenBucket
from maskwire.transport import tracing
from maskwire.transport.caller import Caller, Metadata
from maskwire.transport.channels import Channels
from maskwire.transport.losses import Losses

T = TypeVar("T")

EMBEDS = 3
"""How many times one call embeds an image again that the store has lost."""

IMAGE_HEADER = "maskwire-image"
"""Metadata of decoder calls: the image's name, percent-encoded. Load balancers keep an image to one decoder by it."""


@dataclass
class Attempt:
    """One attempt of a call."""

    channel: grpc.aio.Channel  # the channel to the server that is asked
    metadata: Metadata  # what to send with the call: the caller's token, the trace, and the image's name
    left_s: float  # seconds within which the answer must come
    is_sent: bool = True  # whether the server has been sent all of the request; uploads say when


async def call_with_retries(
    channels: Channels,
    caller: Caller,
    image_id: str | None,
    send: Callable[[Attempt], Awaitable[T]],
    hedge_s: float = math.inf,
    losses: Losses | None = None,
) -> T:
    """Calls a server; while it is away or busy, calls again or calls the next. A request under which two servers were
    lost is sent to no third.

    Args:
        channels: The servers.
        caller: On whose behalf, and for how long.
        image_id: Name of the image that the call is about; None where any server will do.
        send: Makes one attempt.
        hedge_s: Seconds without an answer after which another server is asked too; the first answer counts.
        losses: The servers that were lost under this request before, and that will be.

    Raises:
        MaskwireError: What the last attempt failed with.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + caller.timeout_s
    longest_s = min(caller.timeout_s, caller.retry_s)
    lost = losses if losses is not None else Losses()

    async def attempt(number: int) -> T:
        with tracing.span(f"{channels.kind} call"):
            channel, address = channels.pick(image_id, number)
            server = f"{channels.kind} at {address}"
            left_s = deadline - loop.time()
            if left_s <= 0:
                raise _late(server, caller)
            metadata = (*caller.metadata, *tracing.context())
            if image_id:
                metadata = (*metadata, (IMAGE_HEADER, quote(image_id)))
            this = Attempt(channel, metadata, left_s)
            try:
                answer = await send(this)
            except grpc.aio.AioRpcError as raised:
                if this.is_sent:
                    lost.note(raised)
                error = from_rpc(raised, server)
                if isinstance(error, ServerUnavailable) and not error.reason:
                    channels.mark_unreachable(address)
                raise error from raised
            except TimeoutError as error:
                raise _late(server, caller) from error
            channels.budget.give()
            return answer

    def pause(state: RetryCallState) -> float:
        wanted_s = _wait(state)
        left_s = longest_s - (state.seconds_since_start or 0)
        return wanted_s if wanted_s >= left_s else max(wanted_s, channels.budget.reserve(left_s))

    retry = None
    try:
        async for retry in AsyncRetrying(
            retry=retry_if_exception(lambda error: _retryable(error) and not lost.too_many),
            wait=pause,
            stop=stop_before_delay(longest_s),
            reraise=True,
        ):
            with retry:
                number = retry.retry_state.attempt_number - 1
                try:
                    if hedge_s == math.inf or len(channels.addresses) == 1 or lost:
                        return await attempt(number)
                    return await _hedged(attempt, number, hedge_s, channels.budget)
                except ServerUnavailable as error:
                    if lost.too_many:
                        raise lost.error(channels.kind) from error
                    raise
    except MaskwireError as error:
        # tenacity's state has the error, and the error's traceback has that state, and what the functions above hold,
        # such as a file: all of it would stay until Python looks for garbage.
        if retry is not None:
            retry.retry_state.outcome = None
        traceback.clear_frames(error.__traceback__)
        raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _late(server: str, caller: Caller) -> DeadlineExceeded:
    return DeadlineExceeded(f"the {server} gave no answer within {caller.timeout_s:g} s")


async def _hedged(attempt: Callable[[int], Awaitable[T]], number: int, after_s: float, budget: TokenBucket) -> T:
    """Makes an attempt, and a second one of the next server if the first takes longer than `after_s` seconds."""
    asked = {asyncio.ensure_future(attempt(number))}
    try:
        done, waiting = await asyncio.wait(asked, timeout=after_s)
        if waiting and budget.reserve(0) == 0:
            asked.add(asyncio.ensure_future(attempt(number + 1)))
            done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            if waiting and all(call.exception() for call in done):
                done, waiting = await asyncio.wait(asked)
        elif waiting:
            done, waiting = await asyncio.wait(asked)
        return next((call for call in done if call.exception() is None), next(iter(done))).result()
    finally:
        for call in asked:
            call.cancel()


_backoff = wait_exponential_jitter(multiplier=0.05, max=1, jitter=0.05)


def _retryable(error: BaseException) -> bool:
    if not isinstance(error, ServerUnavailable | Overloaded) or (error.retry_after_s or 0) < 0:
        return False
    return isinstance(error, ServerUnavailable) or error.retry_after_s is not None


def _wait(state: RetryCallState) -> float:
    """Seconds until the next attempt: what the server said and up to half as much more, so that callers do not all
    return at once; otherwise exponential backoff."""
    error = state.outcome.exception() if state.outcome is not None else None
    said = error.retry_after_s if isinstance(error, MaskwireError) else None
    return said * random.uniform(1, 1.5) if said else _backoff(state)
