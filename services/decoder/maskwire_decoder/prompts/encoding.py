"""Prompts as the graphs of a mask decoder take them, and predictions made of what the graphs give."""

import math
from dataclasses import dataclass

import numpy as np
from maskwire_core.errors import not_finite
from maskwire_core.models.decoder_bundle import BEST, DecoderConfig
from maskwire_core.storage.codecs import is_finite
from numpy.typing import NDArray

from maskwire_decoder.prompts.parsing import Prompt

# Labels of the prompt encoder beside 0 and 1 (sam2.modeling.sam.prompt_encoder)
_PADDING, _BOX_MIN, _BOX_MAX = -1, 2, 3


@dataclass(frozen=True)
class Prediction:
    """The masks of one prompt that were asked for, in the model's order."""

    logits: NDArray[np.float32]  # cxSxS fp32, not clamped
    iou: NDArray[np.float32]  # C fp32, the IoU that the model predicts for each mask
    object_score: float  # logit of "there is an object"

    def checked(self, model: str) -> "Prediction":
        """Returns the prediction itself after checking that all values are finite.

        Args:
            model: Name of the model, for the error.

        Raises:
            Internal: MODEL_OUTPUT_NOT_FINITE.
        """
        if not is_finite(self.logits):
            raise not_finite(model, "logits of a mask are NaN or infinite")
        if not (is_finite(self.iou) and math.isfinite(self.object_score)):
            raise not_finite(model, "scores are NaN or infinite")
        return self

    @property
    def best(self) -> NDArray[np.float32]:
        """The SxS logits of the mask with the highest predicted IoU."""
        best: NDArray[np.float32] = self.logits[int(self.iou.argmax())]
        return best

    def only_best(self) -> "Prediction":
        """Returns the prediction with this mask alone."""
        index = int(self.iou.argmax())
        return Prediction(self.logits[index : index + 1], self.iou[index : index + 1], self.object_score)


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt, as the graphs take it."""

    points: NDArray[np.float32]  # px2 fp32 in pixels of the model's input: a box's corners, points, a padding point
    labels: NDArray[np.int64]  # P int64, as the prompt encoder of sam2 numbers them
    mask: NDArray[np.float32] | None  # sxS fp32 logits, or None
    wanted: tuple[int, ...]  # the masks that the graphs compute (see `BEST`)
    _config: DecoderConfig
    _multimask: bool

    @classmethod
    def of(cls, config: DecoderConfig, prompt: Prompt, width: int, height: int, every: bool) -> "EncodedPrompt":
        """Encodes a prompt as `SAM2ImagePredictor.predict` does.

        Args:
            config: The model's configuration.
            prompt: The prompt, in pixels of the image. With `multimask` it gives the three candidates; otherwise the
                single mask, or the best of three where that is unstable.
            width: Width of the image in pixels.
            height: Height of the image in pixels.
            every: All of these instead of the one with the highest predicted IoU.
        """
        if prompt.multimask:
            wanted = [*range(1, BEST)] if prompt.gives_all(every) else [prompt.candidate or BEST]
        else:
            wanted = [0, BEST] if config.dynamic_multimask else [0]
        points, labels = _encode_points(prompt, width, height, config.image_size)
        return cls(points, labels, prompt.mask, tuple(wanted), config, prompt.multimask)

    def select(
        self, logits: NDArray[np.float32], iou: NDArray[np.float32], object_score: NDArray[np.float32]
    ) -> Prediction:
        """Makes the prediction from what the graphs gave.

        Args:
            logits: WxSxS, the wanted masks.
            iou: The predicted IoU of the single mask and the three candidates.
            object_score: A single logit.
        """
        scores = np.array([iou[1:].max() if index == BEST else iou[index] for index in self.wanted], np.float32)
        if not self._multimask:
            stable = len(self.wanted) == 1 or self._stability(logits[0]) >= self._config.stability_threshold
            keep = slice(0, 1) if stable else slice(1, 2)
            logits, scores = logits[keep], scores[keep]
        return Prediction(logits, scores, float(object_score))

    def _stability(self, logits: NDArray[np.float32]) -> float:
        """Returns the IoU of masks at slightly raised and lowered thresholds (`MaskDecoder._get_stability_scores`)."""
        inner = np.float32(np.count_nonzero(logits > self._config.stability_delta))
        outer = np.float32(np.count_nonzero(logits > -self._config.stability_delta))
        return float(inner / outer) if outer else 1.0


def _encode_points(
    prompt: Prompt, width: int, height: int, image_size: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    points, labels = prompt.points, prompt.labels
    if prompt.box is not None:
        points = np.concatenate([prompt.box.reshape(2, 2), points])
        labels = np.concatenate([np.array([_BOX_MIN, _BOX_MAX]), labels])
    elif not len(labels):
        if prompt.mask is not None:
            return points, labels  # as SAM2ImagePredictor: a mask alone has no points, not even padding
        points, labels = np.zeros((1, 2), np.float32), np.array([_PADDING])
    scaled = points / np.array([width, height], np.float32) * np.float32(image_size)
    return (
        np.concatenate([scaled, np.zeros((1, 2), np.float32)]),
        np.concatenate([labels, np.array([_PADDING])]).astype(np.int64),
    )
