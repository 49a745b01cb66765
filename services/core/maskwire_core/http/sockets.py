"""WebSockets within limits of bytes and time."""

import asyncio
from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from maskwire_core.http.connections import Connections, network_of
from maskwire_core.http.memory import holder_of
from maskwire_core.scheduling.shares import Shares

_TRY_AGAIN_LATER = 1013
_POLICY = 1008
_DRAINED = "maskwire.drained"  # in the scope: waits until the caller has read


class BoundedSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket.

    Nothing is read before the application accepts it. Then what has arrived and was not taken by the application counts
    as its holder's memory, and beyond the holder's share the socket is closed. A message that does not arrive in time
    ends it, too, and so does a caller that reads nothing.

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
        self._holder = ""
        self._held = 0
        self._queued = 0
        self._arriving: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.address = network_of(self.client)
        self._connections.admit(self)  # it was, as a connection of HTTP

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.left(self)
        for timer in (self._arriving, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self.conn.reader.discard()
        self.frames.clear()
        self._memory.add(self._holder, -self._held)
        self._held = 0

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
        self._holder = self._holder or holder_of(self.scope)  # type: ignore[arg-type]
        if not self._memory.take(self._holder, len(data)):
            self._end(_TRY_AGAIN_LATER, "too much in progress; try again")
            return
        self._held += len(data)
        super().data_received(data)
        self._settle()

    def send_receive_event_to_app(self) -> None:
        before = self.queue.qsize()
        size = sum(map(len, self.frames))
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

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None and not self.transport.is_closing():
            self._unread.cancel()
            self._unread = None

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
        partial = len(self.conn.reader.buffer) + sum(map(len, self.frames))
        self._memory.add(self._holder, partial + self._queued - self._held)
        self._held = partial + self._queued
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
        """Ends the connection if the caller does not read for some time, be it only the end."""
        if self._unread is None and not self.disconnected:
            self._unread = self.loop.call_later(self._connections.timeouts.answer_s, self.transport.abort)


async def drained(scope: Any) -> None:
    """Waits until the caller of a WebSocket has read what was sent."""
    if _DRAINED in scope:
        await scope[_DRAINED]()
