"""Embeddings, their regions, leases and image IDs in Redis or Valkey."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import redis
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_fixed

from maskwire_core.errors import CorruptValue, InvalidArgument, Unavailable
from maskwire_core.storage import keys
from maskwire_core.storage.connections import Connections, with_password
from maskwire_core.storage.embedding import (
    MAX_BYTES,
    MAX_HEADER_BYTES,
    Embedding,
    Header,
    StoredEmbedding,
    describe,
    read_header,
    unpack_owned,
    verify_owned,
)
from maskwire_core.telemetry import metrics
from maskwire_core.telemetry.tracing import span

log = logging.getLogger(__name__)

_READ, _WRITTEN = (metrics.STORE_BYTES.labels(direction) for direction in ("read", "written"))

_PAUSE_S = 0.2  # before a store that is silent is asked again
_SCAN_COUNT = 1000  # keys examined by one SCAN step: about a millisecond of the store's time

# Redis 6 has no PEXPIRE GT.
_EXTEND = 'return redis.call("pttl", KEYS[1]) < tonumber(ARGV[1]) and redis.call("pexpire", KEYS[1], ARGV[1])'
# Only the owner of a lease may renew or release it.
_RENEW = 'return redis.call("get", KEYS[1]) == ARGV[1] and redis.call("pexpire", KEYS[1], ARGV[2])'
_RELEASE = 'return redis.call("get", KEYS[1]) == ARGV[1] and redis.call("del", KEYS[1])'

# An attempt of the call that deleted an image ID finds that it existed.
_DELETE_ALIAS = """
if redis.call("del", KEYS[1]) == 0 then return redis.call("get", KEYS[2]) == ARGV[1] end
if ARGV[1] ~= "" then redis.call("set", KEYS[2], ARGV[1], "px", ARGV[2]) end
return true
"""
# Enters a region of an image that is stored, so that both are deleted together. The list lives as long as the region.
_ENTER_REGION = """
if redis.call("exists", KEYS[1]) == 0 then return false end
redis.call("sadd", KEYS[2], ARGV[1])
if redis.call("pttl", KEYS[2]) < tonumber(ARGV[2]) then redis.call("pexpire", KEYS[2], ARGV[2]) end
return true
"""
_ATTEMPTS_MS = 120_000  # how long after the first attempt of a call others may follow


Wanted = tuple[str, str, str]
"""An image that somebody looks for: its namespace, its name, and its content key, or "" for that of its name."""


class Store:
    """Typed commands on one store. Methods block and are safe to call from many threads.

    All methods raise `Unavailable` and `ResourceExhausted` as `Connections.commands` does.

    Args:
        url: Address of the store; see `Connections`.
        timeout_s: Longest silence within one command, in seconds.

    Raises:
        InvalidArgument: The URL is invalid.

    Attributes:
        connections: Connections to the store, for the other modules of this package.
        corrupt_values: Number of damaged values that this object has found.
    """

    def __init__(self, url: str, timeout_s: float = 2) -> None:
        self.connections = Connections(url, timeout_s)
        self.corrupt_values = 0

    @property
    def address(self) -> str:
        """The store's address without its password."""
        return self.connections.address

    def close(self) -> None:
        """Closes all connections."""
        self.connections.close()

    def ping(self) -> None:
        """Checks that the store answers."""
        with self.connections.commands() as client:
            client.ping()

    async def ping_patiently(self, patience_s: float) -> None:
        """As `ping`, on another thread: who cancels this waits for one answer at most.

        Args:
            patience_s: How long to ask again while the store takes connections and is silent, as one is that gets no
                processor for a while. One that cannot be reached is an error at once.
        """
        asking = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Unavailable) and self.connections.is_silent),
            wait=wait_fixed(_PAUSE_S),
            stop=stop_after_delay(patience_s),
            reraise=True,
        )
        async for attempt in asking:
            with attempt:
                await asyncio.to_thread(self.ping)

    # Embeddings

    def put_embedding(self, namespace: str, key: str, value: bytes, ttl_s: int) -> None:
        """Writes an embedding, as `embedding.pack` serialized it, in one atomic command."""
        with self.connections.commands() as client:
            client.set(keys.embedding(namespace, key), value, px=ttl_s * 1000)
        _WRITTEN.inc(len(value))

    def get_embedding(self, namespace: str, key: str) -> Embedding | None:
        """Reads and verifies an embedding. A damaged one is deleted and counts as missing, and so is a region whose
        image was deleted."""
        with span("store: read embedding"), self.deleting_corrupt(keys.embedding(namespace, key)):
            value = self._read_embedding(namespace, key)
            embedding = None if value is None else unpack_owned(value, namespace, key)
            return None if embedding is None or self._lost_its_image(embedding.header) else embedding
        return None

    def get_embedding_value(self, namespace: str, key: str) -> memoryview | None:
        """As `get_embedding`, but returns the bytes as they are stored, verified."""
        with span("store: read embedding"), self.deleting_corrupt(keys.embedding(namespace, key)):
            value = self._read_embedding(namespace, key)
            if value is None:
                return None
            verify_owned(value, namespace, key)
            return None if self._lost_its_image(read_header(value)[0]) else value
        return None

    def read_embedding(self, namespace: str, key: str) -> memoryview | None:
        """Reads the bytes of an embedding, unverified; None if it is missing."""
        with self.connections.commands():
            return self._read_embedding(namespace, key)

    def _read_embedding(self, namespace: str, key: str) -> memoryview | None:
        value = self.connections.get(keys.embedding(namespace, key), MAX_BYTES)
        if value is None:
            return None
        _READ.inc(value.nbytes)
        return value.data

    def find_embedding(self, namespace: str, key: str) -> StoredEmbedding | None:
        """Describes an embedding without reading its tensors.

        Returns:
            Its description; None if it is missing. A value with a damaged header or a wrong size is deleted and counts
            as missing, and so is a region whose image was deleted.
        """
        with span("store: look up embedding"), self.deleting_corrupt(keys.embedding(namespace, key)):
            (found,) = self._look_up(namespace, [key])
            stored = describe(namespace, key, *found)
            return None if stored is None or self._lost_its_image(stored.header) else stored
        return None

    def touch_embedding(self, namespace: str, key: str, ttl_s: int) -> None:
        """Keeps an embedding for at least `ttl_s` seconds from now."""
        with self.connections.commands() as client:
            client.eval(_EXTEND, 1, keys.embedding(namespace, key), str(ttl_s * 1000))

    def delete_embedding(self, namespace: str, key: str) -> None:
        """Deletes an embedding, if it exists, to make room. Decoders that have it in memory go on answering from it;
        `deletions.erase` is for what nobody may see any more."""
        with self.connections.commands() as client:
            client.delete(keys.embedding(namespace, key))

    # Regions of images

    def enter_region(self, namespace: str, image: str, key: str, ttl_s: int) -> bool:
        """Enters a region in the list of its image's. What is not in it is not found: an image's regions go with it.
        Returns whether the image's embedding, under the content key `image`, is stored; else nothing is entered."""
        names = keys.embedding(namespace, image), keys.regions(namespace, image)
        with self.connections.commands() as client:
            return bool(client.eval(_ENTER_REGION, 2, *names, key, str(ttl_s * 1000)))

    def find_regions(self, namespace: str, image: str) -> list[str]:
        """Returns the content keys of an image's regions."""
        with self.connections.commands() as client:
            found = cast("set[bytes]", client.smembers(keys.regions(namespace, image)))
            return [key.decode("ascii", "replace") for key in found]

    def _lost_its_image(self, header: Header) -> bool:
        """Whether an embedding is of a region whose image was deleted; it is deleted then, too."""
        if header.region is None:
            return False
        with self.connections.commands() as client:
            if client.sismember(keys.regions(header.namespace, header.region.image), header.content_key):
                return False
            client.delete(keys.embedding(header.namespace, header.content_key))
            return True

    # Leases, by their keys: `keys.lease`, `keys.COLD_MOVER`. They only save work: a store that is short of memory may
    # evict one, and then two servers do the same.

    def take_lease(self, lease: str, token: str, ttl_ms: int) -> bool:
        """Takes a lease unless somebody else has it. Returns whether `token` owns it now."""
        with self.connections.commands() as client:
            return bool(client.set(lease, token, nx=True, px=ttl_ms))

    def renew_lease(self, lease: str, token: str, ttl_ms: int) -> bool:
        """Extends a lease. Returns whether `token` still owned it."""
        with self.connections.commands() as client:
            return bool(client.eval(_RENEW, 1, lease, token, str(ttl_ms)))

    def release_lease(self, lease: str, token: str) -> None:
        """Releases a lease if `token` owns it."""
        with self.connections.commands() as client:
            client.eval(_RELEASE, 1, lease, token)

    # Image IDs

    def set_alias(self, namespace: str, image_id: str, key: str, ttl_s: int) -> None:
        """Makes an image ID stand for an embedding, whatever it stood for before."""
        with self.connections.commands() as client:
            client.set(keys.alias(namespace, image_id), key, px=ttl_s * 1000)

    def get_alias(self, namespace: str, image_id: str) -> str | None:
        """Returns the content key that an image ID stands for; None if the ID is unknown."""
        name = keys.alias(namespace, image_id)
        with span("store: look up name"), self.deleting_corrupt(name) as client:
            value = cast(bytes | None, client.get(name))
            return value.decode("ascii", "replace") if value is not None else None
        return None

    def get_aliases(self, names: Sequence[tuple[str, str]]) -> list[str | None]:
        """As `get_alias`, for many namespaces and image IDs in one round trip. Damaged values stay where they are."""
        with self.connections.commands():
            found = self.connections.for_each([keys.alias(*name) for name in names], ("GET",))
            return [None if value is None else value.decode("ascii", "replace") for (value,) in found]

    def delete_alias(self, namespace: str, image_id: str, call_id: str = "") -> bool:
        """Deletes an image ID. Returns whether it existed, before this or an earlier attempt of the same call."""
        names = keys.alias(namespace, image_id), keys.deleted(namespace, image_id)
        with self.connections.commands() as client:
            return bool(client.eval(_DELETE_ALIAS, 2, *names, call_id, str(_ATTEMPTS_MS)))

    def scan_aliases(self, namespace: str, prefix: str, node: str, cursor: int) -> tuple[list[str], int]:
        """Scans a part of a node's keys for image IDs.

        Args:
            namespace: Tenant.
            prefix: What the image IDs begin with, taken literally.
            node: One of `Connections.primaries`.
            cursor: Cursor that the step before returned; 0 to begin.

        Returns:
            Image IDs, possibly with duplicates, and the next cursor; 0 at the end.
        """
        pattern = keys.aliases_beginning_with(namespace, prefix)
        with self.connections.commands():
            following, names = self.connections.scan(node, cursor, pattern, _SCAN_COUNT)
        return [keys.parse(name)[1] for name in names], following

    def find_aliases(self, namespace: str, image_ids: Sequence[str]) -> dict[str, StoredEmbedding]:
        """Looks up many image IDs in two round trips.

        Returns:
            By ID the embedding, with the milliseconds until the ID or the embedding expires, whichever is first. IDs
            that are missing, and those of missing or damaged embeddings, are left out.
        """
        with span("store: look up names"), self.connections.commands():
            names = [keys.alias(namespace, image_id) for image_id in image_ids]
            aliases = self.connections.for_each(names, ("GET",), ("PTTL",))
            content_keys = [(key or b"").decode("ascii", "replace") for key, _ in aliases]
            embeddings = self._look_up(namespace, content_keys)
        found = {}
        for image_id, key, (_, ttl_ms), replies in zip(image_ids, content_keys, aliases, embeddings, strict=True):
            with contextlib.suppress(CorruptValue):  # deleted when the embedding is read
                if (stored := describe(namespace, key, *replies)) is not None:
                    found[image_id] = stored._replace(ttl_ms=min(ttl_ms, stored.ttl_ms))
        return found

    def are_stored(self, images: Sequence[Wanted]) -> list[bool]:
        """Tells of each image whether its embedding is stored, in two round trips for all of them."""
        with self.connections.commands():
            names = [keys.alias(namespace, image_id) for namespace, image_id, key in images if not key]
            found = iter(self.connections.for_each(names, ("GET",)))
            named = [key or (next(found)[0] or b"").decode("ascii", "replace") for _, _, key in images]
            owned = [keys.embedding(image[0], key) for image, key in zip(images, named, strict=True) if key]
            exist = iter(self.connections.for_each(owned, ("EXISTS",)))
            return [bool(key and next(exist)[0]) for key in named]

    def _look_up(self, namespace: str, content_keys: Sequence[str]) -> list[tuple[Any, ...]]:
        """For each embedding the beginning of its value, its size in bytes and its time to live in milliseconds."""
        names = [keys.embedding(namespace, key) for key in content_keys]
        return self.connections.for_each(names, ("GETRANGE", 0, MAX_HEADER_BYTES - 1), ("STRLEN",), ("PTTL",))

    @contextlib.contextmanager
    def deleting_corrupt(self, name: str) -> Iterator[redis.Redis]:
        """As `Connections.commands`, but ends quietly, and deletes the value of key `name`, if the body finds it
        damaged or of the wrong Redis type."""
        with self.connections.commands() as client:
            try:
                yield client
            except (CorruptValue, redis.ResponseError) as error:
                if isinstance(error, redis.ResponseError) and "WRONGTYPE" not in str(error):
                    raise
                self.corrupt_values += 1
                metrics.STORE_DAMAGED.inc()
                log.warning("deleting the damaged value %s: %s", name, error)
                with contextlib.suppress(redis.exceptions.NoPermissionError, redis.ReadOnlyError):
                    client.delete(name)


def open_store(url: str, timeout_s: float, password_file: Path | None = None) -> Store:
    """Opens a store as `Store` does, with the password that a file has, if any. Exits if URL or file is invalid."""
    try:
        return Store(url if password_file is None else with_password(url, password_file), timeout_s)
    except OSError as error:
        sys.exit(f"error: {password_file}: {error.strerror}; set --redis-password-file to the store's password")
    except InvalidArgument as error:
        sys.exit(f"error: {error}; set --redis-url or MASKWIRE_REDIS_URL, such as redis://localhost:6379/0")
