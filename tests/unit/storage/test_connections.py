"""What a store's errors mean for those who ask it."""

import pytest
import redis
from maskwire_core.errors import Unavailable
from maskwire_core.storage import connections
from maskwire_core.storage.store import Store


@pytest.mark.parametrize("answer", [redis.ReadOnlyError, redis.ConnectionError, redis.BusyLoadingError])
def test_whatever_a_store_answers_ends_its_silence(
    store: Store, answer: type[redis.RedisError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_PROBE_AFTER_S", 0)
    with pytest.raises(Unavailable), store.connections.commands():
        raise redis.TimeoutError
    with pytest.raises(Unavailable), store.connections.commands():  # the caller who tries it
        raise answer
    store.ping()
