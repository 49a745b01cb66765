"""Objects without memory: tokens of frames vote on where an object is."""

import numpy as np
from maskwire_tracker.hand_over import _MEMORIES, _votes
from maskwire_tracker.selection import Recalled
from maskwire_tracker.surface import PARTS, View
from numpy.typing import NDArray

SIDE, CHANNELS = 8, 16
PROMPTED = _MEMORIES - 1


def picture(at: int, hidden: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features of tokens of which the object's two resemble one another, and which of them are the object's."""
    random = np.random.default_rng(0)
    features = random.standard_normal((SIDE * SIDE, CHANNELS)).astype(np.float32)
    covered = np.zeros(SIDE * SIDE, np.float32)
    if not hidden:
        features[at : at + 2] = 3 * random.standard_normal(CHANNELS)
        covered[at : at + 2] = 1
    return features / np.linalg.norm(features, axis=1, keepdims=True), covered


def recalled(*memories: tuple[NDArray[np.float32], NDArray[np.float32], int, float]) -> Recalled:
    """Memories as features, shares and places, and distances of those that were prompted."""
    rows = [
        np.concatenate([features, np.repeat(covered[:, None], PARTS, axis=1)], axis=1)
        for features, covered, *_ in memories
    ]
    places = np.array([place for _, _, place, _ in memories])
    distances = np.array([away for _, _, place, away in memories if place == PROMPTED], np.float32)
    return Recalled(np.stack(rows), places, np.zeros((len(distances), 1), np.float32), distances)


def where(features: NDArray[np.float32], known: Recalled) -> list[int]:
    return np.flatnonzero(_votes(View(features, CHANNELS), known) > 0.5).tolist()


def test_tokens_follow_what_they_resemble() -> None:
    before, after = picture(18), picture(20)
    assert where(after[0], recalled((*before, PROMPTED, 1))) == [20, 21]


def test_an_object_is_found_again_anywhere() -> None:
    """It was lost on the last frame, where it stood without being seen as such: that frame does not vote."""
    first, lost, now = picture(9), picture(52), picture(52)
    unseen = lost[0], np.zeros_like(lost[1])
    assert where(now[0], recalled((*first, PROMPTED, 9), (*unseen, 0, 0))) == [52, 53]


def test_an_object_behind_another_is_nowhere() -> None:
    first, hidden = picture(9), picture(0, hidden=True)
    assert where(hidden[0], recalled((*first, PROMPTED, 3))) == []
