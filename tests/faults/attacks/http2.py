"""HTTP/2 by hand, for what no client library would do."""

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import AsyncIterator

DATA, HEADERS, RESET, SETTINGS, PING, GO_AWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_HEADERS, END_STREAM = 4, 1
_FRAME_BYTES = 1 << 14
_NAMES = {DATA: "DATA", HEADERS: "HEADERS", RESET: "reset", PING: "PING", GO_AWAY: "connection closed"}


class Connection:
    """An HTTP/2 connection without TLS.

    Attributes:
        seen: How often frames of each kind came, other than those of the connection itself, and what else is counted.
        open: Whether the server has not closed it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers_pings: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._answers_pings = answers_pings
        self.seen = Counter[str]()
        self.open = True

    async def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        """Sends a frame, and waits while the server does not read."""
        self._writer.write(struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream))
        self._writer.write(payload)
        await self._writer.drain()

    async def call(self, stream: int, path: str, *more: tuple[bytes, bytes], flags: int = END_HEADERS) -> None:
        """Sends the headers of a gRPC call."""
        await self.send(HEADERS, flags, stream, call_headers(path, *more))

    async def message(self, stream: int, message: bytes, compressed: bool = False) -> None:
        """Sends the last message of a gRPC call, of less than the 64 KiB that a window allows at first."""
        framed = bytes([compressed]) + struct.pack(">I", len(message)) + message
        for start in range(0, len(framed), _FRAME_BYTES):
            last = start + _FRAME_BYTES >= len(framed)
            await self.send(DATA, END_STREAM if last else 0, stream, framed[start : start + _FRAME_BYTES])

    async def read(self) -> None:
        """Reads until the server closes; answers what keeps a connection alive."""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags = head[3], head[4]
                if kind == SETTINGS and not flags & 1:
                    await self.send(SETTINGS, 1, 0)
                elif kind == PING and not flags & 1 and self._answers_pings:
                    await self.send(PING, 1, 0, payload)
                elif kind in _NAMES and not (kind == PING and flags & 1):
                    self.seen[_NAMES[kind]] += 1
        self.open = False


@contextlib.asynccontextmanager
async def connection(address: str, *settings: tuple[int, int], reads: bool = True) -> AsyncIterator[Connection]:
    """Opens a connection.

    Args:
        address: Host and port.
        settings: Numbers and values of the client's settings; (4, 0) is a window of no bytes for each stream.
        reads: Whether anything is read from it.
    """
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    opened = Connection(reader, writer, answers_pings=True)
    reading = None
    try:
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        await opened.send(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in settings))
        if reads:
            reading = asyncio.ensure_future(opened.read())
        yield opened
    finally:
        if reading is not None:
            reading.cancel()
        writer.close()


def call_headers(path: str, *more: tuple[bytes, bytes]) -> bytes:
    """Returns the header block of a gRPC call."""
    return b"".join(
        header(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            *more,
        )
    )


def header(name: bytes, value: bytes) -> bytes:
    """Returns a header in HPACK, as a literal that is not indexed."""
    return b"\x00" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    count = len(text)
    if count < 127:
        return bytes([count])
    out, count = bytearray([127]), count - 127
    while count >= 128:
        out.append(count % 128 | 128)
        count //= 128
    out.append(count)
    return bytes(out)
