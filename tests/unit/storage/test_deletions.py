"""What the store remembers of deletions."""

import pytest
import redis
from maskwire_core.storage import deletions
from maskwire_core.storage.deletions import START, deleted_since, erase
from maskwire_core.storage.embedding import pack
from maskwire_core.storage.logits import save_logits
from maskwire_core.storage.store import Store

from tests.unit.storage.test_records import HEADER, KEY, TENSORS


def test_what_is_erased_is_gone_and_told_once(store: Store, raw: redis.Redis) -> None:
    store.put_embedding("default", KEY, pack(HEADER, TENSORS), 100)
    assert save_logits(store, "default", KEY, b"prompts", b"logits", 100) == [b"prompts"]
    before = deleted_since(store, START)
    assert (before.images, before.all_known, before.more) == ([], True, False)
    erase(store, "default", KEY)
    assert raw.keys("*") == [b"maskwire:deletions"]
    seen = deleted_since(store, before.position)
    assert (seen.images, seen.all_known, seen.more) == ([("default", KEY)], True, False)
    assert deleted_since(store, seen.position).images == []
    erase(store, "a.b-c", KEY)  # whether it is stored or not
    assert deleted_since(store, seen.position).images == [("a.b-c", KEY)]
    assert deleted_since(store, START).images == [("default", KEY), ("a.b-c", KEY)]


def test_nothing_is_saved_for_what_is_not_stored(store: Store, raw: redis.Redis) -> None:
    assert save_logits(store, "default", KEY, b"prompts", b"logits", 100) == []
    assert raw.keys("*") == []


def test_many_deletions_come_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletions, "_PAGE", 10)
    for number in range(25):
        erase(store, "default", f"{number:064}")
    position, found, pages, more = START, [], 0, True
    while more:
        images, position, all_known, more = deleted_since(store, position)
        assert all_known
        found += images
        pages += 1
    assert [int(key) for _, key in found] == list(range(25))
    assert pages == 3


def test_a_reader_that_was_away_too_long_is_told_so(
    store: Store, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletions, "_MOST", 5)
    erase(store, "default", KEY)
    position = deleted_since(store, START).position
    for number in range(7):
        erase(store, "default", f"{number:064}")
    raw.xtrim("maskwire:deletions", maxlen=5, approximate=False)
    late = deleted_since(store, position)
    assert not late.all_known
    assert len(late.images) == 5
    assert deleted_since(store, late.position) == ([], late.position, True, False)


def test_a_store_that_was_emptied_is_read_from_its_beginning(store: Store, raw: redis.Redis) -> None:
    erase(store, "default", KEY)
    position = deleted_since(store, START).position
    raw.flushall()
    while _milliseconds(raw) <= int(position.split("-")[0]):
        pass  # the store names an entry by its millisecond, and one of the same would have the same name
    emptied = deleted_since(store, position)
    assert emptied == ([], START, True, False)
    erase(store, "default", "b" * 64)
    for read_from in (position, START):
        assert deleted_since(store, read_from).images == [("default", "b" * 64)]
        assert deleted_since(store, read_from).all_known


def _milliseconds(raw: redis.Redis) -> int:
    seconds, microseconds = raw.time()
    return int(seconds) * 1000 + int(microseconds) // 1000
