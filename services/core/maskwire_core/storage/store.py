"""Embeddings, image names and exported decoders in Redis or Valkey.

Keys, with {...} a cluster hash tag so that what belongs to one image lies on one node:

    maskwire:embedding:{NAMESPACE/CONTENT_KEY}   bytes of `embedding.pack`, expires
    maskwire:claim:{NAMESPACE/CONTENT_KEY}       token of the encoder that is making the embedding, expires
    maskwire:alias:{NAMESPACE/IMAGE_ID}          the content key, expires
    maskwire:prompts:{NAMESPACE/CONTENT_KEY}     prompts whose logits are saved, by time of use, expires
    maskwire:logits:{NAMESPACE/CONTENT_KEY}      their logits by prompts, expires
    maskwire:decoder:DIGEST                      bytes of `DecoderBundle.packed`

usage.py has those of quotas.

No command or script touches keys of two images, so that all of this works on a cluster.
"""

import contextlib
import hashlib
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, cast

import redis

from maskwire_core.config import ServiceSettings
from maskwire_core.errors import CorruptValue, InvalidArgument
from maskwire_core.models.decoder_bundle import DecoderBundle
from maskwire_core.storage.connections import Connections
from maskwire_core.storage.embedding import MAX_HEADER_BYTES, Embedding, Header, read_header, unpack
from maskwire_core.telemetry import metrics
from maskwire_core.telemetry.tracing import span

log = logging.getLogger(__name__)

T = TypeVar("T")

_READ, _WRITTEN = (metrics.STORE_BYTES.labels(direction) for direction in ("read", "written"))

_SCAN_COUNT = 1000  # keys that one step looks at: about a millisecond of the store's time

# A claim is extended or given up by its owner alone.
_RENEW = 'return redis.call("get", KEYS[1]) == ARGV[1] and redis.call("pexpire", KEYS[1], ARGV[2])'
_RELEASE = 'return redis.call("get", KEYS[1]) == ARGV[1] and redis.call("del", KEYS[1])'


def content_key(image_sha256: bytes, fingerprint: str, decoder: str, arithmetic: str, codec: str) -> str:
    """The identity of an embedding: equal exactly when image bytes and everything done to them, and with them, are.

    Args:
        image_sha256: Digest of the image file.
        fingerprint: Of the model.
        decoder: Digest of the exported decoder. Embeddings whose decoder nobody publishes any more are not found.
        arithmetic: Version of pixels-to-input, and the encoder's precision.
        codec: How values are stored.
    """
    parts = "\0".join((image_sha256.hex(), fingerprint, decoder, arithmetic, codec))
    return hashlib.sha256(parts.encode()).hexdigest()


def _embedding(namespace: str, key: str) -> str:
    return f"maskwire:embedding:{{{namespace}/{key}}}"


def _claim(namespace: str, key: str) -> str:
    return f"maskwire:claim:{{{namespace}/{key}}}"


def _alias(namespace: str, image_id: str) -> str:
    return f"maskwire:alias:{{{namespace}/{image_id}}}"


def _prompts(namespace: str, key: str) -> str:
    return f"maskwire:prompts:{{{namespace}/{key}}}"


def _logits(namespace: str, key: str) -> str:
    return f"maskwire:logits:{{{namespace}/{key}}}"


def _decoder(digest: str) -> str:
    return f"maskwire:decoder:{digest}"


