"""Follows objects without memory: what was found on earlier frames is handed over to the next one as its prompt.

For models whose weights know single images only. Their embeddings tell places of a picture from one another well enough
to find an object again. First its surface is aligned with the frame, as it was prompted and as it was on the frame
before (`surface.py`), which finds what keeps its shape to a few pixels. Where that does not fit, tokens vote: each
token of the frame is compared with those of the prompted frames, wherever they are, and of the last few frames, near
the same place; the tokens that it resembles most vote whether it is the object's. What they say, enlarged, or the
aligned mask, is the mask prompt, and its bounds are the box, from which the mask decoder finds the object's edges.

What is remembered of a frame is what it looks like in place of a memory: see `surface.View`. The object pointer is the
share of each token that is the object's, and the surface's motion. On followed frames shares are those of the aligned
mask or of votes, not of the mask that is answered: where the mask decoder errs, its errors would be handed on and grow.
"""

from dataclasses import replace

import cv2
import numpy as np
from maskwire_core.models.decoder_bundle import DecoderBundle
from maskwire_core.models.tracker_bundle import TrackerBundle, TrackerConfig
from numpy.typing import NDArray

from maskwire_tracker.alignment import Motion, motion_of
from maskwire_tracker.predictor import Frame, Inputs, TrackerPredictor
from maskwire_tracker.remembered import Floats, HalfBits, Points, Remembered, to_bf16
from maskwire_tracker.selection import Recalled
from maskwire_tracker.surface import MAJORITY, PARTS, View, features_of, find_again, follow, parts_of
from maskwire_tracker.track import BOX_LABELS

_MEMORIES = 5  # that of a prompted frame, and of the last four
_REACH = 6  # tokens, in each direction, within which a frame before is looked at
_MARGIN = 5  # tokens around the last place of the object where it is looked for
_VOTES = 8  # tokens that decide on one
_TEMPERATURE = np.float32(0.07)  # of their votes, by cosine similarity
_FEWEST = 12  # pixels of a low-resolution mask below which there is no object
_SHARP = np.float32(20)  # logits for a share of 1, less those of a majority, in the mask prompt
_KEPT = np.float32(6)  # likewise, what an aligned mask adds to the logits of the mask decoder
_LIKELY = 0.25  # share of a token above which it may be the object's

_TOKEN = 4  # pixels of a low-resolution mask along a side of a token
_VISIBLE, _GONE = 10.0, -10.0  # object scores

_UNKNOWN = -1.0  # in place of the index of the prompted frame: the surface was not found
_STATE = 5  # numbers of a pointer behind the shares: the motion, and the index of the frame from which it leads


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
            pointers=2,  # of prompted frames, and of the last one
            signed_distances=False,
            past_pointers_only=False,  # `distances` begins with that of each prompted frame
            candidates_when_prompted=True,
            candidates_when_tracking=False,
            fewest_points_of_candidates=0,
            most_points_of_candidates=1,
            pointer_of_candidate=False,
            no_object_pointer=(0.0,) * (self._side**2 + _STATE - 1) + (_UNKNOWN,),
        )
        super().__init__(TrackerBundle(config, bundle.graphs, bundle.weights), threads)

    def prepare(self, index: int, tensors: Inputs) -> Frame:
        return Frame(index, self._image(tensors), features_of(tensors))

    def decode(
        self, frame: Frame, recalled: Recalled | None, points: Points | None = None, before: Floats | None = None
    ) -> Remembered:
        if points is not None or recalled is None:
            found = super().decode(frame, None, points, before)
            return replace(found, pointer=self._prompted(frame, found.logits))
        likely, pointer, is_aligned = self._look(View(_features(frame), _channels(frame)), recalled)
        inside = likely > MAJORITY
        if np.count_nonzero(inside) < _FEWEST:
            return self._there(likely, pointer, _GONE)
        rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        corners = [[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]]
        scale = np.float32(self.config.decoder.image_size / self.config.decoder.mask_size)
        box = Points(np.array(corners, np.float32) * scale, np.array(BOX_LABELS))
        found = super().decode(frame, None, box, _SHARP * (likely - MAJORITY))
        if is_aligned and found.logits is not None:
            found = replace(found, logits=found.logits + _KEPT * (likely - MAJORITY))
        return replace(found, pointer=pointer)

    def take(self, frame: Frame, mask: NDArray[np.bool_], low: Floats) -> Remembered:
        return Remembered(self._prompted(frame, low), _VISIBLE if mask.any() else _GONE, low)

    def memorize(self, frame: Frame, seen: Remembered, prompted: bool) -> HalfBits:
        if prompted and seen.logits is not None:
            parts = parts_of(seen.logits > 0)
        else:
            parts = np.repeat(seen.pointer[:-_STATE, None], PARTS, axis=1)
        return to_bf16(np.concatenate([_features(frame), parts], axis=1))

    def _pointer(self, given: Inputs, candidates: bool) -> Floats:
        return self._no_object

    def _prompted(self, frame: Frame, logits: Floats | None) -> Floats:
        assert logits is not None
        shares = parts_of(logits > 0).mean(axis=1)
        return np.concatenate([shares, _state(np.eye(3), frame.index)])

    def _look(self, view: View, recalled: Recalled) -> tuple[Floats, Floats, bool]:
        """Returns where an object is likely to be on a frame (S, S), its pointer, and whether its surface was found."""
        surface = self._surface(view, recalled)
        if surface is None:
            votes = _votes(view, recalled)
            size, coarse = self.config.decoder.mask_size, votes.reshape(self._side, self._side)
            likely = np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
            surface = self._found_again(view, recalled, likely)
            if surface is None:
                return likely, np.concatenate([votes, _state(np.eye(3), _UNKNOWN)]), False
        motion, reference, seen = surface
        return seen, np.concatenate([parts_of(seen > MAJORITY).mean(axis=1), _state(motion, reference)]), True

    def _surface(self, view: View, recalled: Recalled) -> tuple[Motion, float, Floats] | None:
        """Aligns an object's surface from where it was on the frame before. Returns its motion from a prompted frame,
        that frame's index, and the mask that is seen of it."""
        count, index = _prompted_frames(recalled)
        last, motion = None, np.eye(3)
        if len(recalled.pointers) > count:  # the frame before was followed
            a, b, x, y, reference = recalled.pointers[count][-_STATE:].astype(np.float64)
            known = np.flatnonzero(recalled.pointers[:count, -1] == reference)
            (rows,) = recalled.memories[recalled.places == 0]
            if not len(known):
                return None
            last, motion, index = View(rows, view.channels), motion_of(complex(a, b), complex(x, y)), int(known[0])
        found = follow(view, View(recalled.memories[index], view.channels), last, motion)
        return None if found is None else (found[0], float(recalled.pointers[index, -1]), found[1])

    def _found_again(self, view: View, recalled: Recalled, likely: Floats) -> tuple[Motion, float, Floats] | None:
        if not (likely > MAJORITY).any():
            return None
        _, index = _prompted_frames(recalled)
        found = find_again(view, View(recalled.memories[index], view.channels), likely)
        return None if found is None else (found[0], float(recalled.pointers[index, -1]), found[1])


