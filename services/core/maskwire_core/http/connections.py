"""Limits on HTTP connections: on callers that send no request, send it slowly, or do not read the answer.

uvicorn has one timeout, between requests. Its protocols are extended here with two timers for each connection: one runs
while the server waits for a request, the other while the caller reads nothing.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from uvicorn.protocols.http.h11_impl import H11Protocol

from maskwire_core.networks import network_of
from maskwire_core.runtime.open_files import raise_file_limit
from maskwire_core.scheduling.shares import Shares

_FILES = 1 << 16
_REFUSAL = "HTTP/1.1 {} \r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Abortable(Protocol):
    """What can be ended at once."""

    def abort(self) -> object:
        """Ends it."""


class Connection(Protocol):
    """What `Connections` asks of a connection."""

    address: str

    @property
    def transport(self) -> "Abortable":
        """What it is made of."""

    @property
    def is_waited_for(self) -> bool:
        """Whether the server waits for a request, or for the rest of one, of a caller that it does not know."""


@dataclass(frozen=True)
class Timeouts:
    """How long a connection is waited for, in seconds."""

    header_s: float = 10  # for the headers of a request
    answer_s: float = 60  # while the caller reads nothing


class Connections:
    """All open connections. When an address has more than its share, or there are too many, those that are waited for
    are ended, the oldest first: who sends a request at once is served.

    Args:
        limit: Connections that may be open; fewer where the system allows the process fewer files.
        timeouts: How long each is waited for.
    """

    def __init__(self, limit: int, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self._shares = Shares(min(limit, raise_file_limit(_FILES) * 3 // 4))
        self._open: dict[str, dict[Connection, None]] = {}  # by address, the oldest first

    def __len__(self) -> int:
        return self._shares.held

    def admit(self, connection: Connection) -> bool:
        """Counts a connection that was made. Returns whether it may stay."""
        address = connection.address
        if not self._shares.fits(address, 1) and not self._end_one(address):
            return False
        self._shares.add(address, 1)
        self._open.setdefault(address, {})[connection] = None
        return True

    def left(self, connection: Connection) -> None:
        """Counts a connection no longer."""
        mine = self._open.get(connection.address, {})
        if connection in mine:
            del mine[connection]
            self._shares.add(connection.address, -1)
        if not mine:
            self._open.pop(connection.address, None)

    def _end_one(self, address: str) -> bool:
        largest = max(self._open, key=lambda each: len(self._open[each]), default=address)
        for crowd in dict.fromkeys((address, largest)):
            for other in self._open.get(crowd, ()):
                if other.is_waited_for:
                    self.left(other)
                    other.transport.abort()
                    return True
        return False


class _Handshake:
    """A connection whose TLS handshake is under way."""

    is_waited_for = True

    def __init__(self, address: str, abort: Callable[[], object]) -> None:
        self.address = address
        self.transport = self
        self.abort = abort


class EndsUnread:
    """Ends a connection whose caller reads nothing for some time. It precedes one of uvicorn's protocols in a class's
    bases."""

    # uvicorn's
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop

    _connections: Connections
    _unread: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()  # type: ignore[misc]
        self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()  # type: ignore[misc]
        if not self.transport.is_closing():
            self._end_expectation()

    def _expect_reading(self) -> None:
        """Ends the connection if the caller does not read for some time, be it only the end."""
        if self._unread is None:
            self._unread = self.loop.call_later(self._connections.timeouts.answer_s, self.transport.abort)

    def _end_expectation(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


class Bounded(EndsUnread):
    """What is common to both of uvicorn's protocols. It precedes one of them in a class's bases.

    Args:
        connections: All connections.
    """

    # uvicorn's
    client: tuple[str, int] | None
    cycle: Any
    timeout_keep_alive_task: asyncio.TimerHandle | None

    def __init__(self, connections: Connections, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.address = ""
        self._connections = connections
        self._waiting: asyncio.TimerHandle | None = None
        self._is_websocket = False

    def expect_handshake(self, transport: asyncio.Transport, done: asyncio.Future[None]) -> None:
        """Counts a connection from now on, until its TLS handshake is done and it counts by itself."""
        address = network_of(transport.get_extra_info("peername"))
        handshake = _Handshake(address, lambda: self.loop.call_soon(transport.abort))  # asyncio begins it first
        if self._connections.admit(handshake):
            done.add_done_callback(lambda _: self._connections.left(handshake))
        else:
            handshake.abort()

    @property
    def is_waited_for(self) -> bool:
        return not self._is_busy or bool(self.cycle.more_body)

    @property
    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)  # type: ignore[misc]
        self.address = network_of(self.client)
        if self._connections.admit(self):
            self._watch()
        else:
            transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._forget()
        super().connection_lost(error)  # type: ignore[misc]

    def data_received(self, data: bytes) -> None:
        super().data_received(data)  # type: ignore[misc]
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()  # type: ignore[misc]
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()  # type: ignore[misc]
        self._watch()

    def handle_websocket_upgrade(self, *event: Any) -> None:
        self._forget()
        self._is_websocket = True
        super().handle_websocket_upgrade(*event)  # type: ignore[misc]

    def _forget(self) -> None:
        self._connections.left(self)
        self._end_expectation()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _watch(self) -> None:
        """Begins to wait, or stops, after whatever has happened. Between requests uvicorn's own timer runs; it stops
        with the first byte of a request, or of the rest of one that was answered already."""
        if self._is_websocket:
            return  # another protocol has the connection, and its own timers
        if self.transport.is_closing():
            self._expect_reading()  # it closes when the caller has read everything, which may never be
        elif self._is_busy:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None
        elif self._waiting is None and self.timeout_keep_alive_task is None:
            self._waiting = self.loop.call_later(self._connections.timeouts.header_s, self._late)

    def _late(self) -> None:
        self._waiting = None
        self.refuse("408 Request Timeout")

    def refuse(self, status: str) -> None:
        """Answers a request that did not reach the application, and closes the connection."""
        if not self.transport.is_closing():
            self.transport.write(_REFUSAL.format(status).encode())
            self.transport.close()
            self._watch()


class BoundedH11(Bounded, H11Protocol):
    """uvicorn's HTTP/1.1 in Python, which limits headers itself."""
