"""A cache in memory that is fair between tenants."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=tuple[object, ...])
V = TypeVar("V")

_IDLE_S = 300


@dataclass(eq=False)
class _Kept(Generic[V]):
    """A value that is kept."""

    value: V
    nbytes: int
    used_at: float  # by `time.monotonic`


@dataclass(eq=False)
class _Share(Generic[K, V]):
    """What is kept for one tenant, the least recently used first."""

    entries: "OrderedDict[K, _Kept[V]]" = field(default_factory=OrderedDict)
    nbytes: int = 0


class TenantCache(Generic[K, V]):
    """Keeps values up to a number of bytes. Safe to use from many threads.

    What has not been used for five minutes leaves first. After it, the tenant that has most bytes gives way, with what
    it used least recently: so however much one tenant reads, another keeps what it has up to an equal share.

    Args:
        max_bytes: Memory for the values.
        nbytes_of: Memory of a value under its key. Keys are tuples that begin with the tenant and the content key of
            the image that the value belongs to.
        clock: Seconds, for the time since a use.
    """

    def __init__(
        self, max_bytes: int, nbytes_of: Callable[[K, V], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        """Memory in use."""
        self._nbytes_of = nbytes_of
        self._clock = clock
        self._shares: dict[object, _Share[K, V]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return sum(len(share.entries) for share in self._shares.values())

    def __contains__(self, key: K) -> bool:
        with self._lock:
            share = self._shares.get(key[0])
            return share is not None and key in share.entries

    def get(self, key: K) -> V | None:
        """Returns a value, which counts as used."""
        with self._lock:
            share = self._shares.get(key[0])
            kept = None if share is None else share.entries.get(key)
            if share is None or kept is None:
                return None
            share.entries.move_to_end(key)
            kept.used_at = self._clock()
            return kept.value

    def latest(self) -> V | None:
        """Returns the value that was used last."""
        with self._lock:
            newest = [next(reversed(share.entries.values())) for share in self._shares.values()]
            return max(newest, key=lambda kept: kept.used_at).value if newest else None

    def put(self, key: K, value: V) -> list[K]:
        """Keeps a value in place of what was there, unless it is larger than the cache: then it would push out all
        others and itself. Returns the keys of what has left for it."""
        nbytes = self._nbytes_of(key, value)
        left: list[K] = []
        with self._lock:
            self._remove(key)
            if nbytes > self.max_bytes:
                return left
            share = self._shares.setdefault(key[0], _Share())
            share.entries[key] = _Kept(value, nbytes, self._clock())
            share.nbytes += nbytes
            self.nbytes += nbytes
            while self.nbytes > self.max_bytes:
                share = self._shares[self._tenant_to_give_way()]
                left.append(next(iter(share.entries)))
                self._remove(left[-1])
        return left

    def make_room(self, tenant: object, nbytes: int) -> bool:
        """Makes values leave as `put` would for a tenant's value of this size, before there is one: so there is never
        more than `max_bytes`. Returns whether there is room for it; there is none if it would have to leave itself."""
        with self._lock:
            if nbytes > self.max_bytes:
                return False
            while self.nbytes + nbytes > self.max_bytes:
                share = self._shares.get(self._tenant_to_give_way(tenant, nbytes))
                if share is None:
                    return False
                self._remove(next(iter(share.entries)))
            return True

    def drop_idle(self, seconds: float) -> None:
        """Drops what has not been used for some seconds."""
        with self._lock:
            before = self._clock() - seconds
            for share in list(self._shares.values()):
                for key in [key for key, kept in share.entries.items() if kept.used_at < before]:
                    self._remove(key)

    def drop(self, images: Collection[tuple[str, str]]) -> None:
        """Drops the values of images, each given by tenant and content key. Goes through what their tenants have."""
        with self._lock:
            for tenant in {image[0] for image in images} & self._shares.keys():
                for key in [key for key in self._shares[tenant].entries if key[:2] in images]:
                    self._remove(key)

    def clear(self) -> None:
        """Drops everything."""
        with self._lock:
            self._shares.clear()
            self.nbytes = 0

    def _tenant_to_give_way(self, tenant: object = None, coming: int = 0) -> object:
        """Returns the tenant whose least recently used value leaves next: one whose value is idle, else the one that
        has most bytes. Those that are coming count as bytes of `tenant`, which may have no others."""
        used_at = {name: next(iter(share.entries.values())).used_at for name, share in self._shares.items()}
        idlest = min(used_at, key=used_at.__getitem__)
        if self._clock() - used_at[idlest] >= _IDLE_S:
            return idlest
        sizes = {name: share.nbytes for name, share in self._shares.items()}
        sizes[tenant] = sizes.get(tenant, 0) + coming
        return max(sizes, key=sizes.__getitem__)

    def _remove(self, key: K) -> None:
        share = self._shares.get(key[0])
        kept = None if share is None else share.entries.pop(key, None)
        if share is None or kept is None:
            return
        share.nbytes -= kept.nbytes
        self.nbytes -= kept.nbytes
        if not share.entries:
            del self._shares[key[0]]
