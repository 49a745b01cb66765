"""What lies in a store, by namespace, and clearing it out."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar, cast

import redis

from maskwire_core.errors import CorruptValue
from maskwire_core.storage.embedding import MAX_HEADER_BYTES, read_header
from maskwire_core.storage.quotas import Usage
from maskwire_core.storage.store import Store

T = TypeVar("T")

_BATCH = 100
_SETTLING_S = 60
"""An embedding this young may not have its name yet."""


@dataclass(frozen=True)
class Stored:
    """An embedding.

    Attributes:
        namespace: Tenant.
        key: Content key.
        nbytes: Its size.
        created_at: When it was encoded, in seconds since 1970; None if its header cannot be read.
    """

    namespace: str
    key: str
    nbytes: int
    created_at: float | None


@dataclass
class Summary:
    """What a namespace has.

    Attributes:
        images: Names.
        embeddings: As many as these.
        nbytes: Size of all embeddings.
        oldest: When the first of them was encoded, in seconds since 1970; None if there is none.
        newest: When the last was.
    """

    images: int = 0
    embeddings: int = 0
    nbytes: int = 0
    oldest: float | None = None
    newest: float | None = None

    def add(self, stored: Stored) -> None:
        self.embeddings += 1
        self.nbytes += stored.nbytes
        if stored.created_at is not None:
            self.oldest = min(self.oldest or stored.created_at, stored.created_at)
            self.newest = max(self.newest or stored.created_at, stored.created_at)


class Inventory:
    """Looks through a whole store, some keys at a time, while it works on. Methods raise as `Store`'s do.

    Args:
        store: What is looked through.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._usage = Usage(store)

    def summaries(self) -> dict[str, Summary]:
        """What each namespace has."""
        found: defaultdict[str, Summary] = defaultdict(Summary)
        for namespace, _ in self._names("alias"):
            found[namespace].images += 1
        for stored in self.embeddings():
            found[stored.namespace].add(stored)
        return dict(sorted(found.items()))

    def embeddings(self) -> Iterator[Stored]:
        """All embeddings."""
        for batch in _batches(self._names("embedding")):
            for (namespace, key), size, start in zip(batch, *self._measure(batch), strict=True):
                yield Stored(namespace, key, size, _created_at(start))

    def select(
        self, namespace: str | None = None, older_than_s: float | None = None, unreferenced: bool = False
    ) -> list[Stored]:
        """The embeddings that are all of what is asked for.

        Args:
            namespace: Of this tenant.
            older_than_s: Encoded so long ago; those that cannot be read count as old.
            unreferenced: No name stands for them, and they are old enough to have been given one.
        """
        now = time.time()
        named = set(self._references()) if unreferenced else set()
        return [
            each
            for each in self.embeddings()
            if (namespace is None or each.namespace == namespace)
            and (older_than_s is None or now - (each.created_at or 0) > older_than_s)
            and not (unreferenced and (each.namespace, each.key) in named)
            and not (unreferenced and now - (each.created_at or 0) < _SETTLING_S)
        ]

    def delete(self, chosen: Iterable[Stored]) -> Iterator[Stored]:
        """Deletes embeddings, with what is saved for them. Yields each when it is gone."""
        for each in chosen:
            self._usage.delete_embedding(each.namespace, each.key)
            self._drop([f"maskwire:{kind}:{{{each.namespace}/{each.key}}}" for kind in ("prompts", "logits")])
            yield each

    def forget_names(self, namespace: str | None = None) -> int:
        """Deletes the names, of one tenant or all, that stand for nothing. Returns how many they were."""
        forgotten = 0
        for batch in _batches(each for each in self._names("alias") if namespace in (None, each[0])):
            keys = self._read(batch)
            there = self._exist([(tenant, key) for (tenant, _), key in zip(batch, keys, strict=True)])
            idle = [name for name, stands in zip(batch, there, strict=True) if not stands]
            self._drop([f"maskwire:alias:{{{tenant}/{image_id}}}" for tenant, image_id in idle])
            forgotten += len(idle)
        return forgotten

    def _references(self) -> Iterator[tuple[str, str]]:
        for batch in _batches(self._names("alias")):
            for (namespace, _), key in zip(batch, self._read(batch), strict=True):
                yield namespace, key

    def _names(self, kind: str) -> Iterator[tuple[str, str]]:
        """Namespace and the rest of all keys of a kind."""
        prefix = f"maskwire:{kind}:{{"
        pattern = f"{prefix}*/*}}"
        names = self._store.run(lambda client: client.scan_iter(match=pattern, count=10 * _BATCH))
        seen = set()  # the same key may come twice
        while (name := self._store.run(lambda _: next(names, None))) is not None:
            text = cast(bytes, name).decode("utf-8", "replace")
            if text not in seen:
                seen.add(text)
                namespace, _, rest = text[len(prefix) : -1].partition("/")
                yield namespace, rest

    def _measure(self, batch: list[tuple[str, str]]) -> tuple[list[int], list[bytes]]:
        def ask(client: redis.Redis) -> list[object]:
            pipeline = client.pipeline(transaction=False)
            for namespace, key in batch:
                pipeline.strlen(f"maskwire:embedding:{{{namespace}/{key}}}")
                pipeline.getrange(f"maskwire:embedding:{{{namespace}/{key}}}", 0, MAX_HEADER_BYTES - 1)
            return pipeline.execute(raise_on_error=False)

        answers = self._store.run(ask)
        sizes = [each if isinstance(each, int) else 0 for each in answers[::2]]  # no string at all: an error
        return sizes, [each if isinstance(each, bytes) else b"" for each in answers[1::2]]

    def _read(self, batch: list[tuple[str, str]]) -> list[str]:
        def ask(client: redis.Redis) -> list[object]:
            pipeline = client.pipeline(transaction=False)
            for namespace, image_id in batch:
                pipeline.get(f"maskwire:alias:{{{namespace}/{image_id}}}")
            return pipeline.execute(raise_on_error=False)

        return [each.decode("ascii", "replace") if isinstance(each, bytes) else "" for each in self._store.run(ask)]

    def _exist(self, batch: list[tuple[str, str]]) -> list[bool]:
        def ask(client: redis.Redis) -> list[object]:
            pipeline = client.pipeline(transaction=False)
            for namespace, key in batch:
                pipeline.exists(f"maskwire:embedding:{{{namespace}/{key}}}")
            return pipeline.execute()

        return [bool(each) for each in self._store.run(ask)]

    def _drop(self, names: list[str]) -> None:
        def ask(client: redis.Redis) -> None:
            pipeline = client.pipeline(transaction=False)
            for name in names:
                pipeline.delete(name)
            pipeline.execute()

        self._store.run(ask)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _created_at(start: bytes) -> float | None:
    try:
        return read_header(start)[0].created_at
    except CorruptValue:
        return None
