"""TCP ports that nobody uses, for servers that are about to start."""

import contextlib
import random
import socket
from collections.abc import Collection

from maskwire import host_port

_SERVERS_PORTS = 10_000, 32_768  # connections begin at 32,768 on Linux, and above elsewhere
_ANY = random.SystemRandom()  # programs may seed the common one, in every process alike


def free_port(host: str = "127.0.0.1", taken: Collection[int] = ()) -> int:
    """Returns a port of a host that nobody uses. It lies below those that systems give to connections: of these,
    another process's connection may get one before the server listens there.

    Args:
        host: Name or address of this machine to listen on.
        taken: Ports that others are to have.

    Raises:
        OSError: Nothing can listen on the host.
    """
    listen(host, 0).close()
    while True:
        port = _ANY.randrange(*_SERVERS_PORTS)
        with contextlib.suppress(OSError):
            if port not in taken:
                listen(host, port).close()
                return port


def listen(host: str, port: int) -> socket.socket:
    """Listens on a port of a host: of IPv4, of IPv6, or of both for "::"."""
    if not host_port.is_ipv6(host):
        return socket.create_server((host, port))
    return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=host == "::")
