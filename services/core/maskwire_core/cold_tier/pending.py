"""What is to be done in a cold tier, as the store remembers it: so no encoder's death loses it.

One hash has a field for each embedding and each image ID whose file is to follow the store. While a field is there, the
file may say what was true before.
"""

import secrets
from enum import Enum
from typing import NamedTuple, cast

from maskwire_core.storage import keys
from maskwire_core.storage.store import Store

SETTLES_MS = 5_000
"""Milliseconds until a field is acted upon: who entered it changes the store next."""
_PAGE = 100

# Arguments: field, what follows the time. Enters it with the store's time, for processes' clocks differ.
_ENTER = """
local clock = redis.call('time')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
return redis.call('hset', KEYS[1], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[2])
"""
# Arguments: field, value. Strikes a field out unless it was entered again.
_DONE = "return redis.call('hget', KEYS[1], ARGV[1]) == ARGV[2] and redis.call('hdel', KEYS[1], ARGV[1])"


class Kind(Enum):
    """What a file is of."""

    EMBEDDING = "embedding"  # named by its content key
    NAME = "name"  # named by its image ID


class Entry(NamedTuple):
    """A file that is to follow the store."""

    kind: Kind
    namespace: str
    name: str  # content key or image ID
    is_kept: bool  # False: the file goes, whatever the store has
    value: str  # what the field has: told apart from later entries of the same file by it


class Pending:
    """The files that are to follow the store. Methods block, and raise as `Store`'s do.

    Args:
        store: Where they are remembered.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def enter(self, kind: Kind, namespace: str, name: str, *, is_kept: bool = True) -> None:
        """Remembers that a file is to follow the store. Call it just before the store is changed.

        Args:
            kind: What the file is of.
            namespace: Tenant.
            name: Content key or image ID.
            is_kept: False if there is to be no file, whatever the store has.
        """
        value = f"{'keep' if is_kept else 'drop'} {secrets.token_hex(8)}"
        with self._store.connections.commands() as client:
            client.eval(_ENTER, 1, keys.COLD_PENDING, _field(kind, namespace, name), value)

    def done(self, entry: Entry) -> bool:
        """Strikes an entry out, unless it was entered again. Returns whether it was not."""
        with self._store.connections.commands() as client:
            field = _field(entry.kind, entry.namespace, entry.name)
            return bool(client.eval(_DONE, 1, keys.COLD_PENDING, field, entry.value))

    def is_trusted(self, kind: Kind, namespace: str, name: str) -> bool:
        """Whether a file says what is true: that of a name if it has followed the store, and that of an embedding,
        which never changes, unless it is to go."""
        with self._store.connections.commands() as client:
            value = client.hget(keys.COLD_PENDING, _field(kind, namespace, name))
        return value is None or (kind is Kind.EMBEDDING and value.split()[1] == b"keep")

    def count(self) -> int:
        """How many files are to follow the store."""
        with self._store.connections.commands() as client:
            return client.hlen(keys.COLD_PENDING)

    def due(self, cursor: int) -> tuple[list[Entry], int]:
        """Returns some entries that have settled, and the cursor to go on with; 0 at the end."""
        with self._store.connections.commands() as client:
            seconds, microseconds = client.time()
            settled = seconds * 1000 + microseconds // 1000 - SETTLES_MS
            following, page = cast(
                "tuple[int, dict[bytes, bytes]]", client.hscan(keys.COLD_PENDING, cursor, None, _PAGE)
            )
        entries = []
        for field, value in page.items():
            kind, namespace, name = field.decode().split("/", 2)
            entered_at, what, _ = value.decode().split()
            if int(entered_at) <= settled:
                entries.append(Entry(Kind(kind), namespace, name, what == "keep", value.decode()))
        return entries, following


def _field(kind: Kind, namespace: str, name: str) -> str:
    return f"{kind.value}/{namespace}/{name}"
