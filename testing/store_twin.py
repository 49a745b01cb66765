"""A store in this process's memory: what redis-py's clients see of one, by fakeredis."""

from typing import cast

import fakeredis
import numpy as np
import redis
from maskwire_core.storage.connections import Connections
from maskwire_core.storage.store import Store
from numpy.typing import NDArray


class TwinConnections(Connections):
    """Connections to a store in memory; `server.connected = False` makes it unreachable."""

    def __init__(self) -> None:
        super().__init__("redis://twin:1/0", timeout_s=1)
        self.server = fakeredis.FakeServer()
        self._open = self.client

    def client(self) -> redis.Redis:
        """Returns a client of the same store."""
        return fakeredis.FakeRedis(server=self.server)

    def get(self, name: str, most: int = 0) -> NDArray[np.uint8] | None:
        value = cast(bytes | None, self._connected().get(name))  # there is no socket to read from
        return None if value is None else np.frombuffer(value, np.uint8)


def twin_store() -> Store:
    """Opens a `Store` of its own in this process's memory."""
    store = Store("redis://twin:1/0")
    store.connections = TwinConnections()
    return store
