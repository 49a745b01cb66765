"""Quotas: how many bytes of embeddings, and of the files of images, each namespace may store.

A ledger (see `keys.quota_ledger`) never shows less than what is stored: a value is entered before it is written,
and struck out after it is deleted. It may show more if the store evicted an embedding; that is corrected at the
embedding's expiry at the latest, since what expires first makes room first. The ledgers' keys do not expire: the store
must not evict them when memory is short (the policy volatile-lru, as in deploy/docker/valkey.conf, does not).

An embedding and its namespace's ledger may lie on different nodes of a cluster, so no script touches both.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

from maskwire_core.errors import ResourceExhausted
from maskwire_core.storage import keys
from maskwire_core.storage.deletions import erase
from maskwire_core.storage.sources import delete_source, put_source, source_bytes, touch_source
from maskwire_core.storage.store import Store

T = TypeVar("T")

WRITING_S = 30
"""Seconds in which a value must be written after it was entered; meanwhile nobody deletes it to make room."""
_PATIENCE_S = 5
_PAUSE_S = 0.05

# Prelude of all scripts: the store's time in milliseconds, the entries that are being written, and a function that
# strikes an entry out.
_PRELUDE = """
local usage, sizes, writing = KEYS[1], KEYS[2], KEYS[3]
local clock = redis.call('time')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('zremrangebyscore', writing, '-inf', now)
local busy = {}
for _, member in ipairs(redis.call('zrange', writing, 0, -1)) do busy[string.match(member, '^%S+')] = true end
local function strike(key)
  redis.call('zrem', usage, key)
  local size = tonumber(redis.call('hget', sizes, key) or '0')
  redis.call('hdel', sizes, key)
  return redis.call('hincrby', sizes, 'total', 0 - size)  -- -size may be "-0"
end
"""

# Arguments: entry, size, quota, ttl_ms, writing_ms, writer or "" to keep a value longer. Returns {1} if there was room
# and the entry was made. Otherwise {0, entry, score, ...}: what to delete and strike out first, soonest to expire
# first; no entries if all are being written.
_RESERVE = (
    _PRELUDE
    + """
local key, size, quota = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
for _, gone in ipairs(redis.call('zrangebyscore', usage, '-inf', now, 'LIMIT', 0, 1000)) do strike(gone) end
local total = tonumber(redis.call('hget', sizes, 'total') or '0')
local expires = now + ARGV[4] + 2 * ARGV[5]
if ARGV[6] == '' then expires = math.max(expires, tonumber(redis.call('zscore', usage, key) or '0')) end
local needed = total - tonumber(redis.call('hget', sizes, key) or '0') + size - quota
if needed <= 0 then
  strike(key)
  redis.call('zadd', usage, expires, key)
  redis.call('hset', sizes, key, size)
  redis.call('hincrby', sizes, 'total', size)
  if ARGV[6] ~= '' then redis.call('zadd', writing, now + ARGV[5], key .. ' ' .. ARGV[6]) end
  return {1}
