"""One model's mask decoder in ONNX Runtime."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from maskwire_core.bundle import DecoderBundle
from numpy.typing import NDArray

from maskwire_decoder.prompts import Prompt

# Labels of the prompt encoder beside 0 and 1 (sam2.modeling.sam.prompt_encoder).
_PADDING, _BOX_MIN, _BOX_MAX = -1, 2, 3
_CANDIDATES = 3  # num_multimask_outputs, fixed in SAM2Base._build_sam_heads


@dataclass(frozen=True)
class Prediction:
    """Candidate masks of one prompt, in the model's order.

    Attributes:
        logits: CxSxS fp32, not clamped.
        iou: C fp32, the model's predictions.
        object_score: Logit of "there is an object".
    """

    logits: NDArray[np.float32]
    iou: NDArray[np.float32]
    object_score: float

    def best(self) -> "Prediction":
        """The candidate with the highest predicted IoU."""
        index = int(self.iou.argmax())
        return Prediction(self.logits[index : index + 1], self.iou[index : index + 1], self.object_score)


class Predictor:
    """Answers prompts as `SAM2ImagePredictor.predict` does. Safe to call from several threads.

    Args:
        bundle: The exported decoder.
        threads: CPU threads of one call; 0 for all cores.
    """

    def __init__(self, bundle: DecoderBundle, threads: int) -> None:
        self.config = bundle.config
        self.candidates = _CANDIDATES
        self._no_mask = bundle.no_mask
        self._decoder = _session(bundle.decoder, threads)
        self._mask_encoder = _session(bundle.mask_encoder, threads)

    def predict(
        self, tensors: Mapping[str, NDArray[np.float32]], prompt: Prompt, width: int, height: int, multimask: bool
    ) -> Prediction:
        """Decodes one prompt.

        Args:
            tensors: The image's embedding in fp32, by the graph's names.
            prompt: In pixels of the image.
            width: Of the image, in pixels.
            height: Likewise.
            multimask: Three candidates; otherwise the single mask, or the best of three where that is unstable.
        """
        points, labels = self._tokens(prompt, width, height)
        dense = self._no_mask if prompt.mask is None else self._mask_encoder.run(None, {"mask": prompt.mask})[0]
        inputs = {**tensors, "points": points, "labels": labels, "dense": dense}
        logits, iou, object_score = self._decoder.run(None, inputs)
        return self._choose(Prediction(logits, iou, float(object_score[0])), multimask)

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

    def _choose(self, tokens: Prediction, multimask: bool) -> Prediction:
        """Mask 0 is the single mask, the others the candidates (MaskDecoder.forward)."""
        several = Prediction(tokens.logits[1:], tokens.iou[1:], tokens.object_score)
        if multimask:
            return several
        single = Prediction(tokens.logits[:1], tokens.iou[:1], tokens.object_score)
        if self.config.dynamic_multimask and self._stability(single.logits) < self.config.stability_threshold:
            return several.best()
        return single

    def _stability(self, logits: NDArray[np.float32]) -> float:
        """IoU of the masks at slightly raised and lowered thresholds (MaskDecoder._get_stability_scores)."""
        inner = np.float32(np.count_nonzero(logits > self.config.stability_delta))
        outer = np.float32(np.count_nonzero(logits > -self.config.stability_delta))
        return float(inner / outer) if outer else 1.0


def _session(graph: bytes, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads that spin would take the cores from the other workers and from decoding masks.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
