"""Quotas of namespaces, over the in-memory twin here and over real stores in tests/services."""

import dataclasses
import hashlib
import time

import numpy as np
import pytest
import redis
from maskwire_core.errors import ResourceExhausted
from maskwire_core.storage import quotas
from maskwire_core.storage.embedding import Header, pack
from maskwire_core.storage.quotas import Quotas
from maskwire_core.storage.store import Store

HEADER = Header("acme", "", "demo", "f", "d", 10, 20, "fp32", 0)


STORED = """
local total = 0
for _, name in ipairs(redis.call('keys', 'maskwire:embedding:{acme/*')) do
  total = total + redis.call('strlen', name)
end
for _, name in ipairs(redis.call('keys', 'maskwire:source:{acme/*')) do
  total = total + redis.call('strlen', name)
end
return total
"""


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def value(number: int, floats: int, namespace: str = "acme", created_at: float = 0) -> bytes:
    header = dataclasses.replace(HEADER, namespace=namespace, content_key=key(number), created_at=created_at)
    return pack(header, {"image_embed": np.full(floats, number, np.float32)})


SIZE = len(value(0, 1000))


def total_bytes(raw: redis.Redis, namespace: str) -> int:
    """What the ledger says that a namespace stores."""
    return int(raw.hget(f"maskwire:sizes:{{{namespace}}}", "total") or 0)


def test_what_would_expire_first_makes_room(store: Store, raw: redis.Redis) -> None:
    books, quota = Quotas(store), 3 * SIZE
    for number in range(3):
        books.put_embedding("acme", key(number), value(number, 1000), 100 + number, quota)
        time.sleep(0.002)
    books.touch_embedding("acme", key(0), SIZE, 200, quota)
    books.put_embedding("acme", key(3), value(3, 1000), 100, quota)
    left = [number for number in range(4) if store.get_embedding("acme", key(number)) is not None]
    assert left == [0, 2, 3]
    assert total_bytes(raw, "acme") == 3 * SIZE
    # Another tenant's books are its own, and without a quota there are none.
    books.put_embedding("other", key(0), value(0, 1000, "other"), 100, SIZE)
    books.put_embedding("free", key(0), value(0, 1000, "free"), 100, 0)
    assert (total_bytes(raw, "other"), total_bytes(raw, "free")) == (SIZE, 0)
    assert total_bytes(raw, "acme") == 3 * SIZE
    books.erase_embedding("acme", key(2))
    assert total_bytes(raw, "acme") == 2 * SIZE
    with pytest.raises(ResourceExhausted, match="may store") as caught:
        books.put_embedding("acme", key(4), value(4, 10_000), 100, quota)
    assert (caught.value.reason, caught.value.retry_after_s) == ("QUOTA_TOO_SMALL", None)
    assert store.get_embedding("acme", key(3)) is not None


def test_files_count_and_go_with_their_image(store: Store, raw: redis.Redis) -> None:
    books, quota, file = Quotas(store), 4 * SIZE, bytes(SIZE)
    assert not books.put_source("acme", key(0), file, 50, quota, 0)  # there is no such image
    assert not raw.keys("maskwire:source:*")
    assert total_bytes(raw, "acme") == 0
    for number in range(2):
        books.put_embedding("acme", key(number), value(number, 1000), 100 + number, quota)
        assert books.put_source("acme", key(number), file, 50 + number, quota, SIZE)
    assert total_bytes(raw, "acme") == raw.eval(STORED, 0) == 4 * SIZE
    assert books.touch_source("acme", key(0), 90, quota)
    assert not books.touch_source("acme", key(2), 90, quota)
    books.put_embedding("acme", key(2), value(2, 1000), 100, quota)  # the other file expires first, and gives way
    kept = [bool(raw.exists(f"maskwire:source:{{acme/{key(number)}}}")) for number in range(2)]
    assert (kept, total_bytes(raw, "acme"), raw.eval(STORED, 0)) == ([True, False], 4 * SIZE, 4 * SIZE)
    books.erase_embedding("acme", key(0))
    assert not raw.keys("maskwire:source:*")
    assert total_bytes(raw, "acme") == raw.eval(STORED, 0) == 2 * SIZE
    with pytest.raises(ResourceExhausted, match="keep_source") as caught:
        books.put_source("acme", key(1), bytes(3 * SIZE + 1), 50, quota, SIZE)
    assert caught.value.reason == "QUOTA_TOO_SMALL"
    assert books.put_source("acme", key(1), file, 50, 0, SIZE)  # without a quota
    assert total_bytes(raw, "acme") == 2 * SIZE


