"""Clips in the store: the files of their frames, within limits for each namespace.

A clip is one hash: `meta` (bytes that describe it, among them the name of its upload), and each frame's file under its
upload's name and index. An upload becomes the clip when it is complete; its files then replace those before. A
namespace's ledger has an entry for each upload.
"""

import secrets
from typing import cast

from maskwire_core.errors import ResourceExhausted
from maskwire_core.storage import keys
from maskwire_core.storage.ledger import Ledger, Limits
from maskwire_core.storage.store import Store

_STEP = 16 << 20  # bytes that are entered at once while a clip comes, where there is room

# Arguments: meta, time to live in milliseconds, the upload. Deletes the files of other uploads.
_COMPLETE = """
redis.call('hset', KEYS[1], 'meta', ARGV[1])
redis.call('pexpire', KEYS[1], ARGV[2])
for _, name in ipairs(redis.call('hkeys', KEYS[1])) do
  if name ~= 'meta' and string.sub(name, 1, #ARGV[3] + 1) ~= ARGV[3] .. '/' then redis.call('hdel', KEYS[1], name) end
end
return 1
"""


class ClipStore:
    """Reads and writes clips. Methods block, raise as `Store`'s do, and are safe to call from many threads.

    Args:
        store: Where the clips are.
        nbytes: Bytes of frames that a namespace may have.
        count: Number of clips that it may have.
        ttl_s: Seconds until a clip expires.
    """

    def __init__(self, store: Store, nbytes: int, count: int, ttl_s: int) -> None:
        self._store = store
        self._ttl_s = ttl_s
        limits = Limits(nbytes, count, "CLIPS_FULL", "clips", "delete some (DeleteClip), or wait until some expire")
        self._ledger = Ledger(store, keys.clips, limits, ttl_s)

    def upload(self, namespace: str, clip_id: str, most_bytes: int | None = None) -> "Upload":
        """Begins to store a clip. Raises `ResourceExhausted` (CLIPS_FULL): there is no room for any.

        Args:
            namespace: Tenant.
            clip_id: Name of the clip.
            most_bytes: Bytes of clips that the namespace may have, if not as many as others.
        """
        upload = Upload(self, namespace, clip_id, most_bytes)
        upload._enter(1)
        return upload

    def meta(self, namespace: str, clip_id: str) -> bytes | None:
        """Returns what describes a clip; None if there is none."""
        with self._store.connections.commands() as client:
            return cast("bytes | None", client.hget(keys.clip(namespace, clip_id), "meta"))

    def keep(self, namespace: str, clip_id: str, upload: str, nbytes: int) -> None:
        """Keeps a clip from expiring, which was uploaded with so many bytes."""
        self._ledger.keep(namespace, upload, nbytes)
        with self._store.connections.commands() as client:
            client.pexpire(keys.clip(namespace, clip_id), self._ttl_s * 1000)

    def frame(self, namespace: str, clip_id: str, upload: str, index: int) -> bytes | None:
        """Returns the file of a frame; None if that upload is not the clip any more."""
        with self._store.connections.commands() as client:
            return cast("bytes | None", client.hget(keys.clip(namespace, clip_id), f"{upload}/{index}"))

    def delete(self, namespace: str, clip_id: str, upload: str) -> None:
        """Deletes a clip, whose upload was this one."""
        with self._store.connections.commands() as client:
            client.delete(keys.clip(namespace, clip_id))
        self._ledger.strike(namespace, upload)


class Upload:
    """A clip that comes, frame by frame.

    Args:
        clips: Where it is stored.
        namespace: Its tenant.
        clip_id: Its name.
        most_bytes: Bytes of clips that the tenant may have; None for as many as others.

    Attributes:
        name: The upload's own name.
        nbytes: Bytes of the frames so far.
    """

    def __init__(self, clips: ClipStore, namespace: str, clip_id: str, most_bytes: int | None) -> None:
        self._clips, self._namespace, self._clip_id, self._most_bytes = clips, namespace, clip_id, most_bytes
        self.name = secrets.token_hex(8)
        self.nbytes = 0
        self._entered = 0  # bytes in the ledger
        self._frames = 0

    def add(self, file: bytes) -> None:
        """Stores the next frame's file. Raises `ResourceExhausted` (CLIPS_FULL)."""
        self.nbytes += len(file)
        if self.nbytes > self._entered:
            try:
                self._enter(-(-self.nbytes // _STEP) * _STEP)
            except ResourceExhausted:
                self._enter(self.nbytes)
        name = keys.clip(self._namespace, self._clip_id)
        with self._clips._store.connections.commands() as client:
            pipeline = client.pipeline()
            pipeline.hset(name, f"{self.name}/{self._frames}", file)
            pipeline.pexpire(name, self._clips._ttl_s * 1000)
            pipeline.execute()
        self._frames += 1

    def complete(self, meta: bytes, replaced: str | None) -> None:
        """Makes the upload the clip.

        Args:
            meta: What describes it.
            replaced: The upload that it was before, if any.
        """
        self._enter(self.nbytes)
        name = keys.clip(self._namespace, self._clip_id)
        with self._clips._store.connections.commands() as client:
            client.eval(_COMPLETE, 1, name, meta, str(self._clips._ttl_s * 1000), self.name)
        if replaced is not None:
            self._clips._ledger.strike(self._namespace, replaced)

    def abandon(self) -> None:
        """Deletes what came."""
        names = [f"{self.name}/{index}" for index in range(self._frames)]
        with self._clips._store.connections.commands() as client:
            if names:
                client.hdel(keys.clip(self._namespace, self._clip_id), *names)
        self._clips._ledger.strike(self._namespace, self.name)

    def _enter(self, nbytes: int) -> None:
        self._clips._ledger.enter(self._namespace, self.name, nbytes, self._most_bytes)
        self._entered = nbytes
