"""What a namespace may store of clips and tracks, over the twin here and over real stores in tests/services."""

import pytest
import redis
from maskwire_core.errors import ResourceExhausted
from maskwire_core.storage.clips import ClipStore
from maskwire_core.storage.store import Store
from maskwire_core.storage.tracks import TrackStore

MIB = 1 << 20


def held(raw: redis.Redis, kind: str, namespace: str = "acme") -> list[int]:
    """Bytes of each entry in a ledger."""
    return sorted(int(value.split()[0]) for value in raw.hgetall(f"maskwire:{kind}:{{{namespace}}}").values())


def test_a_namespace_has_so_many_tracks(store: Store, raw: redis.Redis) -> None:
    tracks = TrackStore(store, MIB, 2, 100)
    for name in ("a", "b", "b"):
        tracks.open("acme", name, "me")
    with pytest.raises(ResourceExhausted, match=r"'acme' has 2 tracks .* may have 2 of .*; delete some") as refused:
        tracks.open("acme", "c", "me")
    assert refused.value.reason == "TRACKS_FULL"
    assert not raw.exists("maskwire:track:{acme/c}")
    tracks.open("other", "c", "me")
    tracks.delete("acme", "a")
    tracks.open("acme", "c", "me")
    assert held(raw, "tracks") == [0, 0]


def test_tracks_of_a_namespace_have_so_many_bytes(store: Store, raw: redis.Redis) -> None:
    tracks = TrackStore(store, 1000, 10, 100)
    for name in ("a", "b"):
        tracks.open("acme", name, "me")
        assert tracks.write("acme", name, "me", b"meta", {b"record": b"x"}, [], 400)
    with pytest.raises(ResourceExhausted) as refused:
        tracks.write("acme", "a", "me", b"changed", {b"record": b"y"}, [], 700)
    assert refused.value.reason == "TRACKS_FULL"
    assert raw.hgetall("maskwire:track:{acme/a}")[b"meta"] == b"meta"
    # What does not grow is written, even where an operator has lowered the limit.
    assert TrackStore(store, 1, 1, 100).write("acme", "a", "me", b"less", {}, [b"record"], 100)
    assert held(raw, "tracks") == [104, 404]


def test_a_track_that_somebody_deleted_does_not_count(store: Store, raw: redis.Redis) -> None:
    tracks = TrackStore(store, MIB, 10, 100)
    tracks.open("acme", "a", "me")
    tracks.delete("acme", "a")
    assert not tracks.write("acme", "a", "me", b"meta", {}, [], 100)
    assert held(raw, "tracks") == []
    tracks.open("acme", "a", "me")
    tracks.open("acme", "a", "another")
    assert not tracks.write("acme", "a", "me", b"meta", {}, [], 100)
    assert len(held(raw, "tracks")) == 1


def test_a_namespace_has_so_many_clips(store: Store, raw: redis.Redis) -> None:
    clips = ClipStore(store, MIB, 2, 100)
    first = clips.upload("acme", "a")
    first.add(b"frame")
    first.complete(b"meta", None)
    second = clips.upload("acme", "b")
    with pytest.raises(ResourceExhausted) as refused:
        clips.upload("acme", "c")
    assert refused.value.reason == "CLIPS_FULL"
    second.abandon()
    clips.upload("acme", "c").complete(b"meta", None)
    clips.delete("acme", "a", first.name)
    assert held(raw, "clips") == [0]


def test_the_last_bytes_of_a_namespace_can_be_used(store: Store, raw: redis.Redis) -> None:
    clips = ClipStore(store, 1000, 10, 100)
    upload = clips.upload("acme", "a")
    upload.add(b"x" * 600)
    other = clips.upload("acme", "b")
    other.add(b"y" * 400)
    with pytest.raises(ResourceExhausted):
        other.add(b"z")
    assert raw.hkeys("maskwire:clip:{acme/b}") == [f"{other.name}/0".encode()]
    assert held(raw, "clips") == [400, 600]


def test_entries_expire_with_what_they_are_of_unless_it_is_kept(store: Store, raw: redis.Redis) -> None:
    clips, ledger = ClipStore(store, 1000, 2, 100), "maskwire:clips:{acme}"
    names = []
    for clip in ("a", "b"):
        upload = clips.upload("acme", clip)
        upload.add(b"frame")
        upload.complete(b"meta", None)
        names.append(upload.name)
        raw.hset(ledger, upload.name, "5 1")  # expired in 1970
    clips.keep("acme", "a", names[0], 5)
    clips.upload("acme", "c")
    assert set(raw.hkeys(ledger)) >= {names[0].encode()}
    assert names[1].encode() not in raw.hkeys(ledger)
    with pytest.raises(ResourceExhausted):
        clips.upload("acme", "d")