class Store:
    """What lies in one store. Methods block and are safe to call from many threads.

    All methods raise `Unavailable` and `ResourceExhausted` as `Connections.asking` says.

    Args:
        url: Address; see `Connections`.
        timeout_s: Longest silence within one command.

    Raises:
        InvalidArgument: The address is not one.
    """

    def __init__(self, url: str, timeout_s: float = 2) -> None:
        self._connections = Connections(url, timeout_s)
        self.corrupt_values = 0

    @property
    def address(self) -> str:
        """Where the store is, without its password."""
        return self._connections.address

    def nodes(self) -> list[str]:
        """The nodes that hold keys, for `scan_aliases`; one, unless it is a cluster."""
        with self._connections.asking():
            return self._connections.primaries()

    @property
    def _redis(self) -> redis.Redis:
        return self._connections.client

    def close(self) -> None:
        self._connections.close()

    def run(self, action: Callable[[redis.Redis], T]) -> T:
        """Gives commands of another module, and raises as the methods here do."""
        with self._connections.asking():
            return action(self._redis)

    def ping(self) -> None:
        """Returns when the store answers."""
        with self._connections.asking():
            self._redis.ping()

    # Embeddings

    def put_embedding(self, namespace: str, key: str, value: bytes, ttl_s: int) -> None:
        """Writes an embedding as `embedding.pack` made it, in one atomic command."""
        with self._connections.asking():
            self._redis.set(_embedding(namespace, key), value, px=ttl_s * 1000)
        _WRITTEN.inc(len(value))

    def get_embedding(self, namespace: str, key: str) -> Embedding | None:
        """Reads and verifies an embedding. A damaged value is deleted and counts as missing."""
        name = _embedding(namespace, key)
        with span("store: read embedding"), self._connections.asking(), self._dropping_corrupt(name):
            value = self._connections.get(name)
            if value is None:
                return None
            _READ.inc(value.nbytes)
            embedding = unpack(value.data)
            _check_owner(embedding.header, namespace, key)
            return embedding
        return None

    def find_embedding(self, namespace: str, key: str) -> tuple[Header, int, int] | None:
        """Looks an embedding up without reading its tensors.

        Returns:
            Its header, its size in bytes and the milliseconds until it expires; None when it is missing. A value whose
            header is damaged or whose size is wrong is deleted and counts as missing.
        """
        name = _embedding(namespace, key)
        with span("store: look up embedding"), self._connections.asking(), self._dropping_corrupt(name):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.getrange(name, 0, MAX_HEADER_BYTES - 1)
            pipeline.strlen(name)
            pipeline.pttl(name)
            start, size, ttl_ms = cast(tuple[bytes, int, int], pipeline.execute())
            if not size:
                return None
            header, payload_start = read_header(start)
            if payload_start + header.payload_bytes != size:
                raise CorruptValue(f"an embedding has {size} bytes instead of {payload_start + header.payload_bytes}")
            _check_owner(header, namespace, key)
            return header, size, ttl_ms
        return None

    def touch_embedding(self, namespace: str, key: str, ttl_s: int) -> None:
        """Lets an embedding live for another `ttl_s` seconds."""
        with self._connections.asking():
            self._redis.pexpire(_embedding(namespace, key), ttl_s * 1000)

    def delete_embedding(self, namespace: str, key: str) -> None:
        with self._connections.asking():
            self._redis.delete(_embedding(namespace, key))

    # Claims: who is making an embedding. They save work and no more: a store that is short of memory may drop them, and
    # then the same bytes are stored twice.

    def claim(self, namespace: str, key: str, token: str, ttl_ms: int) -> bool:
        """Claims the making of an embedding unless another has. Returns whether it is this token's now."""
        with self._connections.asking():
            return bool(self._redis.set(_claim(namespace, key), token, nx=True, px=ttl_ms))

    def renew_claim(self, namespace: str, key: str, token: str, ttl_ms: int) -> bool:
        """Extends a claim. Returns whether it was still this token's."""
        with self._connections.asking():
            return bool(self._redis.eval(_RENEW, 1, _claim(namespace, key), token, str(ttl_ms)))

    def release_claim(self, namespace: str, key: str, token: str) -> None:
        """Gives a claim up, if it is this token's."""
        with self._connections.asking():
            self._redis.eval(_RELEASE, 1, _claim(namespace, key), token)

    # Image names

    def set_alias(self, namespace: str, image_id: str, key: str, ttl_s: int) -> None:
        """Names an embedding, or re-points a name that is in use."""
        with self._connections.asking():
            self._redis.set(_alias(namespace, image_id), key, px=ttl_s * 1000)

    def get_alias(self, namespace: str, image_id: str) -> str | None:
        """The content key that a name stands for."""
        name = _alias(namespace, image_id)
        with span("store: look up name"), self._connections.asking(), self._dropping_corrupt(name):
            value = cast(bytes | None, self._redis.get(name))
            return value.decode("ascii", "replace") if value is not None else None
        return None

    def alias_ttl_ms(self, namespace: str, image_id: str) -> int:
        """Milliseconds until a name is forgotten; negative if it is not there."""
        with self._connections.asking():
            return self._redis.pttl(_alias(namespace, image_id))

    def delete_alias(self, namespace: str, image_id: str) -> bool:
        """Forgets a name. Returns whether it existed."""
        with self._connections.asking():
            return bool(self._redis.delete(_alias(namespace, image_id)))

    def scan_aliases(self, namespace: str, prefix: str, node: str, cursor: int) -> tuple[list[str], int]:
        """One SCAN step over a node's keys: names of images of a namespace that begin with a prefix.

        Args:
            namespace: Tenant.
            prefix: Beginning of the names; taken literally.
            node: One of `Connections.primaries`.
            cursor: Where to go on; 0 begins.

        Returns:
            The names, in which one may come twice, and the next cursor; 0 at the end.
        """
        start = _alias(namespace, "").removesuffix("}")
        pattern = f"{_literal(start + prefix)}*"
        with self._connections.asking():
            following, keys = self._connections.scan(node, cursor, pattern, _SCAN_COUNT)
        return [key.decode("utf-8", "replace")[len(start) : -1] for key in keys], following

    def find_aliases(self, namespace: str, image_ids: Sequence[str]) -> list[tuple[Header, int, int] | None]:
        """Looks many names up at once.

        Returns:
            For each name what `find_embedding` returns of its embedding, with the milliseconds until the first of both
            expires; None where the name, or what it stands for, is missing or damaged.
        """
        with span("store: look up names"), self._connections.asking():
            pipeline = self._redis.pipeline(transaction=False)
            for image_id in image_ids:
                pipeline.get(_alias(namespace, image_id))
                pipeline.pttl(_alias(namespace, image_id))
            answers = pipeline.execute(raise_on_error=False)
            keys = [each.decode("ascii", "replace") if isinstance(each, bytes) else "" for each in answers[::2]]
            ttls_ms = answers[1::2]
            pipeline = self._redis.pipeline(transaction=False)
            for key in keys:
                pipeline.getrange(_embedding(namespace, key), 0, MAX_HEADER_BYTES - 1)
                pipeline.strlen(_embedding(namespace, key))
                pipeline.pttl(_embedding(namespace, key))
            answers = pipeline.execute(raise_on_error=False)
        found = zip(keys, ttls_ms, answers[::3], answers[1::3], answers[2::3], strict=True)
        return [
            _described(namespace, key, start, size, min(alias_ttl_ms, ttl_ms))
            if isinstance(start, bytes) and isinstance(size, int)
            else None
            for key, alias_ttl_ms, start, size, ttl_ms in found
        ]

    # Logits to be refined

    def save_logits(self, namespace: str, key: str, prompts: bytes, logits: bytes, ttl_s: int) -> list[bytes]:
        """Saves logits under the prompts that gave them.

        Returns:
            All prompts that logits of this embedding are saved under, the least recently used first.
        """
        index, values = _prompts(namespace, key), _logits(namespace, key)
        with self._connections.asking():
            pipeline = self._redis.pipeline()
            pipeline.hset(values, prompts, logits)
            pipeline.zadd(index, {prompts: time.time()})
            pipeline.pexpire(values, ttl_s * 1000)
            pipeline.pexpire(index, ttl_s * 1000)
            pipeline.zrange(index, 0, -1)
            return cast(list[bytes], pipeline.execute()[-1])

    def saved_prompts(self, namespace: str, key: str) -> list[bytes]:
        """Prompts that logits of an embedding are saved under, the least recently used first."""
        with self._connections.asking():
            return cast(list[bytes], self._redis.zrange(_prompts(namespace, key), 0, -1))

    def get_logits(self, namespace: str, key: str, prompts: bytes) -> bytes | None:
        """Logits that were saved under prompts, which count as used."""
        with self._connections.asking():
            pipeline = self._redis.pipeline()
            pipeline.zadd(_prompts(namespace, key), {prompts: time.time()}, xx=True)
            pipeline.hget(_logits(namespace, key), prompts)
            return cast(bytes | None, pipeline.execute()[-1])

    def drop_logits(self, namespace: str, key: str, prompts: Sequence[bytes]) -> None:
        """Forgets logits."""
        with self._connections.asking():
            pipeline = self._redis.pipeline()
            pipeline.zrem(_prompts(namespace, key), *prompts)
            pipeline.hdel(_logits(namespace, key), *prompts)
            pipeline.execute()

    # Exported decoders

    def publish_decoder(self, bundle: DecoderBundle) -> None:
        """Writes an exported decoder under its digest, unless it is there."""
        name = _decoder(bundle.digest)
        with self._connections.asking():
            if not self._redis.exists(name):
                self._redis.set(name, bundle.packed)

    def get_decoder(self, digest: str) -> DecoderBundle | None:
        """Reads an exported decoder and checks its digest. A damaged one is deleted and counts as missing."""
        name = _decoder(digest)
        with self._connections.asking(), self._dropping_corrupt(name):
            value = cast(bytes | None, self._redis.get(name))
            return DecoderBundle.unpack(value, digest) if value is not None else None
        return None

    @contextlib.contextmanager
    def _dropping_corrupt(self, name: str) -> Iterator[None]:
        """Deletes the value that its body finds to be damaged, or that is of another Redis type."""
        try:
            yield
        except (CorruptValue, redis.ResponseError) as error:
            if isinstance(error, redis.ResponseError) and "WRONGTYPE" not in str(error):
                raise
            self.corrupt_values += 1
            metrics.STORE_DAMAGED.inc()
            log.warning("deleting the damaged value %s: %s", name, error)
            with contextlib.suppress(redis.exceptions.NoPermissionError, redis.ReadOnlyError):
                self._redis.delete(name)


def _described(namespace: str, key: str, start: bytes, size: int, ttl_ms: int) -> tuple[Header, int, int] | None:
    try:
        header, _ = read_header(start)
        _check_owner(header, namespace, key)
    except CorruptValue:  # whoever reads the embedding deletes it
        return None
    return header, size, ttl_ms


def _literal(text: str) -> str:
    """A pattern of Redis that matches the text alone."""
    return re.sub(r"[\\*?\[\]^-]", lambda found: f"\\{found[0]}", text)


def open_store(settings: ServiceSettings) -> Store:
    """The store that the settings name. An address that is none ends the program."""
    try:
        return Store(settings.redis_url, settings.redis_timeout_s)
    except InvalidArgument as error:
        sys.exit(f"error: {error}; set --redis-url or MASKWIRE_REDIS_URL, such as redis://localhost:6379/0")


def _check_owner(header: Header, namespace: str, key: str) -> None:
    if (header.namespace, header.content_key) != (namespace, key):
        raise CorruptValue("an embedding lies under another image's key")
