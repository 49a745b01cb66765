"""Clips in the store: the files of their frames, within a number of bytes for each namespace.

A clip is one hash: `meta` (bytes that describe it, among them the name of its upload), and each frame's file under its
upload's name and index. An upload becomes the clip when it is complete; its files then replace those before. The ledger
of a namespace has each upload's bytes and expiry.
"""

import secrets
import time
from typing import cast

from maskwire_core.errors import ResourceExhausted
from maskwire_core.storage import keys
from maskwire_core.storage.store import Store

_MOST_CLIPS = 10_000
_STEP = 16 << 20  # bytes that are reserved at once while a clip comes

# Arguments: upload, bytes, expiry and now in milliseconds, bytes that the namespace may have, clips that it may have.
# Enters an upload in the ledger, whose fields are uploads and whose values are "BYTES EXPIRY".
_RESERVE = """
local total, clips = tonumber(ARGV[2]), 1
local entries = redis.call('hgetall', KEYS[1])
for index = 1, #entries, 2 do
  if entries[index] ~= ARGV[1] then
    local bytes, expiry = string.match(entries[index + 1], '(%d+) (%d+)')
    if tonumber(expiry) <= tonumber(ARGV[4]) then
      redis.call('hdel', KEYS[1], entries[index])
    else
      total, clips = total + bytes, clips + 1
    end
  end
end
if total > tonumber(ARGV[5]) or clips > tonumber(ARGV[6]) then return 0 end
redis.call('hset', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
return 1
"""
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
        namespace_bytes: Bytes of frames that a namespace may have.
        ttl_s: Seconds until a clip expires.
    """

    def __init__(self, store: Store, namespace_bytes: int, ttl_s: int) -> None:
        self._store = store
        self._namespace_bytes = namespace_bytes
        self._ttl_s = ttl_s

    def upload(self, namespace: str, clip_id: str) -> "Upload":
        """Begins to store a clip."""
        return Upload(self, namespace, clip_id)

    def meta(self, namespace: str, clip_id: str) -> bytes | None:
        """Returns what describes a clip, and keeps the clip from expiring; None if there is none."""
        name = keys.clip(namespace, clip_id)
        with self._store.connections.commands() as client:
            pipeline = client.pipeline()
            pipeline.hget(name, "meta")
            pipeline.pexpire(name, self._ttl_s * 1000)
            return cast("bytes | None", pipeline.execute()[0])

    def frame(self, namespace: str, clip_id: str, upload: str, index: int) -> bytes | None:
        """Returns the file of a frame; None if that upload is not the clip any more."""
        with self._store.connections.commands() as client:
            return cast("bytes | None", client.hget(keys.clip(namespace, clip_id), f"{upload}/{index}"))

    def delete(self, namespace: str, clip_id: str, upload: str) -> None:
        """Deletes a clip, whose upload was this one."""
        with self._store.connections.commands() as client:
            client.delete(keys.clip(namespace, clip_id))
            client.hdel(keys.clips(namespace), upload)

    def _reserve(self, namespace: str, upload: str, nbytes: int) -> None:
        now = int(time.time() * 1000)
        words = (upload, nbytes, now + self._ttl_s * 1000, now, self._namespace_bytes, _MOST_CLIPS)
        with self._store.connections.commands() as client:
            fits = client.eval(_RESERVE, 1, keys.clips(namespace), *map(str, words))
        if not fits:
            raise ResourceExhausted(
                "CLIPS_FULL",
                f"the clips of the namespace {namespace!r} would have more than {self._namespace_bytes} bytes, or "
                f"there would be more than {_MOST_CLIPS}; delete some (DeleteClip)",
            )


class Upload:
    """A clip that comes, frame by frame.

    Args:
        clips: Where it is stored.
        namespace: Its tenant.
        clip_id: Its name.

    Attributes:
        name: The upload's own name.
        nbytes: Bytes of the frames so far.
    """

    def __init__(self, clips: ClipStore, namespace: str, clip_id: str) -> None:
        self._clips, self._namespace, self._clip_id = clips, namespace, clip_id
        self.name = secrets.token_hex(8)
        self.nbytes = 0
        self._reserved = 0
        self._frames = 0

    def add(self, file: bytes) -> None:
        """Stores the next frame's file. Raises `ResourceExhausted` (CLIPS_FULL)."""
        self.nbytes += len(file)
        if self.nbytes > self._reserved:
            self._reserved = -(-self.nbytes // _STEP) * _STEP
            self._clips._reserve(self._namespace, self.name, self._reserved)
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
        self._clips._reserve(self._namespace, self.name, self.nbytes)
        name = keys.clip(self._namespace, self._clip_id)
        with self._clips._store.connections.commands() as client:
            client.eval(_COMPLETE, 1, name, meta, str(self._clips._ttl_s * 1000), self.name)
            if replaced is not None:
                client.hdel(keys.clips(self._namespace), replaced)

    def abandon(self) -> None:
        """Deletes what came."""
        names = [f"{self.name}/{index}" for index in range(self._frames)]
        with self._clips._store.connections.commands() as client:
            if names:
                client.hdel(keys.clip(self._namespace, self._clip_id), *names)
            client.hdel(keys.clips(self._namespace), self.name)
