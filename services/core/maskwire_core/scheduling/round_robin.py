"""A waiting line in which tenants take turns, however many calls of each wait."""

import asyncio
from collections import deque


class RoundRobin:
    """Lets callers begin one at a time, tenant by tenant. Used on one event loop; false while nobody waits."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by tenant, whose turn is next first

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def wait(self, tenant: str) -> "asyncio.Future[None]":
        """Returns a future that is done when it is the caller's turn; a caller that leaves cancels it."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        return turn

    def let_next(self) -> bool:
        """Lets the next one begin; a tenant that has more waiting is behind all others then. Returns whether anybody
        has begun."""
        while self._waiting:
            tenant = next(iter(self._waiting))
            turns = self._waiting.pop(tenant)
            while turns and turns[0].done():  # its caller has left
                turns.popleft()
            if turns:
                turns.popleft().set_result(None)
                if turns:
                    self._waiting[tenant] = turns
                return True
        return False
