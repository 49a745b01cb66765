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
from collections.abc import Iterable, Iterator

MOST_NETWORKS = 64

_OPEN_FILES = "/dev/fd"
_ATTACH, _DETACH = 26, 27  # SO_ATTACH_FILTER and SO_DETACH_FILTER, which Python does not name

# Instructions, whose numbers are those of linux/bpf_common.h
_LOAD_BYTE, _LOAD_WORD, _AND, _IF_EQUAL, _JUMP, _RETURN = 0x30, 0x20, 0x54, 0x15, 0x05, 0x06
_NETWORK_HEADER = 0xFFF00000  # added to an offset: from the beginning of the IP header, not of TCP's
_FLAGS, _SYN_OR_ACK, _SYN = 13, 0x12, 0x02
_IPV4_SOURCE, _IPV6_SOURCE = _NETWORK_HEADER + 12, _NETWORK_HEADER + 8
_PASS, _DROP = (_RETURN, 0, 0, 0xFFFFFFFF), (_RETURN, 0, 0, 0)

_Instruction = tuple[int, int, int, int]  # what it does, how many to skip if so and if not, and a number


class Newcomers:
    """New connections to the ports of this process. Does nothing on systems other than Linux."""

    def __init__(self) -> None:
        self._listeners: list[int] | None = None  # file descriptors, once they were looked for

    def keep_waiting(self, networks: Iterable[str]) -> None:
        """Keeps those from these networks waiting, and those from others no longer. The first time it looks at all open
        files of the process.

        Args:
            networks: IPv4 addresses and IPv6 networks of 64 bits, as `network_of` gives them; `MOST_NETWORKS` at most.
        """
        program = b"".join(struct.pack("HBBI", *each) for each in _program(networks))
        code = ctypes.create_string_buffer(program)
        attached = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
        if self._listeners is None:
            self._listeners = list(_find_listeners())
        for number in self._listeners:
            with contextlib.suppress(OSError), _listener(number) as listener:  # or it is closed by now
                if program:
                    listener.setsockopt(socket.SOL_SOCKET, _ATTACH, attached)
                else:
                    listener.setsockopt(socket.SOL_SOCKET, _DETACH, 0)


def _find_listeners() -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(_OPEN_FILES):
            with contextlib.suppress(OSError), _listener(int(name)):  # or it is none, or closed by now
                yield int(name)


def _listener(number: int) -> socket.socket:
    """A copy of a file descriptor that listens for TCP connections. Raises OSError if it does not."""
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        raise OSError("no socket")
    copy = os.dup(number)  # which stays the same, while the number may become another file's at any time
    try:
        found = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    is_tcp = found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM
    if not is_tcp or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        found.close()
        raise OSError("does not listen")
    return found


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
                (_LOAD_WORD, 0, 0, _IPV6_SOURCE),
                (_IF_EQUAL, 0, 3, high),
                (_LOAD_WORD, 0, 0, _IPV6_SOURCE + 4),
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
        *ipv6,
        _PASS,
    ]
