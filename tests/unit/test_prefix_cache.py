"""The cache of predictions by the steps that led to them."""

import numpy as np
from maskwire_decoder.prefix_cache import PrefixCache
from maskwire_decoder.prompts.encoding import Prediction


def prediction(candidates: int = 1, side: int = 16) -> Prediction:
    return Prediction(np.ones((candidates, side, side), np.float32), np.ones(candidates, np.float32), 1.0)


def test_the_least_recently_used_prediction_leaves_and_the_bytes_are_right() -> None:
    cache = PrefixCache(1 << 20)
    for index in range(3):
        cache.put(("a", "b", bytes([index])), prediction())
    each = cache.nbytes // 3
    cache = PrefixCache(2 * each)
    for index in range(2):
        cache.put(("a", "b", bytes([index])), prediction())
    assert cache.get(("a", "b", b"\0")) is not None
    cache.put(("a", "b", b"\2"), prediction())
    assert [cache.get(("a", "b", bytes([index]))) is None for index in range(3)] == [False, True, False]
    assert cache.nbytes == 2 * each
    assert cache.get(("other", "b", b"\0")) is None
    cache.put(("a", "b", b"\3"), prediction(side=64))  # larger than all of it
    assert cache.get(("a", "b", b"\3")) is None
    assert cache.nbytes == 2 * each  # and nothing left for it


def test_a_prediction_with_more_candidates_replaces_one_with_fewer() -> None:
    cache, key = PrefixCache(1 << 20), ("a", "b", b"c")
    cache.put(key, prediction(3))
    full = cache.nbytes
    cache.put(key, prediction(1))
    kept = cache.get(key)
    assert kept is not None
    assert (len(kept.iou), cache.nbytes) == (3, full)
    view = Prediction(np.ones((2, 16, 16), np.float32)[:1], np.ones(1, np.float32), 1.0)
    cache.put(("a", "b", b"d"), view)
    kept = cache.get(("a", "b", b"d"))
    assert kept is not None
    assert kept.logits.base is None  # or it would keep twice its own bytes