end
local answer, first = {0}, 0
while needed > 0 do
  local page = redis.call('zrange', usage, first, first + 99, 'WITHSCORES')
  if #page == 0 then break end
  for index = 1, #page, 2 do
    if needed > 0 and page[index] ~= key and not busy[page[index]] then
      answer[#answer + 1] = page[index]
      answer[#answer + 1] = page[index + 1]
      needed = needed - tonumber(redis.call('hget', sizes, page[index]) or '0')
    end
  end
  first = first + 100
end
return answer
"""
)

# Argument: entry. Returns its score; nothing if it is not entered, or is being written: the writer may be done
# before the deletion that asks, and what it wrote must stay in the ledger.
_SCORE = _PRELUDE + "return not busy[ARGV[1]] and redis.call('zscore', usage, ARGV[1])"

# Arguments: entry, score, ... Strikes out those that nobody has entered again meanwhile.
_STRIKE_OUT = (
    _PRELUDE
    + """
for index = 1, #ARGV, 2 do
  if redis.call('zscore', usage, ARGV[index]) == ARGV[index + 1] and not busy[ARGV[index]] then
    strike(ARGV[index])
  end
end
"""
)


class Quotas:
    """Writes and deletes embeddings and files within quotas. Methods block, raise as `Store`'s do, and are safe to call
    from many threads.

    Args:
        store: Where embeddings and ledgers are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def put_embedding(self, namespace: str, key: str, value: bytes, ttl_s: int, quota_bytes: int) -> None:
        """As `Store.put_embedding`, within a quota: what expires first makes room.

        Args:
            namespace: Tenant.
            key: Content key.
            value: The embedding, as `embedding.pack` serialized it.
            ttl_s: Seconds until it expires.
            quota_bytes: Bytes that the namespace may store; 0 for no quota, and then no ledger is kept.

        Raises:
            ResourceExhausted: QUOTA_TOO_SMALL if the embedding alone exceeds the quota; QUOTA_BUSY if other writes in
                progress take all of it.
        """
        self._write(
            namespace,
            key,
            len(value),
            ttl_s,
            quota_bytes,
            lambda: self._store.put_embedding(namespace, key, value, ttl_s),
        )

    def put_source(
        self, namespace: str, key: str, value: bytes, ttl_s: int, quota_bytes: int, embedding_bytes: int
    ) -> bool:
        """As `sources.put_source`, within a quota that has room for the embedding, of `embedding_bytes`, too; see
        `put_embedding`."""
        entry, size = keys.source_entry(key), len(value)
        if 0 < quota_bytes < size + embedding_bytes:  # one would make room for the other
            raise _too_small(namespace, entry, size + embedding_bytes, quota_bytes)
        is_kept = self._write(
            namespace, entry, size, ttl_s, quota_bytes, lambda: put_source(self._store, namespace, key, value, ttl_s)
        )
        if not is_kept:
            self.erase_source(namespace, key)
        return is_kept

    def erase_source(self, namespace: str, key: str) -> None:
        """Deletes the file of an image alone."""
        with self._striking_out(namespace, keys.source_entry(key)):
            delete_source(self._store, namespace, key)

    def touch_source(self, namespace: str, key: str, ttl_s: int, quota_bytes: int) -> bool:
        """As `sources.touch_source`, within a quota."""
        size = source_bytes(self._store, namespace, key) if quota_bytes else 0
        if size:
            self._reserve(namespace, keys.source_entry(key), size, ttl_s, quota_bytes)
        return touch_source(self._store, namespace, key, ttl_s)

    def touch_embedding(self, namespace: str, key: str, size: int, ttl_s: int, quota_bytes: int) -> None:
        """As `Store.touch_embedding`, for an embedding of `size` bytes; see `put_embedding`."""
        if quota_bytes:
            self._reserve(namespace, key, size, ttl_s, quota_bytes)
        self._store.touch_embedding(namespace, key, ttl_s)

    def erase_embedding(self, namespace: str, key: str) -> None:
        """Deletes an embedding, the image's file, its regions, and what was made of them, for good; see
        `deletions.erase`."""
        regions = self._store.find_regions(namespace, key)
        with self._striking_out(namespace, key), self._striking_out(namespace, keys.source_entry(key)):
            erase(self._store, namespace, key)
        for region in regions:
            self.erase_embedding(namespace, region)

    def _write(self, namespace: str, entry: str, size: int, ttl_s: int, quota_bytes: int, write: Callable[[], T]) -> T:
        """Writes a value for which there is room in the ledger, and returns what `write` does."""
        if not quota_bytes:
            return write()
        while True:
            writer = secrets.token_hex(8)
            self._reserve(namespace, entry, size, ttl_s, quota_bytes, writer)
            written = write()
            if self._confirm(namespace, entry, writer):
                return written
            # This process was suspended for longer than WRITING_S, and somebody else was given its room.
            self._delete(namespace, entry)

    def _delete(self, namespace: str, entry: str) -> None:
        """Deletes what an entry of the ledger stands for."""
        image = keys.source_of_entry(entry)
        if image:
            delete_source(self._store, namespace, image)
        else:
            self._store.delete_embedding(namespace, entry)

    @contextlib.contextmanager
    def _striking_out(self, namespace: str, entry: str) -> Iterator[None]:
        """Strikes an entry out after the body has deleted what it stands for, unless that is written, or entered again,
        meanwhile."""
        score = cast("bytes | None", self._run(_SCORE, namespace, entry))
        yield
        if score is not None:
            self._run(_STRIKE_OUT, namespace, entry, score.decode())

    def _reserve(self, namespace: str, entry: str, size: int, ttl_s: int, quota_bytes: int, writer: str = "") -> None:
        give_up = time.monotonic() + _PATIENCE_S
        if size > quota_bytes:
            raise _too_small(namespace, entry, size, quota_bytes)
        while True:
            reply = self._run(_RESERVE, namespace, entry, size, quota_bytes, ttl_s * 1000, WRITING_S * 1000, writer)
            reserved, *victims = cast("list[int | bytes]", reply)
            if reserved:
                return
            pairs = [each.decode() if isinstance(each, bytes) else str(each) for each in victims]
            for victim in pairs[::2]:
                self._delete(namespace, victim)
            if pairs:
                self._run(_STRIKE_OUT, namespace, *pairs)
            elif time.monotonic() > give_up:
                raise ResourceExhausted(
                    "QUOTA_BUSY",
                    f"other writes take all of the quota of the namespace {namespace!r}; try again",
                    retry_after_s=1,
                )
            else:
                time.sleep(_PAUSE_S)

    def _confirm(self, namespace: str, entry: str, writer: str) -> bool:
        """Ends the write that `_reserve` began. Returns whether the entry is in the ledger, protected all the while:
        a deletion that began after `WRITING_S` would strike it out."""
        usage, _, writing = keys.quota_ledger(namespace)
        with self._store.connections.commands() as client:
            pipeline = client.pipeline()
            pipeline.zscore(usage, entry)
            pipeline.zrem(writing, f"{entry} {writer}")
            score, was_writing = pipeline.execute()
            return score is not None and bool(was_writing)

    def _run(self, script: str, namespace: str, *arguments: str | int) -> object:
        with self._store.connections.commands() as client:
            return client.eval(script, 3, *keys.quota_ledger(namespace), *map(str, arguments))


def _too_small(namespace: str, entry: str, size: int, quota_bytes: int) -> ResourceExhausted:
    is_file = bool(keys.source_of_entry(entry))
    return ResourceExhausted(
        "QUOTA_TOO_SMALL",
        f"{'file and embedding have' if is_file else 'the embedding has'} {size} bytes, and the namespace "
        f"{namespace!r} may store {quota_bytes}; ask for a larger quota, or "
        f"{'leave keep_source out' if is_file else 'a smaller --store-codec'}",
    )
