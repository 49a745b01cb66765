"""An LRU cache of what the model gave for the steps of objects."""

import sys
import threading
from collections import OrderedDict
from dataclasses import replace

from maskwire_decoder.prompts.encoding import Prediction

PrefixKey = tuple[str, str, bytes]
"""Namespace and content key of the image, and the digest of the steps; see `Step.digest`."""

_ENTRY_BYTES = 1024  # the interpreter's objects for one entry, beside its arrays and the parts of its key


class PrefixCache:
    """Keeps predictions up to a number of bytes; the least recently used leave first. Safe to use from many threads.

    Args:
        max_bytes: Memory for the predictions and their keys.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        """Memory in use."""
        self._entries: OrderedDict[PrefixKey, Prediction] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: PrefixKey) -> Prediction | None:
        """Returns a prediction, which counts as used."""
        with self._lock:
            prediction = self._entries.get(key)
            if prediction is not None:
                self._entries.move_to_end(key)
            return prediction

    def put(self, key: PrefixKey, prediction: Prediction) -> None:
        """Keeps a prediction, unless one with as many candidates is there already, or it is larger than the cache."""
        if _nbytes(key, prediction) > self.max_bytes:  # nothing would be left of the others, nor of it
            return
        # Copied, since a view would keep the whole array that it is a part of.
        kept = replace(prediction, logits=prediction.logits.copy(), iou=prediction.iou.copy())
        with self._lock:
            present = self._entries.pop(key, None)
            if present is not None:
                self.nbytes -= _nbytes(key, present)
                if len(present.iou) >= len(kept.iou):
                    kept = present
            self._entries[key] = kept
            self.nbytes += _nbytes(key, kept)
            while self.nbytes > self.max_bytes:
                self.nbytes -= _nbytes(*self._entries.popitem(last=False))


def _nbytes(key: PrefixKey, prediction: Prediction) -> int:
    return sum(map(sys.getsizeof, key)) + prediction.logits.nbytes + prediction.iou.nbytes + _ENTRY_BYTES
