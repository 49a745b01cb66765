"""A SegmentStream that outlives its server."""

import asyncio
import contextlib
import itertools
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from maskwire.errors import DeadlineExceeded, ImageNotFound, MaskwireError, ServerUnavailable, from_rpc, from_status
from maskwire.transport.caller import Caller
from maskwire.transport.calls import EMBEDS, Attempt, call_with_retries
from maskwire.transport.channels import Channels
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc

_CLOSE_S = 1
_MAX_SENDS = 4  # of one request, where streams keep breaking under it

Answer = asyncio.Future[Any]


@dataclass(eq=False)
class _Request:
    message: pb.SegmentStreamRequest
    answer: Answer
    sends: int = 0


class _Moved(Exception):
    """The stream's requests are to be sent again on another one."""


class Stream:
    """Sends requests in order and gives their answers, over one stream after another.

    Args:
        channels: The decoders.
        caller: On whose behalf; `timeout_s` is the longest time until a request is answered, and `retry_s` how long to
            go on looking for a decoder that answers.
        opening: The requests that a new stream begins with; first of all a set_image.
        recover: Embeds the image of `opening` again; False if it cannot.
        answered: Told each answer that is no error as it comes, with its request; what it returns is what the request's
            future gives.
        unseen: How many of the masks that it was told have not reached those they are for; the decoder sends no
            further previews while there are two. `acknowledge` says when some have.
        prepare: Awaited before a stream is opened: finds out what `opening` begins with.
    """

    def __init__(
        self,
        channels: Channels,
        caller: Caller,
        *,
        opening: Callable[[], Sequence[pb.SegmentStreamRequest]],
        recover: Callable[[], Awaitable[bool]],
        answered: Callable[[pb.SegmentStreamRequest, pb.SegmentStreamResponse], Any],
        unseen: Callable[[], int] = lambda: 0,
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.counters = pb.StreamCounters()
        self._channels = channels
        self._caller = caller
        self._prepare = prepare
        self._opening = opening
        self._recover = recover
        self._answered = answered
        self._unseen = unseen
        self._numbers = itertools.count(1)
        self._pending: OrderedDict[str, _Request] = OrderedDict()
        self._unsent: deque[_Request] = deque()
        self._news = asyncio.Event()  # for the writer
        self._masks_seen = 0
        self._must_acknowledge = False
        self._closing = False
        self._call: Any = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Returns when the first stream is ready.

        Raises:
            MaskwireError: There is no decoder or no image.
        """
        self._call = await self._connect()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ends the stream. Requests that were not answered fail."""
        self._closing = True
        self._news.set()
        if self._task is not None and not self._task.done():
            if not self._pending:  # an orderly end costs grpc less memory than a cancelled call
                await asyncio.wait({self._task}, timeout=_CLOSE_S)
            self._task.cancel()
            await asyncio.wait({self._task})
        self._hang_up()
        self._fail(_closed())

    def send(self, message: pb.SegmentStreamRequest) -> Answer:
        """Sends a request. Its future gives None if it was superseded before it left, and fails with what the server
        said. The request gets a number for its id."""
        self._channels.check()
        loop = asyncio.get_running_loop()
        message.request_id = str(next(self._numbers))
        request = _Request(message, loop.create_future())
        request.answer.add_done_callback(_retrieved)
        if self._closing:
            _fail(request.answer, _closed())
            return request.answer
        timer = loop.call_later(self._caller.timeout_s, self._expire, request.answer)
        request.answer.add_done_callback(lambda _: timer.cancel())
        if message.speculative:
            for waiting in [waiting for waiting in self._unsent if waiting.message.speculative]:
                self._unsent.remove(waiting)
                self._drop(waiting)
        self._pending[message.request_id] = request
        self._unsent.append(request)
        self._news.set()
        if self.ended:  # the last one gave up; now may be better
            self._task = asyncio.create_task(self._run())
        return request.answer

    @property
    def ended(self) -> bool:
        """Whether it has given up; the next request tries again."""
        return self._task is None or self._task.done()

    def acknowledge(self) -> None:
        """Masks have reached those they are for."""
        self._must_acknowledge = True
        self._news.set()

    # One stream after another

    async def _run(self) -> None:
        try:
            while not self._closing:
                self._call = self._call or await self._connect()
                try:
                    await self._converse(self._call)
                except (_Moved, grpc.aio.AioRpcError) as lost:
                    self._prepare_again(lost)
                finally:
                    self._hang_up()
        except MaskwireError as error:
            self._fail(error)

    def _hang_up(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _connect(self) -> Any:
        """A stream on which the image is ready."""
        embeds = 0
        if self._prepare is not None:
            await self._prepare()
        while True:
            try:
                return await self._reach()
            except ImageNotFound:
                embeds += 1
                if embeds > EMBEDS or not await self._recover():
                    raise

    async def _reach(self) -> Any:
        opening = self._opening()

        async def begin(attempt: Attempt) -> Any:
            stub: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(attempt.channel)
            call: Any = stub.SegmentStream(metadata=attempt.metadata)
            try:
                with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # reading tells why
                    for message in opening:
                        await call.write(message)
                async with asyncio.timeout(attempt.left_s):
                    ready = await call.read()
            except BaseException:
                call.cancel()
                raise
            if ready is grpc.aio.EOF or ready.HasField("reconnect"):
                call.cancel()
                raise ServerUnavailable("the decoder is about to stop")
            if ready.HasField("error"):
                call.cancel()
                raise from_status(ready.error)
            self._answered(opening[0], ready)
            return call

        return await call_with_retries(self._channels, self._caller, opening[0].set_image.image_id, begin)

    def _prepare_again(self, lost: Exception) -> None:
        """Puts what was not answered back into the queue. Requests under which streams keep breaking fail."""
        self._masks_seen = 0
        self._must_acknowledge = False
        requests = list(self._pending.values())
        newest = next((request for request in reversed(requests) if request.message.speculative), None)
        for request in requests:
            if request.message.speculative and request is not newest:
                self._drop(request)
            elif request.sends >= _MAX_SENDS:
                del self._pending[request.message.request_id]
                error = from_rpc(lost, "decoder") if isinstance(lost, grpc.aio.AioRpcError) else None
                _fail(request.answer, error or ServerUnavailable("decoders keep ending the stream under this request"))
        self._unsent = deque(self._pending.values())
        self._news.set()

    # On a stream

    async def _converse(self, call: Any) -> None:
        writer = asyncio.create_task(self._write(call))
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                self._read(response)
            if not self._closing:
                raise _Moved
        finally:
            writer.cancel()

    async def _write(self, call: Any) -> None:
        while True:
            while not self._unsent and not self._must_acknowledge:
                if self._closing:
                    await call.done_writing()
                    return
                self._news.clear()
                await self._news.wait()
            message = pb.SegmentStreamRequest()
            if self._unsent:
                request = self._unsent.popleft()
                request.sends += 1
                message.CopyFrom(request.message)
            message.masks_seen = max(0, self._masks_seen - self._unseen())
            self._must_acknowledge = False
            try:
                await call.write(message)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # the reader learns why

    def _read(self, response: pb.SegmentStreamResponse) -> None:
        self.counters = response.counters
        outcome = response.WhichOneof("outcome")
        if outcome == "reconnect":
            raise _Moved
        if outcome in ("result", "object"):
            self._masks_seen += 1
            self._must_acknowledge = any(request.message.speculative for request in self._pending.values())
            self._news.set()
        request = self._pending.get(response.request_id)
        if request is None:  # of the opening
            if outcome == "error":
                raise from_status(response.error)
            return
        if outcome == "error":
            error = from_status(response.error)
            if isinstance(error, ImageNotFound) and not request.message.HasField("set_image"):
                raise _Moved  # the image left the store; opening another stream finds out, and embeds it again
            del self._pending[response.request_id]
            _fail(request.answer, error)
            return
        del self._pending[response.request_id]
        _succeed(request.answer, self._answered(request.message, response))

    def _drop(self, request: _Request) -> None:
        self._pending.pop(request.message.request_id, None)
        _succeed(request.answer, None)

    def _expire(self, answer: Answer) -> None:
        _fail(answer, DeadlineExceeded(f"the decoder gave no answer within {self._caller.timeout_s:g} s"))

    def _fail(self, error: MaskwireError) -> None:
        self._unsent.clear()
        while self._pending:
            _fail(self._pending.popitem(last=False)[1].answer, error)


def _closed() -> MaskwireError:
    return MaskwireError("the session is closed; begin another", "CLOSED")


def _succeed(answer: Answer, result: Any) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: Answer, error: MaskwireError) -> None:
    if not answer.done():
        answer.set_exception(error)


def _retrieved(answer: Answer) -> None:
    """An answer that nobody waits for may fail unheard: who follows the masks alone need not await each hover."""
    if not answer.cancelled():
        answer.exception()
