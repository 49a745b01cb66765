"""Tracks in the store: what trackers know of objects that they follow, written by one stream at a time.

A track is one hash: `owner` (who opened it last), `epoch` (how often it was opened), `meta` (bytes that name its
records), and the records. Only its owner can write to it, so that of two trackers that believe they have it only the
last one changes it. A write replaces records and what names them at once. A namespace's ledger has an entry for each
track.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from maskwire_core.storage import keys
from maskwire_core.storage.ledger import Ledger, Limits
from maskwire_core.storage.store import Store

_META, _EPOCH = b"meta", b"epoch"
_BATCH = 32  # records that are read at once

_OPEN = """
local epoch = redis.call('hincrby', KEYS[1], 'epoch', 1)
redis.call('hset', KEYS[1], 'owner', ARGV[2])
redis.call('pexpire', KEYS[1], ARGV[1])
return {epoch, redis.call('hget', KEYS[1], 'meta')}
"""
# Arguments: owner, time to live in milliseconds, meta, number of records to delete, these, then records and values.
_WRITE = """
if redis.call('hget', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
local last = 4 + ARGV[4]
for index = 5, last do redis.call('hdel', KEYS[1], ARGV[index]) end
for index = last + 1, #ARGV, 2 do redis.call('hset', KEYS[1], ARGV[index], ARGV[index + 1]) end
redis.call('hset', KEYS[1], 'meta', ARGV[3])
redis.call('pexpire', KEYS[1], ARGV[2])
return 1
"""


class TrackStore:
    """Reads and writes tracks. Methods block, raise as `Store`'s do, and are safe to call from many threads.

    Args:
        store: Where the tracks are.
        nbytes: Bytes of tracks that a namespace may have.
        count: Number of tracks that it may have.
        ttl_s: Seconds until a track expires that nobody uses.
    """

    def __init__(self, store: Store, nbytes: int, count: int, ttl_s: int) -> None:
        self._store = store
        self._ttl_s = ttl_s
        limits = Limits(nbytes, count, "TRACKS_FULL", "tracks", "delete some (DeleteTrack), or wait until some expire")
        self._ledger = Ledger(store, keys.tracks, limits, ttl_s)

    def open(self, namespace: str, track_id: str, owner: str) -> tuple[int, bytes | None]:
        """Opens a track for an owner; nobody else can write to it from now on. Returns how often it was opened, and its
        meta if it has one.

        Raises:
            ResourceExhausted: TRACKS_FULL: it is a new one, and the namespace may not have more.
        """
        self._ledger.enter(namespace, track_id)
        with self._store.connections.commands() as client:
            reply = client.eval(_OPEN, 1, keys.track(namespace, track_id), str(self._ttl_s * 1000), owner)
            epoch, meta = cast("tuple[int, bytes | None]", reply)
            return epoch, meta

    def peek(self, namespace: str, track_id: str) -> tuple[int, bytes] | None:
        """Returns a track's epoch and meta without opening it; None if there is none."""
        with self._store.connections.commands() as client:
            values = cast("list[bytes | None]", client.hmget(keys.track(namespace, track_id), [_EPOCH, _META]))
            epoch, meta = values
            return None if epoch is None or meta is None else (int(epoch), meta)

    def read(self, namespace: str, track_id: str, names: Iterable[bytes]) -> dict[bytes, bytes]:
        """Reads records; those that are missing are left out."""
        found: dict[bytes, bytes] = {}
        wanted = list(names)
        for first in range(0, len(wanted), _BATCH):
            some = wanted[first : first + _BATCH]
            with self._store.connections.commands() as client:
                values = cast("list[bytes | None]", client.hmget(keys.track(namespace, track_id), some))
            found |= {name: value for name, value in zip(some, values, strict=True) if value is not None}
        return found

    def write(
        self,
        namespace: str,
        track_id: str,
        owner: str,
        meta: bytes,
        records: Mapping[bytes, bytes],
        gone: Sequence[bytes],
        nbytes: int,
    ) -> bool:
        """Writes and deletes records, and the meta that names them, at once.

        Args:
            namespace: Tenant.
            track_id: Name of the track.
            owner: Who opened it.
            meta: What names its records.
            records: What is new or has changed.
            gone: Names of the records that are deleted.
            nbytes: Size of all of its records, those that have not changed too.

        Returns:
            Whether it did: not if the track was opened by somebody else, deleted, or has expired.

        Raises:
            ResourceExhausted: TRACKS_FULL: the track has grown, and the namespace may not have more.
        """
        self._ledger.enter(namespace, track_id, nbytes + len(meta))
        pairs = [part for pair in records.items() for part in pair]
        name = keys.track(namespace, track_id)
        with self._store.connections.commands() as client:
            words = (owner, str(self._ttl_s * 1000), meta, str(len(gone)), *gone, *pairs)
            written = bool(client.eval(_WRITE, 1, name, *words))  # type: ignore[arg-type]
            is_gone = not written and client.hget(name, "owner") is None
        if is_gone:
            self._ledger.strike(namespace, track_id)
        return written

    def delete(self, namespace: str, track_id: str) -> None:
        """Deletes a track, if it exists."""
        with self._store.connections.commands() as client:
            client.delete(keys.track(namespace, track_id))
        self._ledger.strike(namespace, track_id)
