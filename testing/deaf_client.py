"""A gRPC client that reads nothing: its HTTP/2 window is 0, so that a server's answers never leave the server."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW_SIZE = 4


@contextlib.contextmanager
def deaf_call(address: str, path: str, request: bytes) -> Iterator[None]:
    """Makes a call with one request, and stays connected as a living peer does, without reading an answer.

    Args:
        address: "host:port".
        path: Path of the method, such as "/grpc.health.v1.Health/Watch".
        request: The serialized request.
    """
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        connection.sendall(_frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, 0)))
        headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
        headers |= {"content-type": "application/grpc", "te": "trailers"}
        connection.sendall(_frame(_HEADERS, _END_HEADERS, 1, b"".join(map(_header, headers, headers.values()))))
        connection.sendall(_frame(_DATA, _END_STREAM, 1, struct.pack(">BI", 0, len(request)) + request))
        threading.Thread(target=_stay, args=(connection,), daemon=True).start()
        yield


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def _header(name: str, value: str) -> bytes:
    """A literal header without indexing (RFC 7541, 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def _stay(connection: socket.socket) -> None:
    """Acknowledges settings and pings, until the connection ends."""
    received = b""
    with contextlib.suppress(OSError):
        while data := connection.recv(65_536):
            received += data
            while len(received) >= 9 and len(received) >= 9 + (length := int.from_bytes(received[:3], "big")):
                kind, flags, body = received[3], received[4], received[9 : 9 + length]
                received = received[9 + length :]
                if kind in (_SETTINGS, _PING) and not flags & _ACK:
                    connection.sendall(_frame(kind, _ACK, 0, body if kind == _PING else b""))
