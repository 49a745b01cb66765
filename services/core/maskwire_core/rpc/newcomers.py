"""Keeps new connections waiting, from below gRPC, which takes all of them.

A classic BPF program on a listening socket drops the segments that ask for a connection, where they come from certain
networks: their system asks again after one, three and seven seconds. Connections that exist are not touched. See
Linux' Documentation/networking/filter.rst.
"""

import contextlib
import ctypes
import ipaddress
import os
import socket
import stat
import struct
import sys
import threading
from collections.abc import Iterable, Iterator

MOST_NETWORKS = 64
"""Networks that may wait for one reason: Linux accepts a program of 128, also where a socket has 20 KiB for options."""

_OPEN_FILES = "/dev/fd"
_ATTACH, _DETACH = 26, 27  # SO_ATTACH_FILTER and SO_DETACH_FILTER, which Python does not name
_QUEUED_AT = 24  # tcpi_unacked of TCP_INFO, which is that of a socket that listens

# Instructions, whose numbers are those of linux/bpf_common.h
_LOAD_BYTE, _LOAD_WORD, _LOAD_KEPT, _KEEP = 0x30, 0x20, 0x60, 0x02
_AND, _IF_EQUAL, _JUMP, _RETURN = 0x54, 0x15, 0x05, 0x06
_NETWORK_HEADER = 0xFFF00000  # added to an offset: from the beginning of the IP header, not of TCP's
_FLAGS, _SYN_OR_ACK, _SYN = 13, 0x12, 0x02
_IPV4_SOURCE, _IPV6_SOURCE = _NETWORK_HEADER + 12, _NETWORK_HEADER + 8
_PASS, _DROP = (_RETURN, 0, 0, 0xFFFFFFFF), (_RETURN, 0, 0, 0)

_Instruction = tuple[int, int, int, int]  # what it does, how many to skip if so and if not, and a number


class Newcomers:
    """New connections to one port of this process, and who of them waits for which reasons. Does nothing on systems
    other than Linux. Safe for use by several threads.

    Attributes:
        port: The port; 0 until `find_listeners`.
        permitted: Whether the system lets them wait: newer kernels, such as 6.18.44, ask for CAP_NET_ADMIN.
    """

    def __init__(self) -> None:
        self.port = 0
        self.permitted = True
        self._listeners: list[int] = []  # file descriptors
        self._waiting: dict[str, list[str]] = {}  # networks, by reason
        self._lock = threading.Lock()

    def find_listeners(self, port: int) -> None:
        """Looks at all open files of the process for what listens on a port. Before, nobody waits."""
        self.port = port
        self._listeners = [number for number, _, found in listeners() if found == port]
        self._attach([_PASS])
        self._attach([])

    def keep_waiting(self, reason: str, networks: Iterable[str]) -> None:
        """Keeps those from these networks waiting, and those from others no longer that waited for the same reason.

        Args:
            reason: Why; those from a network wait as long as there is one.
            networks: IPv4 addresses and IPv6 networks of 64 bits, as `network_of` gives them; `MOST_NETWORKS` at most.
        """
        with self._lock:
            self._waiting[reason] = list(networks)
            self._attach(_program({each for some in self._waiting.values() for each in some}))

    def queued(self) -> int:
        """How many have connected, and were not accepted yet."""
        total = 0
        for number in self._listeners:
            with contextlib.suppress(OSError), _listener(number) as listener:
                info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUED_AT + 4)
                total += int.from_bytes(info[_QUEUED_AT:], sys.byteorder)
        return total

    def _attach(self, instructions: list[_Instruction]) -> None:
        program = b"".join(struct.pack("HBBI", *each) for each in instructions)
        code = ctypes.create_string_buffer(program)
        attached = struct.pack("HP", len(instructions), ctypes.addressof(code))
        for number in self._listeners:
            with contextlib.suppress(OSError), _listener(number) as listener:  # or it is closed by now
                if listener.getsockname()[1] != self.port:
                    continue
                try:
                    if program:
                        listener.setsockopt(socket.SOL_SOCKET, _ATTACH, attached)
                    else:
                        listener.setsockopt(socket.SOL_SOCKET, _DETACH, 0)
                except PermissionError:
                    self.permitted = False


def listeners() -> Iterator[tuple[int, socket.AddressFamily, int]]:
    """File descriptor, family and port of all sockets of this process that listen for TCP connections."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(_OPEN_FILES):
            with contextlib.suppress(OSError), _listener(int(name)) as found:  # or it is none, or closed by now
                yield int(name), found.family, found.getsockname()[1]


@contextlib.contextmanager
def _listener(number: int) -> Iterator[socket.socket]:
    """A file descriptor that listens for TCP connections, as a socket that does not close it. It is no copy: there is
    none to be had when the process has as many files as it may, which is just when connections have to wait. Should the
    number become another file's at that moment, as a server stops, its filter passes all but what asks for connections.

    Raises:
        OSError: If it does not listen.
    """
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        raise OSError("no socket")
    found = socket.socket(fileno=number)
    try:
        is_tcp = found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM
        if not is_tcp or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError("does not listen")
        yield found
    finally:
        found.detach()


def _program(networks: Iterable[str]) -> list[_Instruction]:
    """The program; empty if there are no networks."""
    ipv4, ipv6 = list[_Instruction](), list[_Instruction]()
    for each in networks:
        try:
            network = ipaddress.ip_network(each)
        except ValueError:  # "local", which is none
            continue
        if network.version == 4:
            ipv4 += [(_IF_EQUAL, 0, 1, int(network.network_address)), _DROP]
        else:
            high, low = divmod(int(network.network_address) >> 64, 1 << 32)
            ipv6 += [
                (_LOAD_KEPT, 0, 0, 0),
                (_IF_EQUAL, 0, 3, high),
                (_LOAD_KEPT, 0, 0, 1),
                (_IF_EQUAL, 0, 1, low),
                _DROP,
            ]
    if not ipv4 and not ipv6:
        return []
    return [
        (_LOAD_BYTE, 0, 0, _FLAGS),
        (_AND, 0, 0, _SYN_OR_ACK),
        (_IF_EQUAL, 1, 0, _SYN),
        _PASS,
        (_LOAD_BYTE, 0, 0, _NETWORK_HEADER),
        (_AND, 0, 0, 0xF0),  # the version of IP
        (_IF_EQUAL, 0, 1, 0x60),
        (_JUMP, 0, 0, len(ipv4) + 2),
        (_LOAD_WORD, 0, 0, _IPV4_SOURCE),
        *ipv4,
        _PASS,
        (_LOAD_WORD, 0, 0, _IPV6_SOURCE),
        (_KEEP, 0, 0, 0),
        (_LOAD_WORD, 0, 0, _IPV6_SOURCE + 4),
        (_KEEP, 0, 0, 1),
        *ipv6,
        _PASS,
    ]
