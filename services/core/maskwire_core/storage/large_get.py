"""Reads a large value from Redis straight into one buffer.

redis-py copies a reply from the socket to hiredis' buffer, and from there to bytes. Reading the socket directly takes
half the time or less for an 8 MiB embedding (docs/explanation/performance.md), and one copy in memory instead of two.
redis-py has no public way to the socket; hence the upper bound of its version in pyproject.toml, and a test that fails
if this stops working.
"""

import socket
import ssl
from typing import Any, TypeVar, cast

import numpy as np
import redis
from numpy.typing import NDArray

from maskwire_core.errors import CorruptValue

T = TypeVar("T")

MOST = 512 << 20  # what stores themselves allow


def get(client: redis.Redis, name: str, most: int = MOST) -> NDArray[np.uint8] | None:
    """Returns the value of a key as uint8, 1-D; None if there is no such key.

    Args:
        client: Client of the store.
        name: The key.
        most: Bytes that the value may have. A larger one is not read, unless the connection is encrypted.

    Raises:
        CorruptValue: The value is larger.
        redis.RedisError: As `client.get` raises. A broken connection is retried as the client is configured.
    """
    pool = client.connection_pool
    connection: Any = pool.get_connection()
    try:
        return cast(
            NDArray[np.uint8] | None,
            connection.retry.call_with_retry(lambda: _get(connection, name, most), lambda _: connection.disconnect()),
        )
    finally:
        pool.release(connection)


def _get(connection: Any, name: str, most: int) -> NDArray[np.uint8] | None:
    connection.send_command("GET", name)
    link: socket.socket = connection._sock
    try:
        # A TLS socket cannot peek. Replies other than a value (an error, a miss) are left to redis-py.
        if isinstance(link, ssl.SSLSocket) or link.recv(1, socket.MSG_PEEK) != b"$":
            value = connection.read_response()
            return None if value is None else np.frombuffer(value, np.uint8)
        return _read_bulk(link, most)
    except redis.ResponseError:
        raise
    except TimeoutError as error:
        connection.disconnect()  # the rest of the reply must not be taken for the next one
        raise redis.TimeoutError("the store went silent within a reply") from error
    except BaseException as error:
        connection.disconnect()
        if isinstance(error, OSError):
            raise redis.ConnectionError("the connection to the store broke") from error
        raise


def _read_bulk(link: socket.socket, most: int) -> NDArray[np.uint8] | None:
    """Reads a bulk string: `$LENGTH`, CR LF, that many bytes, CR LF."""
    line = b""
    while not line.endswith(b"\r\n"):
        line += _not_empty(link.recv(1))
    length = int(line[1:])
    if length < 0:
        return None
    if length > most:
        raise CorruptValue(f"a value of {length} bytes; at most {most} are read")
    buffer = np.empty(length + 2, np.uint8)
    view = buffer.data
    while view:
        view = view[_not_empty(link.recv_into(view)) :]
    return buffer[:length]


def _not_empty(received: T) -> T:
    if not received:
        raise redis.ConnectionError("the store closed the connection within a reply")
    return received
