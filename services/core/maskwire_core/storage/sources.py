"""The files of images, kept beside their embeddings so that regions of the images can be embedded later.

A value is the file's SHA-256, 32 bytes, and the file as it was sent. It is written only while the image's embedding is
stored, expires, and is deleted for good with the embedding (`deletions.erase`).
"""

from collections.abc import Iterator

from maskwire_core.storage import keys
from maskwire_core.storage.store import Store

DIGEST_BYTES = 32
"""Size of what precedes the file."""
_PART_BYTES = 1 << 20

# Redis 6 has no PEXPIRE GT.
_EXTEND = """
if redis.call("exists", KEYS[1]) == 0 then return false end
if redis.call("pttl", KEYS[1]) < tonumber(ARGV[1]) then redis.call("pexpire", KEYS[1], ARGV[1]) end
return true
"""


def put_source(store: Store, namespace: str, key: str, value: bytes, ttl_s: int) -> bool:
    """Writes the file of an image.

    Args:
        store: The store.
        namespace: Tenant.
        key: Content key of the image.
        value: The file's digest, and the file.
        ttl_s: Seconds until it expires.

    Returns:
        Whether it is kept; not if the embedding is not stored: what was deleted leaves nothing.
    """
    name = keys.source(namespace, key)
    with store.connections.commands() as client:
        pipeline = client.pipeline()
        pipeline.set(name, value, px=ttl_s * 1000)
        pipeline.exists(keys.embedding(namespace, key))
        _, is_stored = pipeline.execute()
        if not is_stored:
            client.delete(name)
        return bool(is_stored)


def source_bytes(store: Store, namespace: str, key: str) -> int:
    """Size of what is kept of an image, in bytes, with the digest; 0 if nothing is."""
    with store.connections.commands() as client:
        return int(client.strlen(keys.source(namespace, key)))


def touch_source(store: Store, namespace: str, key: str, ttl_s: int) -> bool:
    """Keeps a file for at least so many seconds from now. Returns whether there is one."""
    with store.connections.commands() as client:
        return bool(client.eval(_EXTEND, 1, keys.source(namespace, key), str(ttl_s * 1000)))


def read_source(store: Store, namespace: str, key: str) -> Iterator[bytes]:
    """Yields what is kept of an image in parts. It may end early, if it is deleted meanwhile."""
    start = 0
    while True:
        with store.connections.commands() as client:
            part: bytes = client.getrange(keys.source(namespace, key), start, start + _PART_BYTES - 1)  # type: ignore[assignment]
        if not part:
            return
        yield part
        start += len(part)


def delete_source(store: Store, namespace: str, key: str) -> None:
    """Deletes the file of an image, if one is kept, to make room."""
    with store.connections.commands() as client:
        client.delete(keys.source(namespace, key))
