"""/v1/stream: SegmentStream over a WebSocket."""

import asyncio
import json
import logging
import re
from collections import deque
from collections.abc import AsyncIterator

from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from maskwire import InvalidRequest, MaskwireError, ServerUnavailable
from maskwire.replay import Replay
from maskwire.transport import Answer, Caller, Servers, Stream, to_status
from maskwire.v1 import decoder_pb2 as pb
from maskwire_core.http.problems import RETRY_S, Problem
from starlette.websockets import WebSocket

from maskwire_gateway.metrics import Telemetry
from maskwire_gateway.rest.json_codec import text
from maskwire_gateway.rest.message_reader import Places, read_message

log = logging.getLogger(__name__)

PROTOCOL = "maskwire.v1"

_MAX_WAITING = 256  # requests without an answer, and answers that wait to be sent
_MASKS = ("result", "object")


class Relay:
    """Carries one WebSocket's requests to a decoder and its answers back.

    The client's `Stream` is what survives decoders; this holds what it needs to begin anew, and keeps the decoder from
    running ahead of a reader that is slow: a mask counts as seen when the other end of the socket says so, or, where it
    says nothing, when it was sent.
    """

    def __init__(self, servers: Servers, caller: Caller, telemetry: Telemetry, socket: WebSocket) -> None:
        self._servers = servers
        self._caller = caller
        self._telemetry = telemetry
        self._socket = socket
        self._binary = False
        self._places = Places()  # of the frame that is being taken
        self._stream: Stream | None = None
        self._ready = pb.SegmentStreamResponse()  # of the latest stream
        self._waiting: dict[str, str] = {}  # the stream's names of requests: the caller's names
        self._outbox: deque[pb.SegmentStreamResponse] = deque()
        self._changed = asyncio.Event()
        self._masks = 0  # that came, less those that the caller has seen
        self._sent = 0
        self._seen: int | None = None  # as the caller says

    async def run(self) -> None:
        """Until the other end leaves."""
        sender = asyncio.create_task(self._send())
        sender.add_done_callback(self._sender_ended)
        try:
            async for frame in self._frames():
                self._telemetry.asked()
                await self._take(frame)
                while len(self._waiting) + len(self._outbox) >= _MAX_WAITING and not sender.done():
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            sender.cancel()
            await self._close()

    # From the socket

    async def _frames(self) -> AsyncIterator[pb.SegmentStreamRequest]:
        while (event := await self._socket.receive())["type"] != "websocket.disconnect":
            data = event.get("bytes")
            self._binary = data is not None
            try:
                if data is not None:
                    request, self._places = pb.SegmentStreamRequest.FromString(data), Places()
                else:
                    request, self._places = read_message(event["text"], pb.SegmentStreamRequest)
                yield request
            except DecodeError:
                self._places = Places()
                self._fail("", InvalidRequest("the frame is no SegmentStreamRequest", "BAD_FRAME"))
            except Problem as problem:
                self._places = Places()
                self._fail(_request_id(event["text"]), InvalidRequest(problem.message, "BAD_FRAME", problem.field))

    async def _take(self, request: pb.SegmentStreamRequest) -> None:
        if request.HasField("masks_seen"):
            self._seen = request.masks_seen
            request.ClearField("masks_seen")
            if self._stream is not None:
                self._stream.acknowledge()
            if request.WhichOneof("request") is None:
                return
        if request.WhichOneof("request") is None:
            told = InvalidRequest("send set_image, segment, edit or restore", "EMPTY_REQUEST", "request")
            self._fail(request.request_id, told)
        elif request.HasField("set_image"):
            await self._set_image(request)
        elif self._stream is None:
            field = str(request.WhichOneof("request"))
            self._fail(request.request_id, InvalidRequest("no image is set; send set_image first", "NO_IMAGE", field))
        else:
            self._pass_on(self._stream, request)

    async def _set_image(self, request: pb.SegmentStreamRequest) -> None:
        """Goes on with an image. The next frame is read when it is ready: prompts wait for it in any case."""
        if self._stream is not None and not self._stream.ended:
            answer = self._pass_on(self._stream, request)
            await asyncio.wait({answer})
            if answer.exception() is None:
                return
            await self._close()  # prompts that follow must not meet the image before
            return
        await self._close()
        stream = self._open(Replay(request.set_image))
        try:
            await stream.open()
        except MaskwireError as error:
            await stream.close()
            error.field = _path(error.field, "set_image")
            self._fail(request.request_id, error)
            return
        self._stream = stream
        ready = pb.SegmentStreamResponse()
        ready.CopyFrom(self._ready)
        ready.request_id = request.request_id
        self._put(ready)

    def _open(self, replay: Replay) -> Stream:
        def answered(request: pb.SegmentStreamRequest, response: pb.SegmentStreamResponse) -> pb.SegmentStreamResponse:
            replay.note(request, response)
            if response.HasField("image_ready"):
                self._ready = response
            self._masks += request.request_id in self._waiting and response.WhichOneof("outcome") in _MASKS
            return response

        async def recover() -> bool:
            return False  # whoever has the picture embeds it again

        return Stream(
            self._servers.decoders,
            self._caller,
            opening=replay.opening,
            recover=recover,
            answered=answered,
            unseen=lambda: max(0, self._masks - (self._sent if self._seen is None else self._seen)),
        )

    def _pass_on(self, stream: Stream, request: pb.SegmentStreamRequest) -> Answer:
        name, kind, places = request.request_id, request.WhichOneof("request"), self._places
        answer = stream.send(request)
        self._waiting[request.request_id] = name

        def answered(answer: Answer) -> None:
            del self._waiting[request.request_id]
            if answer.cancelled():
                return
            error, response = answer.exception(), pb.SegmentStreamResponse(request_id=name, counters=stream.counters)
            if isinstance(error, MaskwireError):
                error.field = places.of(_path(error.field, kind))
                response.error.CopyFrom(_status_of(error))
            elif answer.result() is None:
                response.superseded.SetInParent()
            else:
                response.MergeFrom(answer.result())
                response.request_id = name
            self._put(response)

        answer.add_done_callback(answered)
        return answer

    async def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    # To the socket

    def _sender_ended(self, sender: asyncio.Task[None]) -> None:
        if not sender.cancelled() and sender.exception() is not None:
            log.debug("the socket cannot be written to: %s", sender.exception())  # its reading end tells, too
        self._changed.set()

    def _fail(self, request_id: str, error: MaskwireError) -> None:
        error.field = self._places.of(error.field)
        self._put(pb.SegmentStreamResponse(request_id=request_id, error=_status_of(error)))

    def _put(self, response: pb.SegmentStreamResponse) -> None:
        self._outbox.append(response)
        self._changed.set()

    async def _send(self) -> None:
        while True:
            while not self._outbox:
                self._changed.clear()
                await self._changed.wait()
            response = self._outbox.popleft()
            if self._binary:
                await self._socket.send_bytes(response.SerializeToString())
            else:
                await self._socket.send_text(text(response))
            self._changed.set()
            if response.WhichOneof("outcome") in _MASKS:
                self._sent += 1
                if self._seen is None and self._stream is not None:
                    self._stream.acknowledge()


def _request_id(frame: str) -> str:
    """The name of a request that is otherwise wrong; empty where it has none that can be read."""
    try:
        members = json.loads(frame)
    except (ValueError, RecursionError):
        return ""
    name = members.get("request_id", members.get("requestId")) if isinstance(members, dict) else None
    return name if isinstance(name, str) and name.isprintable() else ""


def _status_of(error: MaskwireError) -> Status:
    if isinstance(error, ServerUnavailable) and not error.retry_after_s:
        error.retry_after_s = RETRY_S
    return to_status(error)


def _path(field: str, kind: str | None) -> str:
    """A field's path from the frame on; decoders tell those of prompts and images from their message on."""
    of_the_message = re.match(r"(prompts|output|image_id|namespace|wait_ms|content_key)\b", field)
    return f"{kind}.{field}" if kind in ("segment", "set_image") and of_the_message else field
