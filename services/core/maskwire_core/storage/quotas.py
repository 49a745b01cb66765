"""How much of the store each namespace uses, and keeping it within a quota.

    maskwire:usage:{NAMESPACE}     content keys by when their embeddings expire
    maskwire:sizes:{NAMESPACE}     their sizes in bytes, and of all together ("total")
    maskwire:writing:{NAMESPACE}   content keys that are about to be written, each with its writer, by until when they
                                   count as such

The books never show less than what is stored: an embedding is entered before it is written, and struck out after it
was deleted. They may show more, where the store dropped an embedding by itself; that is put right when its time comes,
since what would expire first makes room first. The keys themselves do not expire: a store must not drop them for want
of memory (volatile-lru, as deploy/docker/valkey.conf has it, does not).

An embedding and the books of its namespace may lie on different nodes of a cluster, so no script touches both.
"""

import secrets
import time
from typing import cast

import redis

from maskwire_core.errors import ResourceExhausted
from maskwire_core.storage.store import Store

WRITING_S = 30
"""An embedding that was entered is written within this time; until then nobody deletes it to make room."""
_PATIENCE_S = 5
_PAUSE_S = 0.05
_TOTAL = "total"

# What reserve and settle begin with: the store's time, what is being written, and how a key is struck out.
_PRELUDE = """
local usage, sizes, writing = KEYS[1], KEYS[2], KEYS[3]
local clock = redis.call('time')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('zremrangebyscore', writing, '-inf', now)
local busy = {}
for _, member in ipairs(redis.call('zrange', writing, 0, -1)) do busy[string.sub(member, 1, 64)] = true end
local function strike(key)
  redis.call('zrem', usage, key)
  local size = tonumber(redis.call('hget', sizes, key) or '0')
  redis.call('hdel', sizes, key)
  return redis.call('hincrby', sizes, 'total', 0 - size)  -- -size may be "-0"
end
"""

# key, size, quota, ttl_ms, writing_ms, writer or "" -> {1}, when there is room and the key was entered; else
# {0, key, score, ...} of what should be deleted and settled first, the soonest to expire first; none where all is being
# written.
_RESERVE = (
    _PRELUDE
    + """
local key, size, quota = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
for _, gone in ipairs(redis.call('zrangebyscore', usage, '-inf', now, 'LIMIT', 0, 1000)) do strike(gone) end
local total = tonumber(redis.call('hget', sizes, 'total') or '0')
local needed = total - tonumber(redis.call('hget', sizes, key) or '0') + size - quota
if needed <= 0 then
  strike(key)
  redis.call('zadd', usage, now + ARGV[4] + 2 * ARGV[5], key)
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

# key, score, ... -> strikes out those that nobody has entered anew meanwhile.
_SETTLE = (
    _PRELUDE
    + """
for index = 1, #ARGV, 2 do
  if redis.call('zscore', usage, ARGV[index]) == ARGV[index + 1] and not busy[ARGV[index]] then
    strike(ARGV[index])
  end
end
"""
)


class Usage:
    """The books of a store. Methods block, raise as `Store`'s do, and are safe to call from many threads.

    Args:
        store: What is accounted for.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def put_embedding(self, namespace: str, key: str, value: bytes, ttl_s: int, quota_bytes: int) -> None:
        """As `Store.put_embedding`, within a quota: embeddings that would expire first make room.

        Args:
            namespace: Tenant.
            key: Content key.
            value: As `embedding.pack` made it.
            ttl_s: Seconds until it expires.
            quota_bytes: What the namespace may keep; 0: any amount, and no books are kept.

        Raises:
            ResourceExhausted: QUOTA_TOO_SMALL: it is larger than the quota by itself. QUOTA_BUSY: all of the quota is
                being written by others.
        """
        if not quota_bytes:
            self._store.put_embedding(namespace, key, value, ttl_s)
            return
        while True:
            writer = secrets.token_hex(8)
            self._reserve(namespace, key, len(value), ttl_s, quota_bytes, writer)
            self._store.put_embedding(namespace, key, value, ttl_s)
            if self._confirm(namespace, key, writer):
                return
            # This process stood still for so long that somebody else made room of it.
            self._store.delete_embedding(namespace, key)

    def touch_embedding(self, namespace: str, key: str, size: int, ttl_s: int, quota_bytes: int) -> None:
        """As `Store.touch_embedding`; arguments as of `put_embedding`, with the size of what is stored."""
        if quota_bytes:
            self._reserve(namespace, key, size, ttl_s, quota_bytes)
        self._store.touch_embedding(namespace, key, ttl_s)

    def delete_embedding(self, namespace: str, key: str) -> None:
        """As `Store.delete_embedding`."""
        score = self._store.run(lambda client: client.zscore(_keys(namespace)[0], key))
        self._store.delete_embedding(namespace, key)
        if score is not None:
            self._settle(namespace, [key, str(int(score))])

    def total_bytes(self, namespace: str) -> int:
        """What the books show, at least as much as is stored since they are kept."""
        found = self._store.run(lambda client: client.hget(_keys(namespace)[1], _TOTAL))
        return int(cast(bytes | None, found) or 0)

    def _reserve(self, namespace: str, key: str, size: int, ttl_s: int, quota_bytes: int, writer: str = "") -> None:
        give_up = time.monotonic() + _PATIENCE_S
        if size > quota_bytes:
            raise ResourceExhausted(
                "QUOTA_TOO_SMALL",
                f"the embedding has {size} bytes, and the namespace {namespace!r} may keep {quota_bytes}; ask for a "
                "larger quota, or a smaller --store-codec",
            )
        arguments = (key, size, quota_bytes, ttl_s * 1000, WRITING_S * 1000, writer)
        while True:
            admitted, *victims = cast(
                "list[int | bytes]",
                self._store.run(lambda client: client.eval(_RESERVE, 3, *_keys(namespace), *map(str, arguments))),
            )
            if admitted:
                return
            pairs = [each.decode() if isinstance(each, bytes) else str(each) for each in victims]
            for victim in pairs[::2]:
                self._store.delete_embedding(namespace, victim)
            if pairs:
                self._settle(namespace, pairs)
            elif time.monotonic() > give_up:
                raise ResourceExhausted(
                    "QUOTA_BUSY",
                    f"all that the namespace {namespace!r} may keep is being written; try again",
                    retry_after_s=1,
                )
            else:
                time.sleep(_PAUSE_S)

    def _confirm(self, namespace: str, key: str, writer: str) -> bool:
        """After writing. Returns whether the embedding is still in the books."""
        usage, _, writing = _keys(namespace)

        def ask(client: redis.Redis) -> bool:
            pipeline = client.pipeline()
            pipeline.zscore(usage, key)
            pipeline.zrem(writing, f"{key} {writer}")
            return pipeline.execute()[0] is not None

        return self._store.run(ask)

    def _settle(self, namespace: str, pairs: list[str]) -> None:
        self._store.run(lambda client: client.eval(_SETTLE, 3, *_keys(namespace), *pairs))


def _keys(namespace: str) -> tuple[str, str, str]:
    return (
        f"maskwire:usage:{{{namespace}}}",
        f"maskwire:sizes:{{{namespace}}}",
        f"maskwire:writing:{{{namespace}}}",
    )
