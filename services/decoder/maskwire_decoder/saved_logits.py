"""Logits of masks that decoders share through the store."""

import logging
from typing import Literal

import numpy as np
import xxhash
from maskwire_core.config import DecoderSettings
from maskwire_core.errors import InvalidArgument
from maskwire_core.storage.embedding import Header
from maskwire_core.storage.store import Store
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Kind = Literal["prompts", "steps"]
"""What logits are saved under: the prompts of a request, or the steps of one object."""

_MAX_NAME_BYTES = 1 << 16
_CHECKSUM_BYTES = 8


class SavedLogits:
    """Saves and loads logits under names of two kinds. All methods block.

    A field in the store is "COUNT KIND NAME", where COUNT is the number of masks; its value is a checksum and the
    logits, COUNTxSxS little-endian fp32.

    Args:
        settings: How long logits are kept, and how many bytes of them for one embedding; the least recently used leave
            first.
        store: Where they are kept.
    """

    def __init__(self, settings: DecoderSettings, store: Store) -> None:
        self._ttl_s = settings.saved_logits_ttl_s
        self._max_bytes = settings.saved_logits_bytes
        self._store = store

    def check_size(self, masks: int, mask_size: int) -> None:
        """Raises an error where more is to be saved than may be kept for one embedding.

        Args:
            masks: Number of masks.
            mask_size: Side of the model's low-resolution masks.

        Raises:
            InvalidArgument: TOO_MUCH_TO_SAVE.
        """
        if masks * mask_size**2 * 4 > self._max_bytes:
            raise _too_much(masks)

    def save(self, image: Header, kind: Kind, name: bytes, logits: NDArray[np.float32]) -> None:
        """Saves CxSxS logits, and drops what exceeds the space for the embedding.

        Raises:
            InvalidArgument: TOO_MUCH_TO_SAVE: the name is too long.
        """
        if len(name) > _MAX_NAME_BYTES:
            raise _too_much(len(logits))
        data = logits.astype("<f4").tobytes()
        value = xxhash.xxh3_64_digest(data) + data
        field = _field(len(logits), kind, name)
        fields = self._store.save_logits(image.namespace, image.content_key, field, value, self._ttl_s)
        total, surplus = 0, []
        for other in reversed(fields):
            total += int(other.split(b" ", 1)[0]) * len(data) // len(logits)
            if total > self._max_bytes:
                surplus.append(other)
        if surplus:
            self._store.drop_logits(image.namespace, image.content_key, surplus)

    def names(self, image: Header, kind: Kind) -> list[bytes]:
        """Lists the names of a kind under which logits are saved for an embedding, the most recently used first."""
        fields = [field.split(b" ", 2) for field in self._store.saved_prompts(image.namespace, image.content_key)]
        return [name for _, other, name in reversed(fields) if other.decode() == kind]

    def load(self, image: Header, kind: Kind, name: bytes, count: int, mask_size: int) -> NDArray[np.float32] | None:
        """Returns the logits, CxSxS, which count as used; None if they have left the store or are damaged.

        Args:
            image: The image that they belong to.
            kind: What the name is.
            name: What they were saved under.
            count: C, how many masks were saved.
            mask_size: S, the side of the model's low-resolution masks.
        """
        field = _field(count, kind, name)
        value = self._store.get_logits(image.namespace, image.content_key, field)
        data = value[_CHECKSUM_BYTES:] if value else b""
        if value is None or value[:_CHECKSUM_BYTES] != xxhash.xxh3_64_digest(data):
            if value is not None:
                log.warning("dropping damaged logits of %s", image.content_key)
            self._store.drop_logits(image.namespace, image.content_key, [field])
            return None
        return np.frombuffer(data, "<f4").reshape(count, mask_size, mask_size).astype(np.float32)


def _field(count: int, kind: Kind, name: bytes) -> bytes:
    return f"{count} {kind} ".encode() + name


def _too_much(masks: int) -> InvalidArgument:
    return InvalidArgument(
        "TOO_MUCH_TO_SAVE", f"logits of {masks} prompts are too much; save fewer", field="save_logits"
    )