def _prompted_frames(recalled: Recalled) -> tuple[int, int]:
    """Returns how many of the memories are of prompted frames, which come first, and which of them is the nearest."""
    count = int(np.count_nonzero(recalled.places == _MEMORIES - 1))
    return count, int(recalled.distances[:count].argmin())


def _state(motion: Motion, reference: float) -> Floats:
    """Returns what a pointer keeps of a surface."""
    return np.array([motion[0, 0], motion[1, 0], motion[0, 2], motion[1, 2], reference], np.float32)


def _channels(frame: Frame) -> int:
    """Channels of a frame's image embedding."""
    return int(_features(frame).shape[1]) // 4


def _features(frame: Frame) -> Floats:
    if frame.features is None:
        raise RuntimeError("the frame was prepared by another predictor")
    return frame.features


def _votes(view: View, recalled: Recalled) -> Floats:
    """Returns for each token of a frame the share of votes that it is the object's, (N,).

    Args:
        view: The frame.
        recalled: What is recalled of the object.
    """
    features, side = view.tokens, view.side
    seen_before = [View(rows, view.channels) for rows in recalled.memories]
    is_prompted = recalled.places == _MEMORIES - 1
    away = np.where(is_prompted, 0, recalled.places + 1).astype(np.float32)
    away[is_prompted] = recalled.distances[: np.count_nonzero(is_prompted)]
    last = seen_before[int(away.argmin())].shares.reshape(side, side) >= _LIKELY
    asked, found = np.arange(len(features)), np.zeros(len(features), np.float32)
    rows, columns = np.divmod(asked, side)
    if last.any():  # else it may be anywhere
        seen = [np.flatnonzero(last.any(axis=axis)) for axis in (1, 0)]
        near = [
            (at >= on[0] - _MARGIN) & (at <= on[-1] + _MARGIN) for at, on in zip((rows, columns), seen, strict=True)
        ]
        asked = np.flatnonzero(near[0] & near[1])
    alike, says = [], []
    for before, prompted in zip(seen_before, is_prompted, strict=True):
        if not prompted and not (before.shares >= _LIKELY).any():
            continue  # where it was lost, it would look like what is not the object
        similar = features[asked] @ before.tokens.T
        if not prompted and last.any():
            apart = [np.abs(at[asked, None] - at[None]) > _REACH for at in (rows, columns)]
            similar[apart[0] | apart[1]] = -1
        most = np.argpartition(-similar, _VOTES - 1, axis=1)[:, :_VOTES]
        alike.append(np.take_along_axis(similar, most, axis=1))
        says.append(before.shares[most])
    similar, covered = np.concatenate(alike, axis=1), np.concatenate(says, axis=1)
    most = np.argpartition(-similar, _VOTES - 1, axis=1)[:, :_VOTES]
    weights = np.exp(np.take_along_axis(similar, most, axis=1) / _TEMPERATURE)
    found[asked] = (weights * np.take_along_axis(covered, most, axis=1)).sum(axis=1) / weights.sum(axis=1)
    return found
