"""Which embeddings callers deleted lately. Decoders keep copies in memory, and look here twice a second."""

from typing import NamedTuple, cast

from maskwire_core.storage import keys
from maskwire_core.storage.store import Store

_MOST = 10_000  # deletions that are remembered, and perhaps a few more
_PAGE = 1000

START = "0-0"
"""The position before the first deletion."""


class Deleted(NamedTuple):
    """What was deleted since a position."""

    images: list[tuple[str, str]]  # namespace and content key of each embedding, in order
    position: str  # where to go on
    all_known: bool  # False: older ones were forgotten before they were read
    more: bool  # whether more follow at once


def erase(store: Store, namespace: str, key: str) -> None:
    """Deletes an embedding, the image's file, the logits saved for it and the list of its regions for good: decoders
    drop their copies within a second. The deletion is announced when it is done, so that nobody reads the embedding
    again after dropping it; if this fails in between, it must be called again."""
    with store.connections.commands() as client:
        names = keys.embedding, keys.source, keys.prompts, keys.logits, keys.regions
        client.delete(*(name(namespace, key) for name in names))
        client.xadd(keys.DELETIONS, {"image": f"{namespace}/{key}"}, maxlen=_MOST, approximate=True)


def deleted_since(store: Store, position: str) -> Deleted:
    """Returns what was deleted since a position, up to a thousand images. Blocks for a round trip.

    Args:
        store: The store.
        position: `START`, or that of the last answer.
    """
    with store.connections.commands() as client:
        pipeline = client.pipeline(transaction=False)
        pipeline.xrange(keys.DELETIONS, position, "+", _PAGE + 1)
        pipeline.xlen(keys.DELETIONS)
        entries, length = cast("tuple[list[tuple[bytes, dict[bytes, bytes]]], int]", pipeline.execute())
        all_known = True
        if position != START and not (entries and entries[0][0].decode() == position):
            # What was read last is forgotten: because too many came since, or because the store was emptied.
            all_known = length < _MOST
            entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(keys.DELETIONS, "-", "+", _PAGE))
        elif position != START:
            entries = entries[1:]
    images = [tuple(image[b"image"].decode().split("/", 1)) for _, image in entries]
    last = entries[-1][0].decode() if entries else position if length else START
    return Deleted(cast("list[tuple[str, str]]", images), last, all_known, len(entries) >= _PAGE)
