"""/v1/stream: SegmentStream over a WebSocket."""

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import Coroutine
from typing import Any

from maskwire import InvalidRequest, MaskwireError
from maskwire.transport import Answer, Caller, Servers, Stream
from maskwire.v1 import decoder_pb2 as pb
from maskwire_core.http.memory import Held
from starlette.websockets import WebSocket

from maskwire_gateway.metrics import Telemetry
from maskwire_gateway.rest.message_reader import Places
from maskwire_gateway.websocket.frames import (
    MAX_REQUEST_ID,
    BadFrame,
    event_frame,
    hold_frame,
    read_frame,
    send_frame,
    status_of,
)
from maskwire_gateway.websocket.regions import RegionAnswers, SeenMasks

log = logging.getLogger(__name__)

_MAX_WAITING = 256  # requests without an answer, and answers that wait to be sent
_MAX_WAITING_BYTES = 1 << 20  # of both; one larger frame or answer is read all the same
_LOOK_S = 0.2  # how often it is noticed that others have given memory back


class Relay:
    """Passes the messages of a WebSocket on to a decoder, and its answers back.

    A mask counts as seen when the other end of the socket says so, or, if it never does, when the mask was written.
    """

    def __init__(self, servers: Servers, caller: Caller, telemetry: Telemetry, socket: WebSocket, memory: Held) -> None:
        self._telemetry = telemetry
        self._socket = socket
        self._stream = Stream(servers.decoders, caller, acknowledges=False, before_reading=self._room)
        self._seen = SeenMasks(self._stream)
        self._regions = RegionAnswers(servers, caller, self._room)
        self._memory = memory
        self._is_binary = False  # the latest frame
        self._unanswered = 0
        self._sent = asyncio.Event()
        self._outbox_bytes = 0  # with the answer that is being sent
        self._outbox: deque[pb.SegmentStreamResponse] = deque()
        self._changed = asyncio.Event()
        self._telling = set[asyncio.Future[None]]()  # errors whose places are being looked for

    async def run(self) -> None:
        """Relays until the other end leaves."""
        sender = asyncio.create_task(self._send())
        sender.add_done_callback(self._sender_ended)
        try:
            while (event := await self._socket.receive())["type"] != "websocket.disconnect":
                await self._read(event_frame(event))
                del event  # else it would take memory until the next frame comes
                while self._is_full() and not sender.done():
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            sender.cancel()
            self._regions.close()
            for telling in list(self._telling):
                telling.cancel()
            try:
                await self._stream.close()
            finally:
                self._memory.release()

    # From the socket

    def _is_full(self) -> bool:
        """Whether so much waits that the socket is not read: TCP then stops the other end."""
        waiting = self._unanswered + len(self._outbox)
        return waiting >= _MAX_WAITING or self._memory.held_bytes >= _MAX_WAITING_BYTES

    async def _room(self) -> None:
        """Waits until another answer of the decoder may be read: not while earlier ones wait to be sent."""
        while self._outbox_bytes >= _MAX_WAITING_BYTES or (
            self._outbox_bytes and not self._memory.fits(_MAX_WAITING_BYTES)
        ):
            self._sent.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._sent.wait()

    async def _read(self, frame: str | bytes) -> None:
        self._is_binary = isinstance(frame, bytes)
        size, is_waiting = 0, False
        try:
            size = await hold_frame(frame, self._memory)
            request, places = await read_frame(frame, pb.SegmentStreamRequest)
        except BadFrame as bad:
            self._fail(bad.request_id, bad.error)
        else:
            self._telemetry.frames.inc()
            is_waiting = await self._forward(request, places, size)
        finally:
            if not is_waiting:
                self._memory.add(-size)

    async def _forward(self, request: pb.SegmentStreamRequest, places: Places, size: int) -> bool:
        """Sends a request on. Returns whether it waits for an answer, and takes memory until then."""
        name, kind = request.request_id, request.WhichOneof("request")
        if request.HasField("masks_seen"):
            self._seen.say(request.masks_seen)
            request.ClearField("masks_seen")
            if kind is None:
                return False
        if kind is None:
            self._fail(name, InvalidRequest("send set_image or segment", "EMPTY_REQUEST", await places.find("request")))
            return False

        async def failed(error: MaskwireError) -> None:
            try:
                error.field = await places.find(_path(error.field, kind))
            finally:
                self._memory.give_back(size)
            self._fail(name, error)

        region = places.beside.get("region")

        def answered(answer: Answer) -> None:
            self._unanswered -= 1
            if answer.cancelled():
                return
            error = answer.exception()
            if isinstance(error, MaskwireError):
                self._tell(failed(error))
                return
            self._memory.give_back(size)
            response = pb.SegmentStreamResponse()
            response.CopyFrom(answer.result())
            response.request_id = name
            if response.HasField("result"):
                self._seen.add(is_of_stream=region is None)
            if region is not None:
                response.counters.CopyFrom(self._stream.counters)
            self._put(response)

        self._unanswered += 1
        answer = self._stream.send(request) if region is None else self._regions.ask(request, region)
        if kind == "set_image":
            self._regions.set_image(request.set_image, answer)
        answer.add_done_callback(answered)
        return True

    # To the socket

    def _sender_ended(self, sender: asyncio.Task[None]) -> None:
        if not sender.cancelled() and sender.exception() is not None:
            log.debug("the socket cannot be written to: %s", sender.exception())  # reading from it fails as well
        self._changed.set()

    def _tell(self, failure: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(failure)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def _fail(self, request_id: str, error: MaskwireError) -> None:
        counters = self._stream.counters
        told = request_id[:MAX_REQUEST_ID]
        self._put(pb.SegmentStreamResponse(request_id=told, error=status_of(error), counters=counters))

    def _put(self, response: pb.SegmentStreamResponse) -> None:
        self._outbox.append(response)
        self._outbox_bytes += response.ByteSize()
        self._memory.add(response.ByteSize())
        self._changed.set()

    async def _send(self) -> None:
        while True:
            while not self._outbox:
                self._changed.clear()
                await self._changed.wait()
            response = self._outbox.popleft()
            await send_frame(self._socket, response, self._is_binary)
            self._outbox_bytes -= response.ByteSize()
            self._memory.add(-response.ByteSize())
            self._sent.set()
            self._changed.set()
            if response.HasField("result"):
                self._seen.written()


def _path(field: str, kind: str) -> str:
    """A field's path from the frame on; decoders give those of prompts and images from the inner message on."""
    is_inner = re.match(r"(prompts|output|image_id|namespace|wait_ms|content_key|region)\b", field)
    return f"{kind}.{field}" if is_inner else field
