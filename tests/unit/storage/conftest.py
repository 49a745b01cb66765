"""Fixtures: the store's twin in memory. The same tests run over Valkey and Redis in tests/services/core."""

from collections.abc import Iterator

import pytest
import redis
from maskwire_core.storage.store import Store

from testing.store_twin import TwinConnections


@pytest.fixture
def raw(store: Store) -> Iterator[redis.Redis]:
    assert isinstance(store.connections, TwinConnections)
    with store.connections.client() as client:
        yield client
