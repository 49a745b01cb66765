"""How calls are made: with a deadline, retries, and uploads that stop when nobody needs them."""

import asyncio
import itertools
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_before_delay, wait_exponential_jitter

from maskwire.errors import DeadlineExceeded, MaskwireError, Overloaded, ServerUnavailable, from_rpc
from maskwire.transport import tracing
from maskwire.transport.channels import Channels
from maskwire.transport.retry_budget import RetryBudget
from maskwire.v1 import encoder_pb2

if TYPE_CHECKING:
    from maskwire.v1 import encoder_pb2_grpc  # its async stub exists for type checkers only

T = TypeVar("T")
Item = TypeVar("Item")

EMBEDS = 3
"""How often one call embeds an image anew that the store loses."""

_CHUNK_BYTES = 1 << 16  # of which some are on their way at a time; see channels.py


Attempt = Callable[[grpc.aio.Channel, float], Awaitable[T]]
"""Makes a call on a channel, to be answered within a number of seconds."""


async def retrying(
    channels: Channels,
    key: str | None,
    attempt: Attempt[T],
    timeout_s: float,
    retry_s: float,
    hedge_s: float = math.inf,
) -> T:
    """Calls a server; while it is away or busy, calls again or calls the next.

    Args:
        channels: The servers.
        key: Image that the call is about; None where any server will do.
        attempt: Makes the call.
        timeout_s: Longest time for all attempts.
        retry_s: How long to go on trying.
        hedge_s: After this time without an answer, another server is asked too, and the first answer counts.

    Raises:
        MaskwireError: What the last attempt failed with.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    longest_s = min(timeout_s, retry_s)

    async def ask(number: int) -> T:
        with tracing.span(f"{channels.kind} call"):
            return await asked(number)

    async def asked(number: int) -> T:
        channel, address = channels.pick(key, number)
        server = f"{channels.kind} at {address}"
        left_s = deadline - loop.time()
        if left_s <= 0:
            raise _late(server, timeout_s)
        try:
            answer = await attempt(channel, left_s)
        except grpc.aio.AioRpcError as raised:
            error = from_rpc(raised, server)
            if isinstance(error, ServerUnavailable) and not error.reason:
                channels.unreachable(address)
            raise error from raised
        except TimeoutError as error:
            raise _late(server, timeout_s) from error
        channels.budget.succeeded()
        return answer

    def pause(state: RetryCallState) -> float:
        wanted_s = _wait(state)
        left_s = longest_s - (state.seconds_since_start or 0)
        return wanted_s if wanted_s >= left_s else max(wanted_s, channels.budget.reserve(left_s))

    async for retry in AsyncRetrying(
        retry=retry_if_exception(_retryable), wait=pause, stop=stop_before_delay(longest_s), reraise=True
    ):
        with retry:
            number = retry.retry_state.attempt_number - 1
            if hedge_s == math.inf or len(channels.addresses) == 1:
                return await ask(number)
            return await _hedged(ask, number, hedge_s, channels.budget)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _late(server: str, timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"the {server} gave no answer within {timeout_s:g} s")


async def _hedged(ask: Callable[[int], Awaitable[T]], number: int, after_s: float, budget: RetryBudget) -> T:
    asked = {asyncio.ensure_future(ask(number))}
    try:
        done, waiting = await asyncio.wait(asked, timeout=after_s)
        if waiting and budget.take():
            asked.add(asyncio.ensure_future(ask(number + 1)))
            done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            if waiting and all(call.exception() for call in done):
                done, waiting = await asyncio.wait(asked)
        elif waiting:
            done, waiting = await asyncio.wait(asked)
        return next((call for call in done if call.exception() is None), next(iter(done))).result()
    finally:
        for call in asked:
            call.cancel()


async def upload(
    stub: "encoder_pb2_grpc.EncoderServiceAsyncStub",
    header: encoder_pb2.EncodeImageHeader,
    data: bytes,
    timeout_s: float,
    uploading: asyncio.Semaphore,
) -> encoder_pb2.EncodeImageResponse:
    """Sends the header, and the bytes if the server wants them, as many images' at a time as the semaphore lets."""
    call: Any = stub.EncodeImage(timeout=timeout_s)
    try:
        await call.write(encoder_pb2.EncodeImageRequest(header=header))
        if ("maskwire-content", "needed") in (tuple(pair) for pair in await call.initial_metadata()):
            async with uploading:
                for start in range(0, len(data), _CHUNK_BYTES):
                    await call.write(encoder_pb2.EncodeImageRequest(chunk=data[start : start + _CHUNK_BYTES]))
            await call.done_writing()
    except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
        pass  # the call has ended before the upload; its answer tells why, better than the failed write does
    except asyncio.CancelledError:
        call.cancel()
        raise
    response: encoder_pb2.EncodeImageResponse = await call
    return response


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


_backoff = wait_exponential_jitter(multiplier=0.05, max=1, jitter=0.05)


def _retryable(error: BaseException) -> bool:
    if not isinstance(error, ServerUnavailable | Overloaded) or (error.retry_after_s or 0) < 0:
        return False
    return isinstance(error, ServerUnavailable) or error.retry_after_s is not None


def _wait(state: RetryCallState) -> float:
    """As long as the server said and a little longer, so that not all come back together; else longer each time."""
    error = state.outcome.exception() if state.outcome is not None else None
    said = error.retry_after_s if isinstance(error, MaskwireError) else None
    return said * random.uniform(1, 1.5) if said else _backoff(state)
