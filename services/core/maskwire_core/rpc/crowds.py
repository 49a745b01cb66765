"""Shares a server's connections between addresses.

gRPC accepts whoever comes, and tells of nobody who says nothing, or does not finish a TLS handshake. So it is watched
from outside: how many files the process has open, and only if those are many, whose connections they are. Who has more
than a share keeps what there is, but new connections wait until it is less. Where the system does not permit that, the
newest connections are ended that are more than the share.
"""

import contextlib
import logging
import os
import resource
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from maskwire_core.rpc.callers import Callers, name_of
from maskwire_core.rpc.newcomers import MOST_NETWORKS, Newcomers, listeners
from maskwire_core.runtime.open_files import raise_file_limit
from maskwire_core.scheduling.shares import Shares

log = logging.getLogger(__name__)

_REASON = "crowds"
_OPEN_FILES = "/proc/self/fd"
# Connections take up to 50 KiB each before anything is known of them. They share half of the files: what comes at once
# finds place in the other half until it has been counted.
_FILES = 8_192
_SHORTEST_S = 0.02  # from one look how many files are open, or will be, to the next
_PER_S = 50_000  # connections that may come in a second
# To find out whose connections they are takes 11 ms of a core for 8,000 with both ends here. It is done again after so
# many times as long; sooner only when so many have come since, of those that all may have.
_REST, _SHORT_REST = 20, 2
_GROWTH = 1 / 16
_TELL_S = 10.0  # between lines in the log

Caller = tuple[int, bytes]
"""A port, and a network: who crowds one port can still come to the others, such as that of health checks."""


@contextlib.contextmanager
def sharing_connections(newcomers: Newcomers) -> Iterator[None]:
    """Shares connections to all ports of this process while the body runs, and lets it have many. They are not shared
    where the system does not tell whose they are: Linux does.

    Args:
        newcomers: Those to the port that has other reasons to keep them waiting, too.
    """
    most = min(raise_file_limit(_FILES), _FILES) // 2
    try:
        callers = Callers()
    except (AttributeError, OSError) as error:  # not Linux, or not allowed
        log.info("connections are not shared by address: %s", error)
        yield
        return
    if not newcomers.permitted:
        log.info("without CAP_NET_ADMIN new connections do not wait here: those beyond an address's share are ended")
    crowds = _Crowds(callers, newcomers, most)
    thread = threading.Thread(target=crowds.watch, name="crowds", daemon=True)
    thread.start()
    try:
        yield
    finally:
        crowds.stopping.set()
        thread.join()
        callers.close()


class _Crowds:
    """What the thread does."""

    def __init__(self, callers: Callers, newcomers: Newcomers, most: int) -> None:
        self.stopping = threading.Event()
        self._callers = callers
        self._most = most
        self._many = most * 2 // 3  # while all together have as many, nobody can have too much
        self._listeners = {(family, port) for _, family, port in listeners()}
        self._newcomers = {newcomers.port: newcomers}
        for port in {port for _, port in self._listeners} - {newcomers.port}:
            self._newcomers[port] = Newcomers()
            self._newcomers[port].find_listeners(port)
        self._waiting: set[Caller] = set()
        self._least = 0  # the fewest files that were taken since whose they are was found out
        self._next = 0.0  # when that is to be done again
        self._told = -_TELL_S

    def watch(self) -> None:
        """Looks again and again until `stopping` is set."""
        pause_s = _SHORTEST_S
        try:
            while not self.stopping.wait(pause_s):
                started = time.thread_time()
                taken = open_files() + sum(each.queued() for each in self._newcomers.values())
                took_s = time.thread_time() - started
                self._look(taken)
                rest_s = _SHORT_REST * (time.thread_time() - started - took_s)
                pause_s = max(_SHORTEST_S, _REST * took_s, rest_s, (self._many - taken) / _PER_S)
        except OSError as error:
            log.warning("connections are not shared by address any more: %s", error)
        self._keep_waiting([])

    def _look(self, taken: int) -> None:
        self._least = min(self._least, taken)
        if taken <= self._many:
            self._keep_waiting([])
        elif taken - self._least > self._most * _GROWTH or time.monotonic() >= self._next:
            self._least, started = taken, time.thread_time()
            found = defaultdict[Caller, list[int]](list)
            for family, port in self._listeners:
                for network, inodes in self._callers.find(family, port).items():
                    found[port, network] += inodes
            beyond = beyond_share({caller: len(inodes) for caller, inodes in found.items()}, self._most)
            self._keep_waiting(list(beyond))
            doomed = set[int]()
            for (port, network), count in beyond.items():
                if not self._newcomers[port].permitted:
                    newest = sorted(filter(None, found[port, network]), reverse=True)  # numbers grow, roughly
                    doomed.update(newest[:count])
            end(doomed)
            self._next = time.monotonic() + _REST * (time.thread_time() - started)

    def _keep_waiting(self, crowds: list[Caller]) -> None:
        if self._waiting == set(crowds):
            return
        if crowds and not self._waiting and time.monotonic() - self._told > _TELL_S:
            self._told = time.monotonic()
            port, network = crowds[0]
            told = "%s has more than its share of connections to port %d, as one of %d networks: no more are taken"
            log.warning(told, name_of(network), port, len(crowds))
        self._waiting = set(crowds)
        for port, newcomers in self._newcomers.items():
            networks = [name_of(network) for at, network in crowds if at == port]
            newcomers.keep_waiting(_REASON, networks[:MOST_NETWORKS])


def open_files() -> int:
    """How many files this process has open."""
    # Linux says it in this way from 6.2 on, in 3 µs. Before, all are listed: 50 µs for a hundred, 3 ms for 4,000.
    told = os.stat(_OPEN_FILES).st_size
    if told:
        return told
    try:
        return len(os.listdir(_OPEN_FILES))
    except OSError:  # there is no file left to list them with
        return sys.maxsize


def end(inodes: Collection[int]) -> None:
    """Shuts down those of this process's connections whose inodes these are; gRPC then closes them."""
    if not inodes:
        return
    try:
        numbers: Iterable[int] = map(int, os.listdir(_OPEN_FILES))
    except OSError:  # there is no file left to list them with
        numbers = range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for number in numbers:
        with contextlib.suppress(OSError):  # it is none, or closed by now
            if os.fstat(number).st_ino not in inodes:
                continue
            connection = socket.socket(fileno=number)
            try:
                connection.shutdown(socket.SHUT_RDWR)
            finally:
                connection.detach()


def beyond_share(counts: Mapping[Caller, int], most: int) -> dict[Caller, int]:
    """Who may have no connection more, the largest first, and how many each has that are too many.

    Args:
        counts: How many connections each caller has.
        most: How many all may have together.
    """
    shares = Shares(most)
    for caller, count in counts.items():
        shares.add(caller, count)
    beyond = sorted((each for each in counts if not shares.fits(each, 1)), key=lambda each: -counts[each])
    for caller in beyond:
        # Of those who have few, nobody has too many, though all together have: it is not said who came last.
        while shares.of(caller) > most // MOST_NETWORKS and not shares.fits(caller, 0):
            shares.add(caller, -1)
    return {caller: counts[caller] - shares.of(caller) for caller in beyond}
