"""What a whole store holds, by namespace, and purging it. `maskwire store` uses this."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from maskwire_core.errors import CorruptValue
from maskwire_core.storage import keys
from maskwire_core.storage.embedding import MAX_HEADER_BYTES, read_header
from maskwire_core.storage.ledger import totals
from maskwire_core.storage.quotas import Quotas
from maskwire_core.storage.store import Store

T = TypeVar("T")
Id = tuple[str, str]
"""A namespace, and a content key or image ID in it."""

_BATCH = 100
_SCAN_COUNT = 1000
_SETTLING_S = 60
"""An embedding younger than this may not have its image ID yet."""


@dataclass(frozen=True)
class InventoryItem:
    """An embedding in the store."""

    namespace: str  # tenant
    key: str  # content key
    nbytes: int  # size in bytes
    created_at: float | None  # when the image was encoded, in seconds since 1970; None if the header cannot be read
    region_of: str = ""  # content key of the image that it is a region of; empty for an image


@dataclass
class Summary:
    """What a namespace holds."""

    images: int = 0  # number of image IDs
    embeddings: int = 0  # number of embeddings
    nbytes: int = 0  # size of all embeddings in bytes
    oldest: float | None = None  # when the oldest embedding was encoded, in seconds since 1970; None if unknown
    newest: float | None = None  # when the newest was encoded
    clips: int = 0  # number of clips
    clip_bytes: int = 0  # size of their files in bytes
    sources: int = 0  # number of kept files of images
    source_bytes: int = 0  # their size in bytes
    tracks: int = 0  # number of tracks
    track_bytes: int = 0  # size of their state in bytes

    def add(self, item: InventoryItem) -> None:
        self.embeddings += 1
        self.nbytes += item.nbytes
        if item.created_at is not None:
            self.oldest = min(self.oldest or item.created_at, item.created_at)
            self.newest = max(self.newest or item.created_at, item.created_at)


class Inventory:
    """Goes through all keys of a store in small steps, while the store is in use. Methods raise as `Store`'s do.

    Args:
        store: The store to go through.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._quotas = Quotas(store)

    def summaries(self) -> dict[str, Summary]:
        """What each namespace holds, by namespace."""
        found = summarize(self.embeddings())
        for (namespace, _), _ in self._aliases():
            found[namespace].images += 1
        for (namespace, _), (nbytes,) in self._read(keys.SOURCES, ("STRLEN",)):
            found[namespace].sources += 1
            found[namespace].source_bytes += nbytes or 0
        now = time.time()
        for (namespace, _), (entries,) in self._read(keys.CLIPS, ("HGETALL",)):
            found[namespace].clips, found[namespace].clip_bytes = totals(entries, now)
        for (namespace, _), (entries,) in self._read(keys.TRACKS, ("HGETALL",)):
            found[namespace].tracks, found[namespace].track_bytes = totals(entries, now)
        return dict(sorted(found.items()))

    def embeddings(self) -> Iterator[InventoryItem]:
        """Yields all embeddings, damaged ones too."""
        commands = ("STRLEN",), ("GETRANGE", 0, MAX_HEADER_BYTES - 1)
        for (namespace, key), (nbytes, start) in self._read(keys.EMBEDDINGS, *commands):
            yield InventoryItem(namespace, key, nbytes or 0, *_described(start or b""))

    def select(
        self, namespace: str | None = None, older_than_s: float | None = None, unreferenced: bool = False
    ) -> list[InventoryItem]:
        """Returns the embeddings that fulfil all of the given conditions.

        Args:
            namespace: The embedding belongs to this tenant.
            older_than_s: It was encoded more than so many seconds ago, or its header cannot be read.
            unreferenced: No image ID stands for it, or for the image that it is a region of, and it is old enough to
                have been given one.
        """
        now = time.time()
        referenced = {(tenant, key) for (tenant, _), key in self._aliases()} if unreferenced else set()

        def selected(item: InventoryItem) -> bool:
            age_s = now - (item.created_at or 0)
            if unreferenced and ((item.namespace, item.region_of or item.key) in referenced or age_s < _SETTLING_S):
                return False
            return namespace in (None, item.namespace) and (older_than_s is None or age_s > older_than_s)

        return [item for item in self.embeddings() if selected(item)]

    def delete(self, chosen: Iterable[InventoryItem]) -> Iterator[InventoryItem]:
        """Deletes embeddings and the logits saved for them. Yields each when it is deleted."""
        for item in chosen:
            self._quotas.erase_embedding(item.namespace, item.key)
            yield item

    def delete_dangling_aliases(self, namespace: str | None = None) -> int:
        """Deletes the image IDs, of one tenant or of all, whose embedding is gone. Returns their number."""

        def delete(aliases: list[Id]) -> None:
            self._for_each([keys.alias(*alias) for alias in aliases], ("DEL",))

        return self._delete_dangling(self._aliases(), namespace, delete)

    def delete_dangling_sources(self, namespace: str | None = None) -> int:
        """Deletes the kept files of images, of one tenant or of all, whose embedding is gone. Returns their number."""

        def delete(sources: list[Id]) -> None:
            for source in sources:
                self._quotas.erase_source(*source)

        sources = ((source, source[1]) for source, _ in self._read(keys.SOURCES, ("STRLEN",)))
        return self._delete_dangling(sources, namespace, delete)

    def _delete_dangling(
        self, owned: Iterable[tuple[Id, str]], namespace: str | None, delete: Callable[[list[Id]], None]
    ) -> int:
        """Deletes what belongs to embeddings that are gone. Returns how many were deleted.

        Args:
            owned: What may be deleted, each with the content key of the embedding that it belongs to.
            namespace: The tenant whose it is; None for all.
            delete: Deletes some of it.
        """
        deleted = 0
        for batch in _batches(each for each in owned if namespace in (None, each[0][0])):
            exist = self._for_each([keys.embedding(tenant, key) for (tenant, _), key in batch], ("EXISTS",))
            dangling = [each for (each, _), (exists,) in zip(batch, exist, strict=True) if not exists]
            delete(dangling)
            deleted += len(dangling)
        return deleted

    def _aliases(self) -> Iterator[tuple[Id, str]]:
        """Yields all image IDs and the content keys that they stand for."""
        for alias, (key,) in self._read(keys.ALIASES, ("GET",)):
            yield alias, (key or b"").decode("ascii", "replace")

    def _read(self, pattern: str, *commands: tuple[str | int, ...]) -> Iterator[tuple[Id, tuple[Any, ...]]]:
        """Yields what the keys that match a pattern of `keys` are of, and the replies to commands on each."""
        with self._store.connections.commands() as client:
            names = set(client.scan_iter(pattern, _SCAN_COUNT))  # SCAN may return a key twice
        for batch in _batches(names):
            yield from zip(map(keys.parse, batch), self._for_each(batch, *commands), strict=True)

    def _for_each(self, names: Sequence[str | bytes], *commands: tuple[str | int, ...]) -> list[tuple[Any, ...]]:
        with self._store.connections.commands():
            return self._store.connections.for_each(names, *commands)


def summarize(items: Iterable[InventoryItem]) -> defaultdict[str, Summary]:
    """Summarizes embeddings by namespace."""
    found: defaultdict[str, Summary] = defaultdict(Summary)
    for item in items:
        found[item.namespace].add(item)
    return found


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _described(start: bytes) -> tuple[float | None, str]:
    """When an embedding was made, and the content key of the image that it is a region of, from its value's start."""
    try:
        header = read_header(start)[0]
    except CorruptValue:
        return None, ""
    return header.created_at, "" if header.region is None else header.region.image
