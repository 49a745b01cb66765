"""The files of a cold tier, through fsspec: a folder, or a bucket of an object store.

    embeddings/=NAMESPACE/KE/CONTENT_KEY   as the store has it, byte for byte
    names/=NAMESPACE/DI/DIGEST             JSON: namespace, image_id, content_key; DIGEST is the image ID's SHA-256

Whoever may write here may write anything: what is read is checked as what the store has is.
"""

import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from maskwire_core.errors import CorruptValue, InvalidArgument
from maskwire_core.storage.embedding import (
    MAX_BYTES,
    MAX_HEADER_BYTES,
    Embedding,
    StoredEmbedding,
    describe,
    unpack_owned,
)

_MAX_NAME_BYTES = 8192


class ColdFile(NamedTuple):
    """A file as a listing shows it."""

    path: str  # as fsspec names it
    nbytes: int  # size in bytes
    written_at: float  # when it was written last, in seconds since 1970


class ColdFiles:
    """Reads and writes the files of a cold tier. Methods block, for as long as the file system does, and raise what it
    raises: `OSError` and, of object stores, errors of their own libraries. Safe to use from many threads.

    Args:
        url: A folder's path, or an address that fsspec knows, such as s3://BUCKET/FOLDER. Credentials are those of the
            address's own library, or fsspec's settings (`FSSPEC_S3_KEY` and so on).

    Raises:
        InvalidArgument: BAD_COLD_TIER: the address is none, or needs a library that is not installed.
    """

    def __init__(self, url: str) -> None:
        if "://" not in url and not url.startswith(("/", "~")):
            raise InvalidArgument("BAD_COLD_TIER", "give an absolute path, or an address", field="cold_tier")
        try:
            import fsspec  # an extra

            self._system, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise InvalidArgument("BAD_COLD_TIER", f"no address of files: {error}", field="cold_tier") from error
        self._root = root.rstrip("/")
        self._is_folder = "file" in self._system.protocol

    def write_embedding(self, namespace: str, key: str, value: bytes | memoryview) -> None:
        """Writes an embedding, as `embedding.pack` serialized it."""
        self._write(self._embedding(namespace, key), bytes(value))

    def read_embedding(self, namespace: str, key: str) -> tuple[Embedding, bytes] | None:
        """Reads and verifies an embedding. A damaged one is deleted and counts as missing.

        Returns:
            The embedding, and the bytes of its file; None if there is none.
        """
        path = self._embedding(namespace, key)
        value = self._read(path, MAX_BYTES)
        if value is None:
            return None
        try:
            return unpack_owned(value, namespace, key), value
        except CorruptValue:
            self._delete(path)
            return None

    def find_embedding(self, namespace: str, key: str, ttl_s: float) -> StoredEmbedding | None:
        """Describes an embedding without reading its tensors, as `Store.find_embedding` does.

        Args:
            namespace: Tenant.
            key: Content key.
            ttl_s: Seconds after which a file is deleted.

        Returns:
            Its description; None if it is missing, damaged or due to be deleted.
        """
        path = self._embedding(namespace, key)
        try:
            file = _described(self._system.info(path))
            start = self._system.cat_file(path, start=0, end=MAX_HEADER_BYTES)
        except FileNotFoundError:
            return None
        ttl_ms = int((file.written_at + ttl_s - time.time()) * 1e3)
        with contextlib.suppress(CorruptValue):  # deleted when the embedding is read
            return describe(namespace, key, start, file.nbytes, ttl_ms) if ttl_ms > 0 else None
        return None

    def delete_embedding(self, namespace: str, key: str) -> None:
        """Deletes an embedding, if it exists."""
        self._delete(self._embedding(namespace, key))

    def embedding_written_at(self, namespace: str, key: str) -> float | None:
        """When an embedding was written, in seconds since 1970; None if there is none."""
        try:
            found = self._system.info(self._embedding(namespace, key))
        except FileNotFoundError:
            return None
        return _described(found).written_at

    def write_name(self, namespace: str, image_id: str, content_key: str) -> None:
        """Makes an image ID stand for a content key."""
        record = {"namespace": namespace, "image_id": image_id, "content_key": content_key}
        self._write(self._name(namespace, image_id), json.dumps(record).encode())

    def read_name(self, namespace: str, image_id: str) -> str | None:
        """Returns the content key that an image ID stands for; None if it is unknown. A damaged record is deleted."""
        path = self._name(namespace, image_id)
        value = self._read(path, _MAX_NAME_BYTES)
        if value is None:
            return None
        try:
            record = json.loads(value)
            if (record["namespace"], record["image_id"]) != (namespace, image_id):
                raise ValueError("another image's name")
            return bytes.fromhex(record["content_key"]).hex()
        except (KeyError, TypeError, ValueError, RecursionError):
            self._delete(path)
            return None

    def delete_name(self, namespace: str, image_id: str) -> None:
        """Deletes an image ID, if it exists."""
        self._delete(self._name(namespace, image_id))

    def listed(self) -> Iterator[ColdFile]:
        """Lists all files."""
        for folder in ("embeddings", "names"):
            found = self._system.find(f"{self._root}/{folder}", detail=True)
            yield from (_described(each) for each in found.values())

    def delete(self, file: ColdFile) -> None:
        """Deletes a file that was listed, unless it was written again since."""
        with contextlib.suppress(FileNotFoundError):
            if _described(self._system.info(file.path)).written_at == file.written_at:
                self._delete(file.path)

    def _embedding(self, namespace: str, key: str) -> str:
        # A namespace may be "..".
        return f"{self._root}/embeddings/={namespace}/{key[:2]}/{key}"

    def _name(self, namespace: str, image_id: str) -> str:
        digest = hashlib.sha256(image_id.encode()).hexdigest()
        return f"{self._root}/names/={namespace}/{digest[:2]}/{digest}"

    def _write(self, path: str, value: bytes) -> None:
        if not self._is_folder:  # an object appears when it is complete
            self._system.pipe_file(path, value)
            return
        self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        part = f"{path}.{secrets.token_hex(8)}.part"
        try:
            self._system.pipe_file(part, value)
            self._system.mv(part, path)
        except BaseException:
            self._delete(part)
            raise

    def _read(self, path: str, most: int) -> bytes | None:
        """Returns a file's bytes; None if there is no such file, or if it is larger than `most`."""
        try:
            value: bytes = self._system.cat_file(path, start=0, end=most + 1)
        except FileNotFoundError:
            return None
        return value if len(value) <= most else None

    def _delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(path)


def _described(found: dict[str, Any]) -> ColdFile:
    written = found.get("mtime") or found.get("LastModified") or found.get("updated") or 0.0
    if isinstance(written, str):
        written = datetime.fromisoformat(written)
    if isinstance(written, datetime):
        written = (written if written.tzinfo else written.replace(tzinfo=UTC)).timestamp()
    return ColdFile(str(found["name"]), int(found["size"]), float(written))
