"""Slows down callers who are refused again and again, and disconnects those of them whom nobody knows."""

import asyncio
import logging
import time
from collections import OrderedDict
from typing import Any

import grpc
from maskwire.token_bucket import TokenBucket

from maskwire_core.networks import network_of_peer
from maskwire_core.rpc.disconnecting import disconnect

Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)

_REFUSALS_PER_S = 50  # of a tenant, and of an address without tokens
_AT_ONCE = 200
_LONGEST_S = 1.0
_REMEMBERED = 10_000  # connections, and sources
_TELL_S = 10.0  # between lines in the log
_GATHER_S = 0.02  # connections are closed together: for that all open files are looked at


class Floods:
    """What is done about floods of calls that are refused.

    A refusal costs the event loop half a millisecond, and gRPC takes up calls in the order in which they come, before
    anybody knows whose they are. So whose calls are refused faster than that matters waits longer for each refusal,
    which keeps a stream of its connection busy: gRPC takes up no more than 64 at a time. Who has no valid token would
    not wait, but reset the calls: such a connection is closed, unless somebody else's calls with a valid token come on
    it, as on a proxy's.
    """

    def __init__(self) -> None:
        self._buckets: OrderedDict[tuple[str, str], TokenBucket] = OrderedDict()
        self._trusted: OrderedDict[str, None] = OrderedDict()
        self._flooding: set[str] = set()
        self._waiting: set[asyncio.Future[None]] = set()
        self._ends = False
        self._closed = 0
        self._told = -_TELL_S

    def trust(self, peer: str) -> None:
        """Notes that a call with a valid token has come on a connection."""
        self._trusted[peer] = None
        self._trusted.move_to_end(peer)
        if len(self._trusted) > _REMEMBERED:
            self._trusted.popitem(last=False)

    def stranger_refused(self, peer: str) -> None:
        """Counts the refusal of a call without a valid token. Its connection may be closed soon."""
        if not self._seconds(("address", network_of_peer(peer))) or peer in self._trusted:
            return
        if not self._flooding:
            asyncio.get_running_loop().call_later(_GATHER_S, self._disconnect)
        self._flooding.add(peer)

    async def tenant_refused(self, tenant: str, context: Context) -> None:
        """Counts a refusal, which is not sent yet, and waits: for a second at most, and for half of the time that is
        left of the call's."""
        left_s = context.time_remaining()
        seconds = min(self._seconds(("tenant", tenant)), _LONGEST_S if left_s is None else left_s / 2)
        if seconds <= 0 or self._ends:
            return
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()
        self._waiting.add(waiting)
        timer = loop.call_later(seconds, self._wake, waiting)
        try:
            await waiting
        finally:
            timer.cancel()
            self._waiting.discard(waiting)

    def end(self) -> None:
        """Keeps nobody waiting any longer."""
        self._ends = True
        for waiting in self._waiting:
            self._wake(waiting)

    def _seconds(self, source: tuple[str, str]) -> float:
        """Counts a refusal. Returns the seconds until the next may come; 0 while they are not too many."""
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = TokenBucket(_REFUSALS_PER_S, _AT_ONCE)
            if len(self._buckets) > _REMEMBERED:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(source)
        seconds = bucket.wait_s()
        if seconds < _LONGEST_S:  # so that it is over soon after a flood
            bucket.take()
        return seconds

    def _wake(self, waiting: asyncio.Future[None]) -> None:
        if not waiting.done():
            waiting.set_result(None)

    def _disconnect(self) -> None:
        peers, self._flooding = self._flooding, set()
        done = asyncio.get_running_loop().run_in_executor(None, disconnect, peers - self._trusted.keys())
        done.add_done_callback(self._count)

    def _count(self, done: asyncio.Future[int]) -> None:
        if done.exception() is not None:
            log.error("connections could not be closed", exc_info=done.exception())
            return
        self._closed += done.result()  # those of calls that came before may be closed already
        if self._closed and time.monotonic() - self._told > _TELL_S:
            self._told = time.monotonic()
            log.warning("closed %d connections on which calls without a valid token came in floods", self._closed)
            self._closed = 0
