"""Follows objects without memory: what was found on earlier frames is handed over to the next one as its prompt.

For models whose weights know single images only. Their embeddings tell places of a picture from one another well enough
to find an object again: each token of a frame is compared with those of the prompted frames, wherever they are, and of
the last few frames, near the same place; the tokens that it resembles most vote whether it is the object's. What they
say, enlarged, is the mask prompt, and its bounds are the box, from which the mask decoder finds the object's edges.

What is remembered of a frame is its embedding in place of a memory: a row for each token, its features and last the
share of the token that is the object's. On followed frames that is the share of votes, not of the mask: where the mask
decoder errs, its errors would be handed on and grow. These shares stand for the object pointer, too.
"""

from dataclasses import replace

import cv2
import numpy as np
from maskwire_core.models.decoder_bundle import DecoderBundle
from maskwire_core.models.tracker_bundle import TrackerBundle, TrackerConfig
from numpy.typing import NDArray

from maskwire_tracker.predictor import Frame, Inputs, TrackerPredictor
from maskwire_tracker.remembered import Floats, HalfBits, Points, Remembered, to_bf16
from maskwire_tracker.selection import Recalled
from maskwire_tracker.track import BOX_LABELS

_MEMORIES = 5  # that of a prompted frame, and of the last four
_REACH = 6  # tokens, in each direction, within which a frame before is looked at
_MARGIN = 5  # tokens around the last place of the object where it is looked for
_VOTES = 8  # tokens that decide on one
_TEMPERATURE = np.float32(0.07)  # of their votes, by cosine similarity
_FEWEST = 12  # pixels of a low-resolution mask below which there is no object
_MAJORITY = np.float32(0.5)
_SHARP = np.float32(20)  # logits for a share of votes of 1, less those of a majority
_LIKELY = 0.25  # share of a token above which it may be the object's

_TOKEN = 4  # pixels of a low-resolution mask along a side of a token
_VISIBLE, _GONE = 10.0, -10.0  # object scores


class HandOverPredictor(TrackerPredictor):
    """Stands for a `TrackerPredictor` where there is no memory.

    Args:
        bundle: The exported mask decoder.
        threads: CPU threads of a run.
    """

    def __init__(self, bundle: DecoderBundle, threads: int) -> None:
        self._side = bundle.config.mask_size // _TOKEN
        config = TrackerConfig(
            decoder=bundle.config,
            memories=_MEMORIES,
            memory_channels=1,
            pointers=1,
            signed_distances=False,
            past_pointers_only=False,  # `distances` begins with that of each prompted frame
            candidates_when_prompted=True,
            candidates_when_tracking=False,
            fewest_points_of_candidates=0,
            most_points_of_candidates=1,
            pointer_of_candidate=False,
            no_object_pointer=(0.0,) * self._side**2,
        )
        super().__init__(TrackerBundle(config, bundle.graphs, bundle.weights), threads)

    def prepare(self, index: int, tensors: Inputs) -> Frame:
        features = tensors["image_embed"].astype(np.float32)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        return Frame(index, self._image(tensors), features)

    def decode(
        self, frame: Frame, recalled: Recalled | None, points: Points | None = None, before: Floats | None = None
    ) -> Remembered:
        if points is not None or recalled is None:
            found = super().decode(frame, None, points, before)
            return replace(found, pointer=self._covered(found.logits))
        size = self.config.decoder.mask_size
        votes = _votes(_features(frame), recalled, self._side)
        coarse = votes.reshape(self._side, self._side)
        likely = np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
        inside = likely > _MAJORITY
        if np.count_nonzero(inside) < _FEWEST:
            return self._there(likely, votes, _GONE)
        rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        corners = [[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]]
        scale = np.float32(self.config.decoder.image_size / size)
        box = Points(np.array(corners, np.float32) * scale, np.array(BOX_LABELS))
        return replace(super().decode(frame, None, box, _SHARP * (likely - _MAJORITY)), pointer=votes)

    def take(self, frame: Frame, mask: NDArray[np.bool_], low: Floats) -> Remembered:
        return Remembered(self._covered(low), _VISIBLE if mask.any() else _GONE, low)

    def memorize(self, frame: Frame, seen: Remembered, prompted: bool) -> HalfBits:
        return to_bf16(np.concatenate([_features(frame), seen.pointer[:, None]], axis=1))

    def _pointer(self, given: Inputs, candidates: bool) -> Floats:
        return self._no_object

    def _covered(self, logits: Floats | None) -> Floats:
        """Returns the share of each token that a mask covers, (N,)."""
        assert logits is not None
        inside = (logits > 0).reshape(self._side, _TOKEN, self._side, _TOKEN)
        shares: Floats = inside.mean((1, 3), dtype=np.float32).reshape(-1)
        return shares


def _features(frame: Frame) -> Floats:
    if frame.features is None:
        raise RuntimeError("the frame was prepared by another predictor")
    return frame.features


def _votes(features: Floats, recalled: Recalled, side: int) -> Floats:
    """Returns for each token of a frame the share of votes that it is the object's, (N,).

    Args:
        features: Of the frame, (N, C), of length 1.
        recalled: What is recalled of the object.
        side: Tokens along each side of the frame.
    """
    is_prompted = recalled.places == _MEMORIES - 1
    away = np.where(is_prompted, 0, recalled.places + 1).astype(np.float32)
    away[is_prompted] = recalled.distances
    last = recalled.memories[away.argmin()][:, -1].reshape(side, side) >= _LIKELY
    asked, found = np.arange(len(features)), np.zeros(len(features), np.float32)
    rows, columns = np.divmod(asked, side)
    if last.any():  # else it may be anywhere
        seen = [np.flatnonzero(last.any(axis=axis)) for axis in (1, 0)]
        near = [
            (at >= on[0] - _MARGIN) & (at <= on[-1] + _MARGIN) for at, on in zip((rows, columns), seen, strict=True)
        ]
        asked = np.flatnonzero(near[0] & near[1])
    alike, says = [], []
    for memory, prompted in zip(recalled.memories, is_prompted, strict=True):
        if not prompted and not (memory[:, -1] >= _LIKELY).any():
            continue  # where it was lost, it would look like what is not the object
        similar = features[asked] @ memory[:, :-1].T
        if not prompted and last.any():
            apart = [np.abs(at[asked, None] - at[None]) > _REACH for at in (rows, columns)]
            similar[apart[0] | apart[1]] = -1
        most = np.argpartition(-similar, _VOTES - 1, axis=1)[:, :_VOTES]
        alike.append(np.take_along_axis(similar, most, axis=1))
        says.append(memory[:, -1][most])
    similar, covered = np.concatenate(alike, axis=1), np.concatenate(says, axis=1)
    most = np.argpartition(-similar, _VOTES - 1, axis=1)[:, :_VOTES]
    weights = np.exp(np.take_along_axis(similar, most, axis=1) / _TEMPERATURE)
    found[asked] = (weights * np.take_along_axis(covered, most, axis=1)).sum(axis=1) / weights.sum(axis=1)
    return found
