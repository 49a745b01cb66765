"""Renders logits as masks of the image's size, in the forms that callers ask for."""

from typing import Any

import cv2
import numpy as np
from maskwire.v1 import types_pb2 as pb
from maskwire_core.masks.answer_room import AnswerRoom
from maskwire_core.masks.forms import mask_in_forms
from maskwire_core.masks.geometry import ImageSize
from maskwire_core.masks.rle import placed, rle
from numpy.typing import NDArray

from maskwire_decoder.prompts.encoding import Prediction
from maskwire_decoder.prompts.mask_input import LOGITS_DTYPES
from maskwire_decoder.prompts.parsing import Output, Prompt

_CLAMP = 32.0  # as SAM2ImagePredictor does to the logits it returns


def clamp(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clamps logits to -32..32, as they are returned and fed back."""
    return logits.clip(-_CLAMP, _CLAMP)


def without_specks(
    logits: NDArray[np.float32], threshold: float, max_hole_area: int, max_sprinkle_area: int
) -> NDArray[np.float32]:
    """Fills small holes and removes small islands, as SAM2Transforms.postprocess_masks does with a CUDA kernel.

    Components are 8-connected; both kinds are found in the given logits, SxS. Holes get logits of threshold + 10,
    islands of threshold - 10.
    """
    cleaned = logits
    for area, compare, value in ((max_hole_area, np.less_equal, 10.0), (max_sprinkle_area, np.greater, -10.0)):
        if area:
            inside = compare(logits, threshold).view(np.uint8)
            _, labels, statistics, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
            small = statistics[:, cv2.CC_STAT_AREA] <= area
            small[0] = False  # everything that is not inside
            cleaned = np.where(small[labels], np.float32(threshold + value), cleaned)
    return cleaned


def render(
    prompt: Prompt,
    prediction: Prediction,
    output: Output,
    size: ImageSize,
    refined: bool = False,
    room: AnswerRoom | None = None,
) -> pb.PromptResult:
    """Makes the answer to one prompt.

    Args:
        prompt: The prompt, whose id the answer carries.
        prediction: Its masks as logits.
        output: The forms in which they are returned.
        size: Size of the image; where the masks are those of a region of it, with the region.
        refined: Whether saved logits were refined.
        room: What is left of the answer; None: this is all of it.

    Raises:
        ResourceExhausted: ANSWER_TOO_LARGE.
    """
    room = room or AnswerRoom()
    room.take(len(prompt.prompt_id.encode()))
    masks = [
        _render(logits, float(iou), output, size, room)
        for logits, iou in zip(prediction.logits, prediction.iou, strict=True)
    ]
    return pb.PromptResult(
        prompt_id=prompt.prompt_id, masks=masks, object_score=prediction.object_score, refined=refined
    )


def _render(logits: NDArray[np.float32], score: float, output: Output, size: ImageSize, room: AnswerRoom) -> pb.Mask:
    result = pb.Mask(score=score)
    if pb.MASK_FORMAT_LOGITS in output.formats:
        dtype = LOGITS_DTYPES[output.logits_type]
        room.take(logits.size * dtype.itemsize)
        result.logits.height, result.logits.width = logits.shape
        result.logits.data_type = output.logits_type
        result.logits.data = (logits if output.unclamped else clamp(logits)).astype(dtype).tobytes()
    if output.formats == {pb.MASK_FORMAT_LOGITS}:
        return result  # no mask of the image's size is needed
    cleaned = without_specks(logits, output.threshold, output.max_hole_area, output.max_sprinkle_area)
    # Subtracting the threshold before upsampling is the same but for rounding; the usual one, 0, has none.
    width, height = (size.width, size.height) if size.region is None else size.region[2:]
    runs: Any = rle(cleaned - np.float32(output.threshold) if output.threshold else cleaned, width, height)
    result.MergeFrom(mask_in_forms(placed(runs, size), output.formats, size.width, size.height, room))
    return result
