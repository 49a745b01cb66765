"""Reading a large value from Redis into one buffer.

redis-py hands a reply out as bytes that were gathered piece by piece: each piece is copied to a parser and then to the
value. Here the reply's length is looked at first, and the socket is read straight into a buffer of that size.
"""

import socket
import ssl
from typing import Any, TypeVar, cast

import numpy as np
import redis
from numpy.typing import NDArray

T = TypeVar("T")


def get(client: redis.Redis, name: str) -> NDArray[np.uint8] | None:
    """The value of a key, or None.

    Raises:
        redis.RedisError: As `client.get` raises. A broken connection is tried again as often as the client says.
    """
    pool = client.connection_pool
    connection: Any = pool.get_connection()
    try:
        return cast(
            NDArray[np.uint8] | None,
            connection.retry.call_with_retry(lambda: _get(connection, name), lambda _: connection.disconnect()),
        )
    finally:
        pool.release(connection)


def _get(connection: Any, name: str) -> NDArray[np.uint8] | None:
    connection.send_command("GET", name)
    link: socket.socket = connection._sock
    try:
        # A TLS socket cannot look ahead. What is no value, an error or a miss, is redis-py's to understand.
        if isinstance(link, ssl.SSLSocket) or link.recv(1, socket.MSG_PEEK) != b"$":
            value = connection.read_response()
            return None if value is None else np.frombuffer(value, np.uint8)
        return _read_bulk(link)
    except redis.ResponseError:
        raise
    except TimeoutError as error:
        connection.disconnect()  # the rest of the reply must not answer the next command
        raise redis.TimeoutError("the store went silent within a reply") from error
    except BaseException as error:
        connection.disconnect()
        if isinstance(error, OSError):
            raise redis.ConnectionError("the connection to the store broke") from error
        raise


def _read_bulk(link: socket.socket) -> NDArray[np.uint8] | None:
    """$LENGTH, a line's end, that many bytes, a line's end."""
    line = b""
    while not line.endswith(b"\r\n"):
        line += _some(link.recv(1))
    length = int(line[1:])
    if length < 0:
        return None
    buffer = np.empty(length + 2, np.uint8)
    view = buffer.data
    while view:
        view = view[_some(link.recv_into(view)) :]
    return buffer[:length]


def _some(received: T) -> T:
    if not received:
        raise redis.ConnectionError("the store closed the connection within a reply")
    return received
