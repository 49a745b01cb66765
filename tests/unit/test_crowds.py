"""Whose connections a server has, as Linux tells it, and who has more than a share of them."""

import errno
import socket
import struct

import pytest
from maskwire_core.rpc.callers import name_of, read
from maskwire_core.rpc.crowds import Caller, beyond_share

ONE, TWO = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
DONE, ERROR, BY_FAMILY = 3, 2, 20
INODE = 4711


def message(kind: int, body: bytes, number: int = 7) -> bytes:
    """A message of netlink(7)."""
    return struct.pack("=IHHII", 16 + len(body), kind, 0, number, 0) + body + bytes(-len(body) % 4)


def connection(caller: str, number: int = 7) -> bytes:
    """A connection, as sock_diag(7) tells of it, with an attribute that nobody asked for."""
    family = socket.AF_INET6 if ":" in caller else socket.AF_INET
    ours, address = bytes([9] * 16), socket.inet_pton(family, caller).ljust(16, b"\x00")
    body = struct.pack("=BBBB", family, 1, 0, 0) + struct.pack("!HH", 50051, 40000) + ours + address
    return message(BY_FAMILY, body + bytes(28) + struct.pack("=I", INODE) + b"\x05\x00\x08\x00\x00", number)


@pytest.mark.parametrize(
    ("caller", "network"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2a00:1:2:3:4:5:6:7", "2a00:1:2:3::/64"),
        ("::1", "::/64"),
    ],
)
def test_whose_a_connection_is(caller: str, network: str) -> None:
    found, is_last = read(connection(caller) + connection("10.9.9.9"), 7)
    assert [(name_of(each), inode) for each, inode in found] == [(network, INODE), ("10.9.9.9", INODE)]
    assert not is_last
    found, is_last = read(connection(caller) + message(DONE, bytes(4)), 7)
    assert len(found) == 1
    assert is_last


def test_answers_to_others_are_passed_over() -> None:
    stale = connection("10.1.2.3", 6) + message(DONE, bytes(4), 6) + message(ERROR, struct.pack("=i", -errno.EPERM), 6)
    assert read(stale, 7) == ([], False)


def test_an_error_is_raised() -> None:
    with pytest.raises(OSError, match="No such file"):
        read(message(ERROR, struct.pack("=i", -errno.ENOENT)), 7)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({(1, ONE): 65}, {}),
        ({(1, ONE): 66}, {(1, ONE): 0}),  # one alone has two thirds of 99
        ({(1, ONE): 90}, {(1, ONE): 24}),
        ({(1, ONE): 60, (1, TWO): 9}, {(1, ONE): 0}),  # it may have twice the 30 that are free
        ({(1, ONE): 40, (1, TWO): 38}, {}),
        ({(1, ONE): 40, (1, TWO): 42}, {(1, TWO): 3, (1, ONE): 0}),  # the largest first
        ({(1, ONE): 40, (2, ONE): 38}, {}),  # who crowds one port can come to another
        ({(1, ONE): 70, (2, ONE): 1}, {(1, ONE): 5}),
        ({(1, bytes([number])): 1 for number in range(99)}, {(1, bytes([number])): 0 for number in range(99)}),
    ],
)
def test_who_has_more_than_a_share(counts: dict[Caller, int], expected: dict[Caller, int]) -> None:
    assert list(beyond_share(counts, 99).items()) == list(expected.items())
