"""Slows down those whose calls end badly again and again: who are refused, or reset what they have called."""

import asyncio
import logging
import time
from collections import OrderedDict
from typing import Any

import grpc
from maskwire.token_bucket import TokenBucket

from maskwire_core.networks import network_of_peer
from maskwire_core.rpc.newcomers import MOST_NETWORKS, Newcomers

Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)

_PER_S = 50  # calls that may end badly, of a tenant and of the strangers of an address
_AT_ONCE = {"tenant": 200, "address": 100}  # likewise, at once
_LATEST_S = 1.0  # most that a refusal is put off
_HELD_S = 10.0  # how long a call that was reset is held; nobody waits for it
_AWAY_S = 5.0  # how long new connections from an address wait
_MOST_HELD = 4096
_REMEMBERED = 10_000  # connections, and sources
_TELL_S = 10.0  # between lines in the log
_SEVERAL = ""
_REASON = "floods"


class Floods:
    """What is done about floods of calls that are refused or reset.

    Each costs the event loop half a millisecond, and gRPC takes up calls in the order in which they come, before
    anybody knows whose they are. So those that come faster than matters are held for a while: their refusal comes
    later, or, where nobody waits for it any more, they are given up later. A call that is held keeps a stream of its
    connection busy, also after its caller has reset it, and gRPC refuses by itself, at next to no cost, what comes on a
    connection whose streams are all busy.

    Connections of several tenants, such as a proxy's, have no streams to lose: resets there are not held, nor are
    strangers' calls on any tenant's connection. While calls are held that were reset, or strangers', new connections
    from their address wait, too: each would bring more of them.

    Args:
        newcomers: New connections to the port that is called.
    """

    def __init__(self, newcomers: Newcomers) -> None:
        self._buckets: OrderedDict[tuple[str, str], TokenBucket] = OrderedDict()
        self._users: OrderedDict[str, str] = OrderedDict()  # by connection, the tenant, or that there are several
        self._held: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._away: OrderedDict[str, asyncio.TimerHandle] = OrderedDict()  # networks whose new connections wait
        self._newcomers = newcomers
        self._ends = False
        self._told = -_TELL_S

    def trust(self, peer: str, tenant: str) -> None:
        """Notes that a call of a tenant has come on a connection."""
        self._users[peer] = tenant if self._users.get(peer, tenant) == tenant else _SEVERAL
        self._users.move_to_end(peer)
        if len(self._users) > _REMEMBERED:
            self._users.popitem(last=False)

    async def refused(self, peer: str, tenant: str | None, context: Context) -> None:
        """Counts a refusal that is not sent yet, and waits: for half of the time that is left of the call's at most.

        Args:
            peer: The connection.
            tenant: Whose call it is; None for a stranger's, without a valid token.
            context: The call's.
        """
        if tenant is None and peer in self._users:
            return
        seconds, left_s = self._count(peer, tenant), context.time_remaining()
        if tenant is None and seconds:
            self._keep_away(peer)
        await self._hold(seconds if left_s is None else min(seconds, left_s / 2))

    async def reset(self, peer: str, tenant: str | None) -> None:
        """Counts a call that its caller has reset, and waits. Arguments as of `refused`."""
        if self._users.get(peer) == tenant and self._count(peer, tenant):
            self._keep_away(peer)
            await self._hold(_HELD_S)

    def end(self) -> None:
        """Keeps nobody waiting any longer."""
        self._ends = True
        for held in list(self._held):
            self._free(held)

    def _count(self, peer: str, tenant: str | None) -> float:
        """Counts a call that ended badly. Returns the seconds until the next may come, `_LATEST_S` at most; 0 while
        they are not too many."""
        source = ("address", network_of_peer(peer)) if tenant is None else ("tenant", tenant)
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = TokenBucket(_PER_S, _AT_ONCE[source[0]])
            if len(self._buckets) > _REMEMBERED:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(source)
        seconds = bucket.wait_s()
        if seconds < _LATEST_S:  # so that it is over soon after a flood
            bucket.take()
        elif time.monotonic() - self._told > _TELL_S:
            self._told = time.monotonic()
            log.warning("calls of the %s %r end badly in floods, and are held", *source)
        return min(seconds, _LATEST_S)

    def _keep_away(self, peer: str) -> None:
        """Keeps new connections from a caller's address waiting for some seconds from now on."""
        network, loop = network_of_peer(peer), asyncio.get_running_loop()
        known = self._away.pop(network, None)
        if known is not None:
            known.cancel()
        elif len(self._away) == MOST_NETWORKS:
            self._away.popitem(last=False)[1].cancel()
        self._away[network] = loop.call_later(_AWAY_S, self._let_come, network)
        if known is None:
            self._newcomers.keep_waiting(_REASON, self._away)

    def _let_come(self, network: str) -> None:
        del self._away[network]
        self._newcomers.keep_waiting(_REASON, self._away)

    async def _hold(self, seconds: float) -> None:
        if seconds <= 0 or self._ends:
            return
        loop = asyncio.get_running_loop()
        held: asyncio.Future[None] = loop.create_future()
        self._held[held] = None
        if len(self._held) > _MOST_HELD:
            self._free(next(iter(self._held)))
        timer = loop.call_later(seconds, self._free, held)
        try:
            await held
        finally:
            timer.cancel()
            self._held.pop(held, None)

    def _free(self, held: asyncio.Future[None]) -> None:
        self._held.pop(held, None)
        if not held.done():
            held.set_result(None)
