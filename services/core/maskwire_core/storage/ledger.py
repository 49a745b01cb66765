"""Ledgers of clips and tracks: how many of them a namespace stores, and of how many bytes, within limits.

An entry is made before anything of it is stored, and expires with it. The ledger never shows less than what is stored;
it may show more if the store evicted something, until that would have expired. Embeddings, of which those that expire
first make room for others, have ledgers of another kind (`quotas`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from maskwire_core.errors import ResourceExhausted
from maskwire_core.storage.store import Store

# Arguments: entry, bytes ("": as many as it has), milliseconds to live, most bytes and most entries ("": no limits).
# The fields of a ledger are entries, and their values "BYTES EXPIRY". Beyond the limits, an entry may still shrink or
# keep its size. Returns {1}, or {0, bytes of all others, number of others}.
_ENTER = """
local clock = redis.call('time')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local total, count, own = 0, 0, -1
local found = redis.call('hgetall', KEYS[1])
for index = 1, #found, 2 do
  local bytes, expiry = string.match(found[index + 1], '(%d+) (%d+)')
  if tonumber(expiry) <= now then
    redis.call('hdel', KEYS[1], found[index])
  elseif found[index] == ARGV[1] then
    own = tonumber(bytes)
  else
    total, count = total + bytes, count + 1
  end
end
local bytes = tonumber(ARGV[2]) or math.max(own, 0)
local grows = bytes > own and ARGV[4] ~= ''
if grows and (total + bytes > tonumber(ARGV[4]) or count + 1 > tonumber(ARGV[5])) then return {0, total, count} end
redis.call('hset', KEYS[1], ARGV[1], string.format('%.0f %.0f', bytes, now + ARGV[3]))
return {1}
"""


@dataclass(frozen=True)
class Limits:
    """What a namespace may store."""

    nbytes: int  # in all, in bytes
    count: int  # number of clips or tracks
    reason: str  # of the error beyond
    things: str  # what is counted, in words
    remedy: str  # what callers can do


class Ledger:
    """The ledgers of all namespaces for one kind of things. Methods block, raise as `Store`'s do, and are safe to call
    from many threads.

    Args:
        store: Where they are.
        key: The key of a namespace's ledger.
        limits: What each namespace may store.
        ttl_s: Seconds until an entry expires that is not entered again.
    """

    def __init__(self, store: Store, key: Callable[[str], str], limits: Limits, ttl_s: int) -> None:
        self._store = store
        self._key = key
        self._limits = limits
        self._ttl_s = ttl_s

    def enter(self, namespace: str, name: str, nbytes: int | None = None, most_bytes: int | None = None) -> None:
        """Makes an entry, or changes its size. One that does not grow is never refused.

        Args:
            namespace: Tenant.
            name: Name of the entry.
            nbytes: Its size; None: the one that it has, or 0 for a new one.
            most_bytes: What the namespace may store in all, if it is not what others may.

        Raises:
            ResourceExhausted: The limits' reason: the namespace would have more than it may.
        """
        limits = self._limits
        most = limits.nbytes if most_bytes is None else most_bytes
        fits, *others = self._enter(namespace, name, nbytes, str(most), str(limits.count))
        if not fits:
            held, count = others
            raise ResourceExhausted(
                limits.reason,
                f"the namespace {namespace!r} has {count} {limits.things} of {held} bytes beside this one, and may "
                f"have {limits.count} of {most} bytes; {limits.remedy}",
            )

    def keep(self, namespace: str, name: str, nbytes: int) -> None:
        """Keeps an entry from expiring, whatever the limits are."""
        self._enter(namespace, name, nbytes, "", "")

    def strike(self, namespace: str, name: str) -> None:
        """Deletes an entry, if there is one."""
        with self._store.connections.commands() as client:
            client.hdel(self._key(namespace), name)

    def _enter(self, namespace: str, name: str, nbytes: int | None, *limits: str) -> list[int]:
        words = (name, "" if nbytes is None else str(nbytes), str(self._ttl_s * 1000), *limits)
        with self._store.connections.commands() as client:
            return cast("list[int]", client.eval(_ENTER, 1, self._key(namespace), *words))


def totals(entries: dict[bytes, bytes], now_s: float) -> tuple[int, int]:
    """Returns how many things a ledger shows, and their bytes.

    Args:
        entries: The ledger.
        now_s: The time, in seconds since 1970; entries that have expired are not counted.
    """
    held = [
        int(nbytes) for nbytes, expiry in (value.split() for value in entries.values()) if int(expiry) > now_s * 1e3
    ]
    return len(held), sum(held)
