"""Logits of masks that decoders share through the store."""

import logging
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import xxhash
from maskwire_core.config import DecoderSettings
from maskwire_core.errors import InvalidArgument
from maskwire_core.storage.logits import drop_logits, get_logits, save_logits, saved_prompts
from maskwire_core.storage.store import Store
from maskwire_core.tenancy.tenant_cache import TenantCache
from numpy.typing import NDArray

from maskwire_decoder.images import Image
from maskwire_decoder.prompts.earlier_prompts import name_prompts
from maskwire_decoder.prompts.parsing import Prompt
from maskwire_decoder.prompts.steps import Step

log = logging.getLogger(__name__)

Kind = Literal["prompts", "steps"]
"""What logits are saved under: the prompts of a request, or the steps of one object."""

_MAX_FIELD_BYTES = 1 << 16
_CHECKSUM_BYTES = 8


class SavedLogits:
    """Saves and loads logits under names of two kinds. All methods block.

    A field in the store is "COUNT KIND NAME", where COUNT is the number of masks; its value is a checksum and the
    logits, COUNTxSxS little-endian fp32.

    Args:
        settings: How long logits are kept, and how many bytes of them: for one embedding, where the least recently used
            leave first, and in all, where those of the tenant that has most leave first.
        store: Where they are kept.
    """

    def __init__(self, settings: DecoderSettings, store: Store) -> None:
        self._ttl_s = settings.saved_logits_ttl_s
        self._max_bytes = settings.saved_logits_bytes
        self._store = store
        self._saved: TenantCache[tuple[str, str], int] = TenantCache(
            max(settings.saved_logits_store_bytes, self._max_bytes), lambda _, nbytes: nbytes
        )
        """Bytes that this decoder knows to be saved, by namespace and content key."""

    def fields(self, image: Image, prompts: Sequence[Prompt]) -> dict[bytes, list[int]]:
        """Returns what the logits of a request are saved under, each with the indices of its prompts: objects by their
        steps, and the other prompts together.

        Raises:
            InvalidArgument: TOO_MUCH_TO_SAVE.
        """
        plain = [index for index, prompt in enumerate(prompts) if prompt.history is None]
        fields = {}
        if plain:
            fields[_field(len(plain), "prompts", name_prompts([prompts[index] for index in plain]))] = plain
        for index, prompt in enumerate(prompts):
            if prompt.history is not None:
                fields[_field(1, "steps", name_steps(prompt.history.last))] = [index]
        too_long = any(len(field) > _MAX_FIELD_BYTES for field in fields)
        if too_long or len(prompts) * image.predictor.config.mask_size**2 * 4 > self._max_bytes:
            raise InvalidArgument(
                "TOO_MUCH_TO_SAVE",
                f"the logits of {len(prompts)} prompts, or the list of their points, are too much; send fewer at once",
                field="save_logits",
            )
        return fields

    def save(self, image: Image, fields: Mapping[bytes, Sequence[int]], logits: Sequence[NDArray[np.float32]]) -> None:
        """Saves the SxS logits of a request's prompts, and drops what exceeds the space for the embedding.

        Args:
            image: The image that they belong to.
            fields: From `fields`.
            logits: For each prompt.
        """
        where = image.header.namespace, image.header.content_key
        for field, indices in fields.items():
            data = b"".join(logits[index].astype("<f4").tobytes() for index in indices)
            value = xxhash.xxh3_64_digest(data) + data
            total, kept, surplus = 0, 0, []
            for other in reversed(save_logits(self._store, *where, field, value, self._ttl_s)):
                total += int(other.split(b" ", 1)[0]) * len(data) // len(indices)
                if total > self._max_bytes:
                    surplus.append(other)
                else:
                    kept = total
            if surplus:
                drop_logits(self._store, *where, surplus)
            for left in self._saved.put(where, kept):
                if gone := saved_prompts(self._store, *left):
                    drop_logits(self._store, *left, gone)

    def names(self, image: Image, kind: Kind) -> list[bytes]:
        """Lists the names of a kind under which logits are saved for an embedding, the most recently used first."""
        saved = saved_prompts(self._store, image.header.namespace, image.header.content_key)
        fields = [field.split(b" ", 2) for field in reversed(saved)]
        return [name for _, other, name in fields if other.decode() == kind]

    def load(self, image: Image, kind: Kind, name: bytes, count: int = 1) -> NDArray[np.float32] | None:
        """Returns the logits, CxSxS, which count as used; None if they have left the store or are damaged.

        Args:
            image: The image that they belong to.
            kind: What the name is.
            name: What they were saved under.
            count: C, how many masks were saved.
        """
        where, field = (image.header.namespace, image.header.content_key), _field(count, kind, name)
        value = get_logits(self._store, *where, field)
        data = value[_CHECKSUM_BYTES:] if value else b""
        if value is None or value[:_CHECKSUM_BYTES] != xxhash.xxh3_64_digest(data):
            if value is not None:
                log.warning("dropping damaged logits of %s", image.header.content_key)
            drop_logits(self._store, *where, [field])
            return None
        size = image.predictor.config.mask_size
        return np.frombuffer(data, "<f4").reshape(count, size, size).astype(np.float32)


def name_steps(last: Step) -> bytes:
    """Returns a name for the steps of an object up to a step."""
    return last.digest.hex().encode()


def _field(count: int, kind: Kind, name: bytes) -> bytes:
    return f"{count} {kind} ".encode() + name
