"""A cache of what the model gave for the steps of objects."""

import sys
from dataclasses import replace

from maskwire_core.tenancy.tenant_cache import TenantCache

from maskwire_decoder.prompts.encoding import Prediction

PrefixKey = tuple[str, str, bytes]
"""Namespace and content key of the image, and the digest of the steps; see `Step.digest`."""

_ENTRY_BYTES = 1024  # the interpreter's objects for one entry, beside its arrays and the parts of its key


class PrefixCache(TenantCache[PrefixKey, Prediction]):
    """Keeps predictions up to a number of bytes, by the steps that led to them.

    Args:
        max_bytes: Memory for the predictions and their keys.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, _nbytes)

    def put(self, key: PrefixKey, value: Prediction) -> list[PrefixKey]:
        """Keeps a prediction, unless one with as many candidates is there already, or it is larger than the cache."""
        present = self.get(key)
        if (present is None or len(present.iou) < len(value.iou)) and _nbytes(key, value) <= self.max_bytes:
            # Copied, since a view would keep the whole array that it is a part of.
            return super().put(key, replace(value, logits=value.logits.copy(), iou=value.iou.copy()))
        return []


def _nbytes(key: PrefixKey, prediction: Prediction) -> int:
    return sum(map(sys.getsizeof, key)) + prediction.logits.nbytes + prediction.iou.nbytes + _ENTRY_BYTES
