"""A SegmentStream that outlives its server."""

import asyncio
import contextlib
import itertools
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc

from maskwire.errors import ImageNotFound, InvalidRequest, MaskwireError, ServerUnavailable, from_rpc, from_status
from maskwire.transport.caller import Caller
from maskwire.transport.calls import EMBEDS, Attempt, call_with_retries
from maskwire.transport.channels import Channels
from maskwire.transport.stream_request import Answer, StreamRequest
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc

_CLOSE_S = 1
_LASTING_S = 1
_MAX_SENDS = 4  # of one request while streams keep breaking under it


class _StreamLost(Exception):
    """The requests must be sent again on another stream."""


class Stream:
    """Sends requests in order and gives their answers, over one server's stream after another.

    A new stream begins with the newest image that was set, by its content key, and goes on with the requests that were
    not answered and are still waited for. Of speculative ones only the newest is sent again.

    Args:
        channels: The decoders.
        caller: On whose behalf requests are made. Its `timeout_s` is the longest time until a request is answered, its
            `retry_s` how long to look for a decoder.
        first_image: Finds out which image to set when another request comes first. Without it, the first request
            must set an image.
        embed_again: Embeds an image that the store has lost and returns its content key; raises the error if it cannot.
        acknowledges: Whether masks count as seen when they arrive here; else `acknowledge` says how many were seen.
            The decoder sends no more previews while two masks are unseen.
        before_reading: Awaited before each answer is read; while it waits, the decoder sends no more.

    Attributes:
        image: The newest image that was set; empty before the first.
        counters: What the current stream has cost, as its last answer said.
    """

    def __init__(
        self,
        channels: Channels,
        caller: Caller,
        *,
        first_image: Callable[[], Awaitable[pb.SetImage]] | None = None,
        embed_again: Callable[[pb.SetImage, ImageNotFound], Awaitable[str]] | None = None,
        acknowledges: bool = True,
        before_reading: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.image = pb.SegmentedImage()
        self.counters = pb.StreamCounters()
        self._channels = channels
        self._caller = caller
        self._first_image = first_image
        self._embed_again = embed_again
        self._acknowledges = acknowledges
        self._before_reading = before_reading
        self._set_image: pb.SetImage | None = None
        self._numbers = itertools.count(1)
        self._pending: dict[str, StreamRequest] = {}
        self._streams = 0  # that have ended
        self._wake_writer = asyncio.Event()
        self._masks = 0  # answers with masks so far
        self._masks_before = 0  # of them, on earlier streams
        self._masks_seen = 0
        self._must_acknowledge = False
        self._closing = False
        self._call: Any = None
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Closes the stream. Requests that were not answered fail."""
        self._closing = True
        self._wake_writer.set()
        if self._task is not None and not self._task.done():
            if not self._pending:  # half-closing leaves less memory behind in grpc than cancelling the call
                await asyncio.wait({self._task}, timeout=_CLOSE_S)
            self._task.cancel()
            await asyncio.wait({self._task})
        self._hang_up()
        self._fail(_closed())

    def check(self) -> None:
        """Raises FORKED in a forked process, and CLOSED after `close`."""
        self._channels.check()
        if self._closing:
            raise _closed()

    def send(self, message: pb.SegmentStreamRequest) -> Answer:
        """Sends a request, whose request_id is overwritten. A speculative request that another one replaces before it
        was sent is answered as superseded; an error of the server's is raised by the future."""
        self.check()
        message.request_id = str(next(self._numbers))
        request = StreamRequest(message)
        request.expire_after(self._caller.timeout_s)
        if not request.sets_image:  # what comes after an image is for that one, even if nobody waits for it
            request.answer.add_done_callback(lambda _: self._pending.pop(message.request_id, None))
        for waiting in [waiting for waiting in self._unsent() if message.speculative and waiting.message.speculative]:
            self._supersede(waiting)
        self._pending[message.request_id] = request
        self._wake_writer.set()
        if self._task is None or self._task.done():  # a stream that gave up may find a server now
            self._task = asyncio.create_task(self._keep_connected())
        return request.answer

    def acknowledge(self, masks_seen: int) -> None:
        """Says how many of the masks that were answered so far have been seen."""
        self._masks_seen = masks_seen
        if any(request.message.speculative for request in self._pending.values()):
            self._must_acknowledge = True  # one may be held back; else the next request says it
            self._wake_writer.set()

    # Finding a server

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        opened = -math.inf
        try:
            # A stream that nobody waits for and that did not last is opened again by the next request.
            while not self._closing and (self._pending or loop.time() - opened > _LASTING_S):
                try:
                    self._call = await self._connect()
                except (ImageNotFound, InvalidRequest) as error:
                    self._refuse_image(error)
                    if self._pending:
                        continue
                    return
                opened = loop.time()
                try:
                    await self._converse(self._call)
                except (_StreamLost, grpc.aio.AioRpcError) as lost:
                    self._prepare_to_resend(lost)
                finally:
                    self._hang_up()
        except MaskwireError as error:
            self._fail(error)

    def _refuse_image(self, error: MaskwireError) -> None:
        """Fails the requests for an image that a stream could not begin with: those before the next set_image."""
        for index, request in enumerate(list(self._pending.values())):
            if index and request.sets_image:
                break
            self._end(request, error)

    def _hang_up(self) -> None:
        self._streams += 1
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _connect(self) -> Any:
        """Opens a stream on which the image is ready."""
        opening = await self._opening()
        for _ in range(EMBEDS):
            try:
                return await self._open(opening)
            except ImageNotFound as error:
                if self._embed_again is None:
                    raise
                lost = opening.message.set_image
                lost.content_key = await self._embed_again(lost, error)
        return await self._open(opening)

    async def _opening(self) -> StreamRequest:
        """The request that a new stream begins with: it sets the image that the first pending request is for."""
        first = next(iter(self._pending.values()), None)
        if first is not None and first.sets_image:
            return first
        if self._set_image is None:
            if self._first_image is None:
                raise InvalidRequest("no image is set; send set_image first", "NO_IMAGE", "segment")
            self._set_image = await self._first_image()
        return StreamRequest(pb.SegmentStreamRequest(set_image=self._set_image))

    async def _open(self, opening: StreamRequest) -> Any:
        async def begin(attempt: Attempt) -> tuple[Any, pb.SegmentStreamResponse]:
            stub: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(attempt.channel)
            call: Any = stub.SegmentStream(metadata=attempt.metadata)
            try:
                with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # read() says why
                    await call.write(opening.message)
                async with asyncio.timeout(attempt.left_s):
                    ready = await call.read()
                if ready is grpc.aio.EOF or ready.HasField("reconnect"):
                    raise ServerUnavailable("the decoder is about to stop")
                if ready.HasField("error"):
                    raise from_status(ready.error)
            except BaseException:
                call.cancel()
                raise
            return call, ready

        image_id = opening.message.set_image.image_id
        call, ready = await call_with_retries(self._channels, self._caller, image_id, begin, losses=opening.losses)
        self._masks_before = self._masks
        self._receive(ready, opening)
        return call

    def _prepare_to_resend(self, lost: Exception) -> None:
        """Ends requests that another stream is not sent: old speculative ones, and those under which streams break."""
        requests = list(self._pending.values())
        newest = next((request for request in reversed(requests) if request.message.speculative), None)
        for request in requests:
            if request.stream == self._streams:
                request.losses.note(lost)
            if request.message.speculative and request is not newest:
                self._supersede(request)
            elif request.losses.too_many and not request.sets_image:
                self._end(request, request.losses.error("decoder"))
            elif request.sends >= _MAX_SENDS and not request.sets_image:
                error = from_rpc(lost, "decoder") if isinstance(lost, grpc.aio.AioRpcError) else None
                self._end(request, error or ServerUnavailable("decoders keep ending the stream under this request"))

    # On a stream

    async def _converse(self, call: Any) -> None:
        writer = asyncio.create_task(self._write(call))
        try:
            while (response := await self._read(call)) is not grpc.aio.EOF:
                self._receive(response)
            if not self._closing:
                raise _StreamLost
        finally:
            writer.cancel()

    async def _read(self, call: Any) -> Any:
        if self._before_reading is not None:
            await self._before_reading()
        return await call.read()

    async def _write(self, call: Any) -> None:
        while True:
            self._wake_writer.clear()
            request = next(self._unsent(), None)
            if request is None and not self._must_acknowledge:
                if self._closing:
                    await call.done_writing()
                    return
                await self._wake_writer.wait()
                continue
            message = pb.SegmentStreamRequest()
            if request is not None:
                request.sends += 1
                request.stream = self._streams
                message.CopyFrom(request.message)
            message.masks_seen = max(0, self._masks_seen - self._masks_before)
            self._must_acknowledge = False
            try:
                await call.write(message)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # the reader learns why

    def _receive(self, response: pb.SegmentStreamResponse, opening: StreamRequest | None = None) -> None:
        self.counters = response.counters
        if response.HasField("reconnect"):
            raise _StreamLost
        request = opening or self._pending.get(response.request_id)
        if response.HasField("result"):
            if request is None or request.answer.done():
                self._masks_before -= 1  # nobody waits for it any more: it need not be seen
            else:
                self._masks += 1
            if self._acknowledges:
                self.acknowledge(self._masks)
        if request is None:
            return
        error = from_status(response.error) if response.HasField("error") else None
        if request.sets_image:
            self.image = response.image_ready.image
            self._set_image = pb.SetImage(content_key=self.image.content_key)  # stays, whatever its name comes to mean
            self._set_image.MergeFrom(request.message.set_image)
        elif isinstance(error, ImageNotFound):
            raise _StreamLost  # the image left the store: opening another stream finds out, and embeds it again
        self._end(request, error or response)

    def _unsent(self) -> Iterator[StreamRequest]:
        return (request for request in self._pending.values() if request.stream != self._streams)

    def _supersede(self, request: StreamRequest) -> None:
        response = pb.SegmentStreamResponse(request_id=request.message.request_id, counters=self.counters)
        response.superseded.SetInParent()
        self._end(request, response)

    def _end(self, request: StreamRequest, outcome: pb.SegmentStreamResponse | MaskwireError) -> None:
        self._pending.pop(request.message.request_id, None)
        if request.sets_image and isinstance(outcome, MaskwireError):
            self._set_image, self.image = None, pb.SegmentedImage()  # what follows must not meet the image before
        request.end(outcome)

    def _fail(self, error: MaskwireError) -> None:
        for request in list(self._pending.values()):
            self._end(request, error)


def _closed() -> MaskwireError:
    return MaskwireError("the session is closed; begin another", "CLOSED")
