"""WebSockets within limits of bytes and time."""

import asyncio
from typing import Any, cast

from maskwire.token_bucket import TokenBucket
from starlette.types import Scope
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

from maskwire_core.http.connections import Connections, EndsUnread
from maskwire_core.http.memory import Held, holder_of
from maskwire_core.http.problems import Problem
from maskwire_core.networks import network_of
from maskwire_core.scheduling.shares import Shares

_TRY_AGAIN_LATER = 1013
_POLICY = 1008
_PIECE_BYTES = 4 << 10  # read at a time: a frame may have no more than two bytes, and takes some microseconds
_FRAMES = 1024  # of a message; more if they have `_FRAME_BYTES` on average
_FRAME_BYTES = 1024
_OVERHEAD_BYTES = 64  # memory of a frame beside its bytes
_CONTROLS_PER_S, _CONTROLS_AT_ONCE = 10, 100  # pings and pongs
_DRAINED = "maskwire.drained"  # in the scope: waits until the caller has read


class BoundedSocket(EndsUnread, WebSocketsSansIOProtocol):
    """uvicorn's WebSocket.

    Nothing is read before the application accepts it. Then what has arrived and was not taken by the application counts
    as its holder's memory, and beyond the holder's share the socket is closed. It is closed as well when a message does
    not arrive in time or comes in too many pieces, when pings flood it, and when its caller reads nothing.

    Args:
        connections: All connections.
        memory: Memory of all requests, in bytes.
        frame_s: Longest time for receiving a message, in seconds.
    """

    is_waited_for = False

    def __init__(
        self, connections: Connections, memory: Shares, frame_s: float, *arguments: Any, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.address = ""
        self._connections = connections
        self._memory = memory
        self._frame_s = frame_s
        self._held: Held | None = None  # from the first message on
        self._queued = 0
        self._message_bytes = 0  # of the message that is arriving
        self._controls = TokenBucket(_CONTROLS_PER_S, _CONTROLS_AT_ONCE)
        self._arriving: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.address = network_of(self.client)
        self._connections.admit(self)  # it was, as a connection of HTTP

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.left(self)
        self._end_expectation()
        if self._arriving is not None:
            self._arriving.cancel()
        super().connection_lost(exc)
        self.conn.reader.discard()
        self.frames.clear()
        if self._held is not None:
            self._held.release()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101 and not self.read_paused:
            cast(Scope, self.scope)[_DRAINED] = self.writable.wait
            self.read_paused = True  # until the application accepts it, and asks for the first message
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if not self.handshake_complete:
            super().data_received(data)  # the request itself, which was read already
            return
        if self._held is None:
            self._held = Held(self._memory, holder_of(self.scope))  # type: ignore[arg-type]
        try:
            self._held.hold(len(data))
        except Problem as problem:
            self._end(_TRY_AGAIN_LATER, problem.message)
            return
        for start in range(0, len(data), _PIECE_BYTES):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + _PIECE_BYTES])
        self._settle()

    def handle_text(self, event: Frame) -> None:
        self._message_bytes = len(event.data)
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        self._message_bytes = len(event.data)
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        self._message_bytes += len(event.data)
        super().handle_cont(event)
        if len(self.frames) > _FRAMES + self._message_bytes // _FRAME_BYTES:
            self._end(_POLICY, "the message comes in too many pieces; send larger ones")

    def handle_ping(self) -> None:
        super().handle_ping()
        self._count_control()

    def handle_pong(self, event: Frame) -> None:
        super().handle_pong(event)
        self._count_control()

    def _count_control(self) -> None:
        if self._controls.wait_s():
            self._end(_POLICY, f"more than {_CONTROLS_PER_S} pings and pongs a second")
        self._controls.take()

    def send_receive_event_to_app(self) -> None:
        before = self.queue.qsize()
        size = self._message_bytes
        if self.curr_msg_data_type == "text" and not all(frame.isascii() for frame in self.frames):
            size *= 4  # Python's text takes so much for each character, if one of them is a rare one
        super().send_receive_event_to_app()
        if self.queue.qsize() > before:
            self._queued += size

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True  # it was refused, which is no error of the application

    async def receive(self) -> Any:
        message: Any = await super().receive()
        if self.queue.empty():
            self._queued = 0
        self._settle()
        return message

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._expect_reading()

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        super().on_task_complete(task)
        self._expect_reading()

    def _settle(self) -> None:
        """Counts what is there now: a part of a message, and messages that were not taken."""
        if self.disconnected:
            return
        partial = len(self.conn.reader.buffer)
        if self.frames:
            partial += self._message_bytes + _OVERHEAD_BYTES * len(self.frames)
        if self._held is not None:
            self._held.add(partial + self._queued - self._held.held_bytes)
        if not partial or self.read_paused:
            if self._arriving is not None:
                self._arriving.cancel()
                self._arriving = None
        elif self._arriving is None:
            late = f"the message did not come within {self._frame_s:g} s; send it faster"
            self._arriving = self.loop.call_later(self._frame_s, self._end, _POLICY, late)

    def _end(self, code: int, reason: str) -> None:
        if self.close_sent or self.transport.is_closing():
            return
        self.conn.fail(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()
        self._expect_reading()

    def _expect_reading(self) -> None:
        if not self.disconnected:
            super()._expect_reading()


async def drained(scope: Any) -> None:
    """Waits until the caller of a WebSocket has read what was sent."""
    if _DRAINED in scope:
        await scope[_DRAINED]()
