"""The exported decoders and trackers of models, which encoders publish under their digests."""

from typing import Any, TypeVar

from maskwire_core.models.decoder_bundle import DecoderBundle
from maskwire_core.models.graph_archive import Bundle
from maskwire_core.models.tracker_bundle import TrackerBundle
from maskwire_core.storage import keys
from maskwire_core.storage.store import Store

Exported = TypeVar("Exported", bound=Bundle[Any])


def publish_decoder(store: Store, bundle: DecoderBundle) -> None:
    """Writes an exported decoder under its digest, unless it is there already."""
    _publish(store, keys.decoder(bundle.digest), bundle)


def publish_tracker(store: Store, bundle: TrackerBundle) -> None:
    """Likewise an exported tracker."""
    _publish(store, keys.tracker(bundle.digest), bundle)


def _publish(store: Store, name: str, bundle: Bundle[Any]) -> None:
    with store.connections.commands() as client:
        if not client.exists(name):
            client.set(name, bundle.packed)


def get_decoder(store: Store, digest: str) -> DecoderBundle | None:
    """Reads an exported decoder and verifies its digest. A damaged one is deleted and counts as missing."""
    return _read_bundle(store, keys.decoder(digest), digest, DecoderBundle)


def decoder_bytes(store: Store, digest: str) -> int:
    """Size of an exported decoder in bytes; 0 if it is missing."""
    with store.connections.commands() as client:
        return int(client.strlen(keys.decoder(digest)))


def get_tracker(store: Store, digest: str) -> TrackerBundle | None:
    """Reads an exported tracker as `get_decoder` does a decoder."""
    return _read_bundle(store, keys.tracker(digest), digest, TrackerBundle)


def _read_bundle(store: Store, name: str, digest: str, kind: type[Exported]) -> Exported | None:
    with store.deleting_corrupt(name):
        value = store.connections.get(name)
        return kind.unpack(value.tobytes(), digest) if value is not None else None
    return None
