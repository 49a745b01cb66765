"""/v1/track: TrackerService.Track over a WebSocket."""

import asyncio
import logging
from dataclasses import dataclass

from maskwire import InvalidRequest, MaskwireError, ServerUnavailable
from maskwire.transport import Caller, Servers, TrackCall, from_status
from maskwire.v1 import tracker_pb2 as pb
from maskwire_core.http.memory import Held
from starlette.websockets import WebSocket, WebSocketDisconnect

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

log = logging.getLogger(__name__)

_MAX_UNANSWERED = 256  # requests; as many as a tracker reads ahead
_MAX_UNANSWERED_BYTES = 1 << 20  # of them; one larger request is read all the same
_OPEN_ELSEWHERE, _ENDED = 1012, 1000


@dataclass
class _Request:
    """A request that was sent on, and whose answers may name its fields."""

    request_id: str
    is_follow: bool
    places: Places
    size: int  # bytes of memory


class TrackRelay:
    """Passes the messages of a WebSocket on to a tracker, and its answers back.

    Answers are read from the tracker as the other end reads them from the socket, and requests likewise: nothing piles
    up here. The socket is one stream: where its tracker is lost, it is closed with 1012, and the track is to be opened
    on another one. A track that cannot be opened is an error alone, and another `open` may follow.

    Args:
        servers: The trackers.
        caller: On whose behalf.
        telemetry: Counts requests.
        socket: The WebSocket, which was accepted.
        memory: On whose account frames and answers are.
    """

    def __init__(self, servers: Servers, caller: Caller, telemetry: Telemetry, socket: WebSocket, memory: Held) -> None:
        self._servers = servers
        self._caller = caller
        self._telemetry = telemetry
        self._socket = socket
        self._memory = memory
        self._is_binary = False  # the latest frame
        self._sending = asyncio.Lock()
        self._unanswered: list[_Request] = []
        self._answered = asyncio.Event()
        self._call: TrackCall | None = None
        self._answering: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Relays until the other end leaves, or the track cannot go on."""
        try:
            while (event := await self._socket.receive())["type"] != "websocket.disconnect":
                frame = event_frame(event)
                await self._read(frame)
                del event, frame  # else they would take memory until the next one comes
                while self._is_full() and self._answering is not None and not self._answering.done():
                    self._answered.clear()
                    await self._answered.wait()
        except WebSocketDisconnect:
            pass  # the other end left while it was told of an error
        finally:
            if self._answering is not None:
                self._answering.cancel()
                await asyncio.wait({self._answering})
            if self._call is not None:
                self._call.cancel()
            self._memory.release()

    def _is_full(self) -> bool:
        waiting = sum(request.size for request in self._unanswered)
        return len(self._unanswered) >= _MAX_UNANSWERED or waiting >= _MAX_UNANSWERED_BYTES

    async def _read(self, frame: str | bytes) -> None:
        self._is_binary = isinstance(frame, bytes)
        size = 0
        try:
            size = await hold_frame(frame, self._memory)
            await self._pass_on(*await read_frame(frame, pb.TrackRequest), size)
        except BadFrame as bad:
            await self._fail(bad.request_id, bad.error)
        finally:
            self._memory.give_back(size)

    async def _pass_on(self, request: pb.TrackRequest, places: Places, size: int) -> None:
        self._telemetry.frames.inc()
        kind = request.WhichOneof("request")
        if self._call is None:
            await self._open(request, places)
        elif kind == "open":
            said = "the socket has a track; open another socket"
            await self._fail(request.request_id, InvalidRequest(said, "ALREADY_OPEN", await places.find("open")))
        else:
            if kind in ("prompt", "follow"):
                kept = 0 if self._is_binary else size
                self._memory.add(kept)
                self._unanswered.append(_Request(request.request_id, kind == "follow", places, kept))
            await self._call.write(request)

    async def _open(self, request: pb.TrackRequest, places: Places) -> None:
        try:
            if not request.HasField("open"):
                raise InvalidRequest("the first request must be open", "NOT_OPEN", "request")
            self._call = await self._servers.open_track(request, self._caller)
        except MaskwireError as error:
            is_inner = error.field.split(".")[0] in pb.OpenTrack.DESCRIPTOR.fields_by_name
            error.field = await places.find(f"open.{error.field}" if is_inner else error.field)
            await self._fail(request.request_id, error)
            return
        await self._send(self._call.opened)
        self._answering = asyncio.create_task(self._answer(self._call))
        self._answering.add_done_callback(self._answers_ended)

    def _answers_ended(self, answering: "asyncio.Task[None]") -> None:
        if not answering.cancelled() and answering.exception() is not None:
            log.debug("the socket cannot be written to: %s", answering.exception())  # reading from it fails as well
        self._answered.set()

    async def _answer(self, call: TrackCall) -> None:
        """Sends the tracker's answers on, and closes the socket at their end."""
        error: MaskwireError = ServerUnavailable("the tracker ended the stream; open the track on another socket")
        try:
            while (answer := await call.read()) is not None:
                request = self._take_answered(answer)
                if request is not None:
                    try:
                        if answer.HasField("error"):
                            wrong = from_status(answer.error)
                            wrong.field = await request.places.find(wrong.field)
                            answer.error.CopyFrom(status_of(wrong))
                    finally:
                        self._memory.give_back(request.size)
                await self._send(answer)
                if answer.HasField("reconnect"):
                    await self._socket.close(_OPEN_ELSEWHERE)
                    return
        except MaskwireError as ended:
            error = ended
        await self._fail("", error)
        await self._socket.close(_OPEN_ELSEWHERE if isinstance(error, ServerUnavailable) else _ENDED)

    def _take_answered(self, answer: pb.TrackResponse) -> _Request | None:
        """Returns the request that an answer ends, which waits no longer, but still counts; None if it ends none."""
        outcome = answer.WhichOneof("outcome")
        for request in self._unanswered:
            ends = outcome == "error" or request.is_follow == (outcome == "followed")
            if request.request_id == answer.request_id and ends:
                self._unanswered.remove(request)
                self._answered.set()
                return request
        return None

    async def _fail(self, request_id: str, error: MaskwireError) -> None:
        await self._send(pb.TrackResponse(request_id=request_id[:MAX_REQUEST_ID], error=status_of(error)))

    async def _send(self, answer: pb.TrackResponse) -> None:
        size = answer.ByteSize()
        self._memory.add(size)
        try:
            async with self._sending:
                await send_frame(self._socket, answer, self._is_binary)
        finally:
            self._memory.give_back(size)
