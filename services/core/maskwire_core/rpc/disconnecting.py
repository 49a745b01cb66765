"""Closes connections from below gRPC, which has no call for it."""

import contextlib
import os
import socket
import stat
from collections.abc import Collection
from urllib.parse import quote

_OPEN_FILES = "/dev/fd"


def disconnect(peers: Collection[str]) -> int:
    """Closes connections: gRPC finds them closed by their callers. Looks at all open files of the process; does nothing
    where the system does not list them.

    Args:
        peers: Other ends of TCP connections, as gRPC says them: "ipv4:10.1.2.3:50051", "ipv6:%5B2a00::9%5D:50051".

    Returns:
        How many were closed.
    """
    closed = 0
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(_OPEN_FILES):
            with contextlib.suppress(OSError):  # it is closed by now
                closed += _shut_down(int(name), peers)
    return closed


def _shut_down(number: int, peers: Collection[str]) -> bool:
    """Closes the connection of a file descriptor if it is one of these. Returns whether it is."""
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        return False
    copy = os.dup(number)  # which stays the same, while the number may become another file's at any time
    try:
        connection = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with connection:
        found = connection.type == socket.SOCK_STREAM and _peer(connection) in peers
        if found:
            connection.shutdown(socket.SHUT_RDWR)
        return found


def _peer(connection: socket.socket) -> str:
    """The other end of a connection, as gRPC says it; "" where it has no port. Raises OSError if there is none."""
    match connection.family:
        case socket.AF_INET:
            host, port = connection.getpeername()
            return f"ipv4:{host}:{port}"
        case socket.AF_INET6:
            host, port, *_ = connection.getpeername()
            if host.startswith("::ffff:"):
                return f"ipv4:{host.removeprefix('::ffff:')}:{port}"
            return f"ipv6:{quote(f'[{host}]', safe=':')}:{port}"
        case _:
            return ""
