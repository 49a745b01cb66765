"""Follows objects without memory: the mask and the box of a frame are the prompt of the next one.

For models whose weights know single images only. It loses objects that turn, vanish or pass behind others much sooner
than a trained memory does.
"""

from dataclasses import dataclass

import numpy as np
from maskwire_core.models.decoder_bundle import DecoderBundle
from maskwire_core.models.tracker_bundle import TrackerBundle, TrackerConfig
from numpy.typing import NDArray

from maskwire_tracker.predictor import Frame, Inputs, TrackerPredictor
from maskwire_tracker.remembered import Floats, HalfBits, Points, Remembered, TrackedObject
from maskwire_tracker.selection import Recalled
from maskwire_tracker.track import BOX_LABELS, Track

_FARTHEST = 16  # frames back to the last one on which the object was seen
_NO_POINTER = np.zeros(1, np.float32)
_NO_MEMORY = np.zeros((0, 0), np.uint16)


class HandOverPredictor(TrackerPredictor):
    """Stands for a `TrackerPredictor` where there is no memory.

    Args:
        bundle: The exported mask decoder.
        threads: CPU threads of a run.
    """

    def __init__(self, bundle: DecoderBundle, threads: int) -> None:
        config = TrackerConfig(
            decoder=bundle.config,
            memories=1,
            memory_channels=1,
            pointers=1,
            signed_distances=False,
            past_pointers_only=True,
            candidates_when_prompted=True,
            candidates_when_tracking=False,
            fewest_points_of_candidates=0,
            most_points_of_candidates=1,
            pointer_of_candidate=False,
            no_object_pointer=(0.0,),
        )
        super().__init__(TrackerBundle(config, bundle.graphs, bundle.weights), threads)

    def prepare(self, index: int, tensors: Inputs) -> Frame:
        return Frame(index, self._image(tensors))

    def take(self, frame: Frame, mask: NDArray[np.bool_], low: Floats) -> Remembered:
        return Remembered(_NO_POINTER, 10.0 if mask.any() else -10.0, low)

    def memorize(self, frame: Frame, seen: Remembered, prompted: bool) -> HalfBits:
        return _NO_MEMORY

    def _pointer(self, given: Inputs, candidates: bool) -> Floats:
        return _NO_POINTER


@dataclass
class HandOverTrack(Track):
    """A `Track` whose frames are prompted with what was found on the frame before."""

    def _recall(self, tracked: TrackedObject, frame: int, backwards: bool) -> Recalled | None:
        return None

    def _find(self, tracked: TrackedObject, frame: Frame, backwards: bool) -> Remembered:
        before = self._last_seen(tracked, frame.index, 1 if backwards else -1)
        if before is None or before.logits is None:
            logits = np.full((self.predictor.config.decoder.mask_size,) * 2, -1024, np.float32)
            return Remembered(_NO_POINTER, -10.0, logits)
        rows, columns = (np.flatnonzero((before.logits > 0).any(axis=axis)) for axis in (1, 0))
        corners = [[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]]
        scale = self.predictor.config.decoder.image_size / self.predictor.config.decoder.mask_size
        box = Points(np.array(corners, np.float32) * np.float32(scale), np.array(BOX_LABELS))
        return self.predictor.decode(frame, None, box, before.logits)

    def _last_seen(self, tracked: TrackedObject, index: int, step: int) -> Remembered | None:
        """Returns the object on the nearest frame on which it has a mask."""
        for time in range(index + step, index + step * (_FARTHEST + 1), step):
            seen = tracked.followed.get(time) or tracked.prompted.get(time)
            if seen is not None and seen.logits is not None and (seen.logits > 0).any():
                return seen
        return None
