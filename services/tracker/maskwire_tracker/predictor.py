"""One model's tracker in ONNX Runtime: each step of `SAM2Base.track_step` on one frame and one object."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from maskwire_core.models.decoder_bundle import BEST, MOST_FOLDED
from maskwire_core.models.tracker_bundle import TrackerBundle
from numpy.typing import NDArray

from maskwire_tracker.remembered import Floats, HalfBits, Points, Remembered, to_bf16
from maskwire_tracker.runtimes import choose
from maskwire_tracker.selection import Recalled

_NO_OBJECT = np.float32(-1024)  # sam2_base.NO_OBJ_SCORE: logits of an object that is not there
_PADDING = Points(np.zeros((1, 2), np.float32), np.array([-1]))
_CLAMP = 32.0  # of logits that are fed back

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Frame:
    """What all objects on a frame share, by the names of the graphs' inputs."""

    index: int
    inputs: Inputs
    features: Floats | None = None  # where masks are handed over: see `surface.features_of`

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""
        values = self.inputs.values()
        return sum(value.nbytes for value in values) + (0 if self.features is None else self.features.nbytes)


class TrackerPredictor:
    """Runs a tracker's graphs. May be used from several threads.

    Args:
        bundle: The exported tracker.
        threads: CPU threads of a run.
        cuda: Whether to take CUDA; see `choose`.

    Raises:
        CorruptValue: A graph would read files; see `check_graph`.

    Attributes:
        config: The model's configuration.
    """

    def __init__(self, bundle: TrackerBundle, threads: int, cuda: bool = False) -> None:
        self.config = bundle.config
        self._threads = threads
        self._sessions = choose(bundle, threads, cuda)
        self._no_object = np.array(bundle.config.no_object_pointer, np.float32)

    def prepare(self, index: int, tensors: Inputs) -> Frame:
        """Computes what all objects on a frame share.

        Args:
            index: Index of the frame.
            tensors: Its stored embedding, fp16 or fp32, in its layout.
        """
        image = self._image(tensors)
        whole = {"image_embed": tensors["image_embed"].astype(np.float32)}
        return Frame(index, image | self._run("frame", whole))

    def decode(
        self, frame: Frame, recalled: Recalled | None, points: Points | None = None, before: Floats | None = None
    ) -> Remembered:
        """Finds an object on a frame; the result has no memory yet.

        Args:
            frame: The frame.
            recalled: What it recalls of the object; None if this is the object's first prompt on a frame that was not
                followed, which is answered like a prompt on a picture.
            points: Points on the object; None if it is followed.
            before: Logits of the object's mask on this frame so far (S, S), which the points correct.
        """
        config, inputs = self.config, dict(frame.inputs)
        if recalled is not None:
            inputs["tokens"] = self._run("recall", {**inputs, **vars(recalled)})["tokens"]
        if before is not None:
            mask = {"tokens": inputs["tokens"], "mask": before.clip(-_CLAMP, _CLAMP)[None]}
            inputs["tokens"] = self._run("mask", mask)["with_mask"]
        count = 0 if points is None else len(points.labels)
        enough = config.fewest_points_of_candidates <= count <= config.most_points_of_candidates
        wanted = config.candidates_when_prompted and (recalled is None or config.candidates_when_tracking)
        projected = recalled is None and before is None
        found = self._prompt(inputs, points, wanted and enough, projected)
        return self._there(*found)

    def take(self, frame: Frame, mask: NDArray[np.bool_], low: Floats) -> Remembered:
        """Takes a mask as the object on a frame, as `SAM2Base._use_mask_as_output` does.

        Args:
            frame: The frame.
            mask: The mask at the model's input size.
            low: Its logits at low resolution (S, S); see `given_masks`.
        """
        given = {"tokens": frame.inputs["tokens"], "given": mask[None, None].astype(np.float32)}
        tokens = self._run("given_mask", given)["with_mask"]
        found = self._prompt({**frame.inputs, "tokens": tokens}, None, False, projected=False)
        pointer = self._there(*found).pointer
        score = 10.0 if mask.any() else -10.0
        return Remembered(pointer if score > 0 else self._no_object, score, low)

    def memorize(self, frame: Frame, seen: Remembered, prompted: bool) -> HalfBits:
        """Encodes the memory of an object on a frame (N, D).

        Args:
            frame: The frame.
            seen: The object on it, with its logits.
            prompted: Whether the frame was prompted; of its mask only the sign is remembered
                (binarize_mask_from_pts_for_mem_enc).
        """
        if seen.logits is None:
            raise RuntimeError("the logits of this frame were dropped")
        inputs = {
            **frame.inputs,
            "logits": seen.logits[None, None],
            "object_score": np.array([seen.object_score], np.float32),
            "binary": np.array([prompted], np.float32),
        }
        return to_bf16(self._run("memorize", inputs)["memory"])

    def _image(self, tensors: Inputs) -> dict[str, NDArray[Any]]:
        """Computes what every prompt on a frame needs."""
        half = all(tensor.dtype == np.float16 for tensor in tensors.values())
        return self._run("image_fp16" if half else "image_fp32", tensors)

    def _prompt(
        self, inputs: Inputs, points: Points | None, candidates: bool, projected: bool
    ) -> tuple[Floats, Floats, float]:
        """Runs the mask decoder. Returns logits (S, S), pointer and object score.

        Args:
            inputs: The frame's, with `tokens` that include memories and a mask.
            points: Points, if there are any.
            candidates: Whether to take the best of three masks.
            projected: Whether the frame's tokens are as `prepare` gave them.
        """
        config = self.config.decoder
        padded = (points or _PADDING).with_more(_PADDING)
        if candidates:
            masks = [BEST]
        else:
            masks = [0, BEST] if config.dynamic_multimask else [0]
        graph = "plain" if len(padded.labels) > MOST_FOLDED else "click" if projected else "refine"
        prompt: Inputs = {"points": padded.places, "labels": padded.labels, "masks": np.array(masks)}
        given = self._run(graph, {**inputs, **prompt})
        logits = given["logits"]
        chosen = 0
        if len(masks) > 1 and self._stability(logits[0]) < config.stability_threshold:
            chosen = 1
        return logits[chosen], self._pointer(given, candidates), float(given["object_score"][0])

    def _pointer(self, given: Inputs, candidates: bool) -> Floats:
        """Returns the object pointer, from the outputs of the mask decoder."""
        use_best = candidates and self.config.pointer_of_candidate
        pointer: Floats = given["pointers"][1 + int(given["iou"][1:].argmax()) if use_best else 0]
        return pointer

    def _there(self, logits: Floats, pointer: Floats, object_score: float) -> Remembered:
        """Returns what is remembered of an object that may be gone."""
        if object_score > 0:
            return Remembered(pointer, object_score, logits)
        return Remembered(self._no_object, object_score, np.full_like(logits, _NO_OBJECT))

    def _stability(self, logits: Floats) -> float:
        """Returns the stability score of a mask (MaskDecoder._get_stability_scores)."""
        delta = self.config.decoder.stability_delta
        inner, outer = np.count_nonzero(logits > delta), np.count_nonzero(logits > -delta)
        return float(np.float32(inner) / np.float32(outer)) if outer else math.inf

    def _run(self, graph: str, inputs: Inputs) -> dict[str, NDArray[Any]]:
        return self._sessions.run(graph, self._threads, inputs)
