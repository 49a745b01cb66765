"""One model's mask decoder in ONNX Runtime."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from maskwire_core.bundle import BEST, DecoderBundle
from numpy.typing import NDArray
from onnxruntime import InferenceSession, OrtValue, SessionOptions

from maskwire_decoder.prompts import Prompt

# Labels of the prompt encoder beside 0 and 1 (sam2.modeling.sam.prompt_encoder).
_PADDING, _BOX_MIN, _BOX_MAX = -1, 2, 3
_MOST_FOLDED = 10  # points above which projecting image tokens costs less than folding them into the prompt's

Prepared = Mapping[str, NDArray[np.float32]]
"""What every prompt on an image needs, by the names of the graphs' inputs."""
_ALWAYS = ("tokens", "fine_1", "fine_0")
_IMAGE_INPUTS = {"click": (*_ALWAYS, "keys", "values", "queries"), "refine": _ALWAYS, "plain": _ALWAYS}


@dataclass(frozen=True)
class Prediction:
    """The masks of one prompt that were asked for, in the model's order.

    Attributes:
        logits: CxSxS fp32, not clamped.
        iou: C fp32, the model's predictions.
        object_score: Logit of "there is an object".
    """

    logits: NDArray[np.float32]
    iou: NDArray[np.float32]
    object_score: float

    @property
    def best(self) -> NDArray[np.float32]:
        """SxS logits of the mask with the highest predicted IoU."""
        best: NDArray[np.float32] = self.logits[int(self.iou.argmax())]
        return best


class Predictor:
    """Answers prompts as `SAM2ImagePredictor.predict` does. Safe to call from several threads.

    Args:
        bundle: The exported decoder.
        threads: CPU threads of a decode while no other is running; one each where several are.
    """

    def __init__(self, bundle: DecoderBundle, threads: int) -> None:
        self.config = bundle.config
        self.candidates = BEST - 1
        self._bundle = bundle
        self._threads = threads
        self._weights = {name: OrtValue.ortvalue_from_numpy(array) for name, array in bundle.weights.items()}
        self._sessions: dict[tuple[str, int], InferenceSession] = {}
        self._opening, self._lock = threading.Lock(), threading.Lock()
        self._running = 0
        self._session("click", threads)

    def prepare(self, tensors: Mapping[str, NDArray[Any]]) -> Prepared:
        """What every prompt on an image needs.

        Args:
            tensors: A stored embedding, fp16 or fp32, in its layout.
        """
        half = all(tensor.dtype == np.float16 for tensor in tensors.values())
        session = self._session("image_fp16" if half else "image_fp32", self._threads)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(tensors)), strict=True))

    def predict(
        self,
        image: Prepared,
        prompt: Prompt,
        width: int,
        height: int,
        *,
        multimask: bool = True,
        every: bool = True,
    ) -> Prediction:
        """Decodes one prompt.

        Args:
            image: As `prepare` made it.
            prompt: In pixels of the image.
            width: Of the image, in pixels.
            height: Likewise.
            multimask: The three candidates; otherwise the single mask, or the best of three where that is unstable.
            every: All of these instead of the one with the highest predicted IoU.
        """
        with self._lock:
            self._running += 1
            # Decodes beside each other use the cores better with a thread each.
            threads = self._threads if self._running == 1 else 1
        try:
            return self._predict(image, prompt, width, height, multimask, every, threads)
        finally:
            with self._lock:
                self._running -= 1

    def _predict(
        self, image: Prepared, prompt: Prompt, width: int, height: int, multimask: bool, every: bool, threads: int
    ) -> Prediction:
        points, labels = self._tokens(prompt, width, height)
        inputs: dict[str, NDArray[Any]] = {"points": points, "labels": labels}
        if len(labels) > _MOST_FOLDED:
            graph = "plain"
        elif prompt.mask is not None:
            graph = "refine"
        else:
            graph = "click"
        inputs |= {name: image[name] for name in _IMAGE_INPUTS[graph]}
        if prompt.mask is not None:
            (inputs["tokens"],) = self._session("mask", threads).run(
                None, {"tokens": image["tokens"], "mask": prompt.mask}
            )
        if multimask:
            wanted = [*range(1, BEST)] if every else [BEST]
        else:
            wanted = [0, BEST] if self.config.dynamic_multimask else [0]
        inputs["masks"] = np.array(wanted)
        logits, iou, object_score = self._session(graph, threads).run(["logits", "iou", "object_score"], inputs)
        scores = np.array([iou[1:].max() if index == BEST else iou[index] for index in wanted], np.float32)
        if not multimask:
            stable = len(wanted) == 1 or self._stability(logits[0]) >= self.config.stability_threshold
            keep = slice(0, 1) if stable else slice(1, 2)
            logits, scores = logits[keep], scores[keep]
        return Prediction(logits, scores, float(object_score[0]))

    def _tokens(self, prompt: Prompt, width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Points and labels as the prompt encoder takes them: a box's corners, then points, then a padding point."""
        points, labels = prompt.points, prompt.labels
        if prompt.box is not None:
            points = np.concatenate([prompt.box.reshape(2, 2), points])
            labels = np.concatenate([np.array([_BOX_MIN, _BOX_MAX]), labels])
        elif not len(labels):
            if prompt.mask is not None:
                return points, labels  # as SAM2ImagePredictor: a mask alone has no points, not even padding
            points, labels = np.zeros((1, 2), np.float32), np.array([_PADDING])
        scaled = points / np.array([width, height], np.float32) * np.float32(self.config.image_size)
        return (
            np.concatenate([scaled, np.zeros((1, 2), np.float32)]),
            np.concatenate([labels, np.array([_PADDING])]).astype(np.int64),
        )

    def _stability(self, logits: NDArray[np.float32]) -> float:
        """IoU of the masks at slightly raised and lowered thresholds (MaskDecoder._get_stability_scores)."""
        inner = np.float32(np.count_nonzero(logits > self.config.stability_delta))
        outer = np.float32(np.count_nonzero(logits > -self.config.stability_delta))
        return float(inner / outer) if outer else 1.0

    def _session(self, graph: str, threads: int) -> InferenceSession:
        """Sessions of graphs that few prompts need are opened when one does."""
        with self._opening:
            session = self._sessions.get((graph, threads))
            if session is None:
                session = self._sessions[graph, threads] = self._open(graph, threads)
            return session

    def _open(self, graph: str, threads: int) -> InferenceSession:
        options = SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads that spin would take the cores from the other workers and from making masks.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = self._bundle.graphs[graph]
        options.add_external_initializers(list(wanted.weights), [self._weights[name] for name in wanted.weights])
        return InferenceSession(wanted.model, options, providers=["CPUExecutionProvider"])
