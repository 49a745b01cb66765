"""How calls are made: with a deadline, retries, and uploads that stop when nobody needs them."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_exponential_jitter

from maskwire.channels import Channels
from maskwire.errors import DeadlineExceeded, MaskwireError, Overloaded, ServerUnavailable, from_rpc
from maskwire.v1 import encoder_pb2

if TYPE_CHECKING:
    from maskwire.v1 import encoder_pb2_grpc  # its async stub exists for type checkers only

T = TypeVar("T")
Item = TypeVar("Item")

_CHUNK_BYTES = 1 << 20


async def retrying(
    channels: Channels,
    key: str | None,
    attempt: Callable[[grpc.aio.Channel, float], Awaitable[T]],
    timeout_s: float,
    retry_s: float,
) -> T:
    """Calls a server; while it is away or busy, calls again or calls the next.

    Args:
        channels: The servers.
        key: Image that the call is about; None where any server will do.
        attempt: Makes the call on a channel within a number of seconds.
        timeout_s: Longest time for all attempts.
        retry_s: How long to go on trying.

    Raises:
        MaskwireError: What the last attempt failed with.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    async for retry in AsyncRetrying(
        retry=retry_if_exception(_retryable), wait=_wait, stop=stop_after_delay(retry_s), reraise=True
    ):
        with retry:
            channel, server = channels.pick(key, retry.retry_state.attempt_number - 1)
            left_s = deadline - loop.time()
            if left_s <= 0:
                raise DeadlineExceeded(f"the {server} gave no answer within {timeout_s:g} s")
            try:
                return await attempt(channel, left_s)
            except grpc.aio.AioRpcError as error:
                raise from_rpc(error, server) from error
    raise AssertionError("unreachable: the last attempt returns or raises")


async def upload(
    stub: "encoder_pb2_grpc.EncoderServiceAsyncStub",
    header: encoder_pb2.EncodeImageHeader,
    data: bytes,
    timeout_s: float,
) -> encoder_pb2.EncodeImageResponse:
    """Sends the header, and the bytes if the server wants them."""
    call: Any = stub.EncodeImage(timeout=timeout_s)
    try:
        await call.write(encoder_pb2.EncodeImageRequest(header=header))
        if ("maskwire-content", "needed") in (tuple(pair) for pair in await call.initial_metadata()):
            for start in range(0, len(data), _CHUNK_BYTES):
                await call.write(encoder_pb2.EncodeImageRequest(chunk=data[start : start + _CHUNK_BYTES]))
            await call.done_writing()
    except asyncio.InvalidStateError:
        pass  # the server has answered before the end of the upload; the answer tells why
    except asyncio.CancelledError:
        call.cancel()
        raise
    response: encoder_pb2.EncodeImageResponse = await call
    return response


async def pipelined(
    items: Iterable[Item], work: Callable[[Item], Awaitable[T]], in_flight: int
) -> AsyncIterator[tuple[Item, T | MaskwireError]]:
    """Works on many items, several at a time. Yields each with its outcome as it is ready; takes items as it goes."""
    waiting = iter(items)
    running: dict[asyncio.Future[T], Item] = {}
    try:
        while True:
            while len(running) < in_flight and (following := list(itertools.islice(waiting, 1))):
                running[asyncio.ensure_future(work(following[0]))] = following[0]
            if not running:
                return
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                item, error = running.pop(task), task.exception()
                if error is not None and not isinstance(error, MaskwireError):
                    raise error
                yield item, error if error is not None else task.result()
    finally:
        for task in running:
            task.cancel()


_backoff = wait_exponential_jitter(multiplier=0.05, max=1, jitter=0.05)


def _retryable(error: BaseException) -> bool:
    return isinstance(error, ServerUnavailable) or (isinstance(error, Overloaded) and error.retry_after_s is not None)


def _wait(state: RetryCallState) -> float:
    """As long as the server said, else longer each time."""
    error = state.outcome.exception() if state.outcome is not None else None
    said = error.retry_after_s if isinstance(error, MaskwireError) else None
    return said if said is not None else _backoff(state)