def test_a_smaller_quota_and_what_was_there_before_it(store: Store, raw: redis.Redis) -> None:
    books = Quotas(store)
    for number in range(10):
        books.put_embedding("acme", key(number), value(number, 1000), 100, 0)
    for number in range(10):  # embedded again: entered in the books
        books.touch_embedding("acme", key(number), SIZE, 200, 20 * SIZE)
    assert total_bytes(raw, "acme") == 10 * SIZE
    books.put_embedding("acme", key(10), value(10, 1000), 300, 2 * SIZE)
    assert total_bytes(raw, "acme") == 2 * SIZE
    assert sum(store.get_embedding("acme", key(number)) is not None for number in range(11)) == 2


def test_what_has_expired_or_was_dropped_does_not_count_for_good(store: Store, raw: redis.Redis) -> None:
    books, quota = Quotas(store), 3 * SIZE
    for number in range(3):
        books.put_embedding("acme", key(number), value(number, 1000), 100, quota)
    raw.delete(f"maskwire:embedding:{{acme/{key(0)}}}")  # as a store does that is short of memory
    for number in (1, 2):
        raw.zadd("maskwire:usage:{acme}", {key(number): 1})  # their time has come
    books.put_embedding("acme", key(5), value(5, 1000), 100, quota)
    assert total_bytes(raw, "acme") == 2 * SIZE
    books.put_embedding("acme", key(6), value(6, 1000), 100, quota)
    books.put_embedding("acme", key(7), value(7, 1000), 100, quota)
    assert total_bytes(raw, "acme") == 3 * SIZE
    assert all(store.get_embedding("acme", key(number)) is not None for number in (5, 6, 7))


def test_what_is_being_written_is_not_deleted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "_PATIENCE_S", 0.2)
    slow, books = Quotas(store), Quotas(store)
    slow._reserve("acme", key(0), SIZE, 100, 2 * SIZE, "a")
    slow._reserve("acme", key(1), SIZE, 100, 2 * SIZE, "a")
    with pytest.raises(ResourceExhausted) as caught:
        books.put_embedding("acme", key(2), value(2, 1000), 100, 2 * SIZE)
    assert caught.value.reason == "QUOTA_BUSY"
    assert caught.value.retry_after_s
    store.put_embedding("acme", key(0), value(0, 1000), 100)
    assert slow._confirm("acme", key(0), "a")
    books.put_embedding("acme", key(2), value(2, 1000), 100, 2 * SIZE)
    assert store.get_embedding("acme", key(0)) is None


def test_who_stood_still_while_writing_writes_anew(
    store: Store, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place was given to another: the quota holds all the same."""
    books, put = Quotas(store), store.put_embedding
    stood = []

    def standing_still(namespace: str, content: str, data: bytes, ttl_s: int) -> None:
        if content == key(0) and not stood:
            stood.append(True)
            raw.delete("maskwire:writing:{acme}")  # as after WRITING_S
            Quotas(store).put_embedding("acme", key(1), value(1, 1000), 100, SIZE)
        put(namespace, content, data, ttl_s)

    monkeypatch.setattr(store, "put_embedding", standing_still)
    books.put_embedding("acme", key(0), value(0, 1000), 100, SIZE)
    assert stood
    assert int(raw.eval(STORED, 0)) == total_bytes(raw, "acme") == SIZE
    assert store.get_embedding("acme", key(0)) is not None


def test_an_embedding_that_is_written_while_it_is_deleted_stays_in_the_ledger(store: Store, raw: redis.Redis) -> None:
    """It is entered before the deletion, and written and confirmed before it would be struck out."""
    writer, eraser = Quotas(store), Quotas(store)
    writer._reserve("acme", key(0), SIZE, 100, 2 * SIZE, "a")
    with eraser._striking_out("acme", key(0)):
        store.put_embedding("acme", key(0), value(0, 1000), 100)
        assert writer._confirm("acme", key(0), "a")
    assert int(raw.eval(STORED, 0)) == total_bytes(raw, "acme") == SIZE


def test_who_stood_still_while_it_was_deleted_writes_anew(store: Store, raw: redis.Redis) -> None:
    """A deletion that began when its time to write was over strikes it out."""
    writer, eraser = Quotas(store), Quotas(store)
    writer._reserve("acme", key(0), SIZE, 100, 2 * SIZE, "a")
    raw.delete("maskwire:writing:{acme}")  # as after WRITING_S
    with eraser._striking_out("acme", key(0)):
        store.put_embedding("acme", key(0), value(0, 1000), 100)
        assert not writer._confirm("acme", key(0), "a")
