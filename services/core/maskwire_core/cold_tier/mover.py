"""Makes the files of a cold tier follow the store, and keeps them within their bytes and their time."""

import logging
import secrets
import threading
import time
from collections.abc import Callable

from maskwire_core.cold_tier.pending import Entry, Kind
from maskwire_core.cold_tier.tier import ColdTier
from maskwire_core.errors import ServiceError
from maskwire_core.storage import keys
from maskwire_core.storage.store import Store
from maskwire_core.telemetry.metrics import COLD_TIER, STORE_BYTES

log = logging.getLogger(__name__)

_WRITTEN = STORE_BYTES.labels("cold written")
_LEASE_MS = 10_000
_SWEEP_S = 600.0
_TRIES = 3  # how often an entry is tried in one step, if the store changes while its file is written


class Mover:
    """Moves what is pending; one of a store's encoders does so at a time. Methods block for as long as the files do.

    Two movers may overlap when one was suspended. Each looks at the store again after it has written a file, so the
    last one to write finds what is true.

    Args:
        tier: The files, and what is pending.
        store: The store in front of them.
        ttl_s: Seconds after which a file that was not written again is deleted.
        most_bytes: Bytes of all files; the oldest give way. 0: no limit.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        tier: ColdTier,
        store: Store,
        ttl_s: float,
        most_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._files = tier.files
        self._pending = tier.pending
        self._store = store
        self._ttl_s = ttl_s
        self._most_bytes = most_bytes
        self._clock = clock
        self._token = secrets.token_hex(16)
        self._swept_at = clock()
        self._busy = threading.Lock()

    async def step(self) -> None:
        """Moves what is due, unless another encoder does or this one still is at it. Never waits for the files."""
        if self._busy.acquire(blocking=False):
            threading.Thread(target=self._work, name="cold tier's mover", daemon=True).start()

    def _work(self) -> None:
        try:
            if self._leads():
                self.move()
                if self._clock() - self._swept_at >= _SWEEP_S:
                    self._swept_at = self._clock()
                    self.sweep()
        except Exception as error:  # of the store or of the files; the next step may succeed
            COLD_TIER.labels("move failed").inc()
            log.warning("the cold tier does not follow the store: %s", error)
        finally:
            self._busy.release()

    def move(self) -> None:
        """Brings the files of all entries that are due up to date.

        Raises:
            Exception: A file could not be read or written; its entry stays.
        """
        cursor, more = 0, True
        while more:
            entries, cursor = self._pending.due(cursor)
            for entry in entries:
                if not self._leads():
                    return
                self._follow(entry)
            more = cursor != 0

    def sweep(self) -> None:
        """Deletes files that are too old and, beyond the bytes allowed, the oldest embeddings."""
        left = []
        for file in self._files.listed():
            if self._clock() - file.written_at > self._ttl_s:
                self._files.delete(file)
            else:
                left.append(file)
        surplus = sum(file.nbytes for file in left) - self._most_bytes if self._most_bytes else 0
        for file in sorted(left, key=lambda each: each.written_at):
            if surplus <= 0:
                return
            self._files.delete(file)
            surplus -= file.nbytes

    def _follow(self, entry: Entry) -> None:
        follow = self._follow_embedding if entry.kind is Kind.EMBEDDING else self._follow_name
        for _ in range(_TRIES):
            if follow(entry.namespace, entry.name, entry.is_kept) and self._pending.done(entry):
                COLD_TIER.labels("moved").inc()
                return

    def _follow_name(self, namespace: str, image_id: str, is_kept: bool) -> bool:
        """Returns whether the file of an image ID says what the store says."""
        key = self._store.get_alias(namespace, image_id)
        if key is None or not is_kept:
            self._files.delete_name(namespace, image_id)
        else:
            self._files.write_name(namespace, image_id, key)
        return self._store.get_alias(namespace, image_id) == key

    def _follow_embedding(self, namespace: str, key: str, is_kept: bool) -> bool:
        """Returns whether the file of an embedding is there exactly if the store has the embedding."""
        value = self._store.read_embedding(namespace, key) if is_kept else None
        if value is None:
            self._files.delete_embedding(namespace, key)
            return True
        written_at = self._files.embedding_written_at(namespace, key)
        if written_at is None or self._clock() - written_at > self._ttl_s / 2:
            self._files.write_embedding(namespace, key, value)
            _WRITTEN.inc(len(value))
        return self._store.are_stored([(namespace, "", key)])[0]

    def _leads(self) -> bool:
        """Takes or renews the lease on moving. Returns whether this mover has it."""
        try:
            lease = keys.COLD_MOVER, self._token, _LEASE_MS
            return self._store.take_lease(*lease) or self._store.renew_lease(*lease)
        except ServiceError:
            return False
