"""Renders logits as masks of the image's size, in the forms that callers ask for."""

from typing import Any

import cv2
import numpy as np
from maskwire.v1 import types_pb2 as pb
from numpy.typing import NDArray
from pycocotools import mask as coco

from maskwire_decoder.masks.answer_room import AnswerRoom
from maskwire_decoder.masks.rle import rle
from maskwire_decoder.prompts.encoding import Prediction
from maskwire_decoder.prompts.mask_input import LOGITS_DTYPES
from maskwire_decoder.prompts.parsing import Output, Prompt

_CLAMP = 32.0  # as SAM2ImagePredictor does to the logits it returns
_POLYGON_BYTES = 8  # on the wire, beside the coordinates


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


def polygons(mask: NDArray[np.bool_], room: AnswerRoom) -> list[pb.Polygon]:
    """Returns outer contours, each followed by its holes (cv2.findContours, RETR_CCOMP), if there is room for them."""
    contours, hierarchy = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    coordinates = sum(contour.size for contour in contours)
    widest = 2 if max(mask.shape) < 1 << 14 else 3  # bytes of a coordinate on the wire, seven bits in each
    room.take(coordinates * widest + len(contours) * _POLYGON_BYTES, coordinates)
    found = []
    for index, contour in enumerate(contours):
        _, _, hole, parent = hierarchy[0][index]
        if parent >= 0:
            continue
        found.append(pb.Polygon(coordinates_px=contour.astype(int).ravel().tolist()))
        while hole >= 0:
            found.append(pb.Polygon(coordinates_px=contours[hole].astype(int).ravel().tolist(), is_hole=True))
            hole = hierarchy[0][hole][0]
    return found


def render(
    prompt: Prompt,
    prediction: Prediction,
    output: Output,
    width: int,
    height: int,
    refined: bool = False,
    room: AnswerRoom | None = None,
) -> pb.PromptResult:
    """Makes the answer to one prompt.

    Args:
        prompt: The prompt, whose id the answer carries.
        prediction: Its masks as logits.
        output: The forms in which they are returned.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        refined: Whether saved logits were refined.
        room: What is left of the answer; None: this is all of it.

    Raises:
        ResourceExhausted: ANSWER_TOO_LARGE.
    """
    room = room or AnswerRoom()
    room.take(len(prompt.prompt_id.encode()))
    masks = [
        _render(logits, float(iou), output, width, height, room)
        for logits, iou in zip(prediction.logits, prediction.iou, strict=True)
    ]
    return pb.PromptResult(
        prompt_id=prompt.prompt_id, masks=masks, object_score=prediction.object_score, refined=refined
    )


def _render(
    logits: NDArray[np.float32], score: float, output: Output, width: int, height: int, room: AnswerRoom
) -> pb.Mask:
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
    runs: Any = rle(cleaned - np.float32(output.threshold) if output.threshold else cleaned, width, height)
    if pb.MASK_FORMAT_RLE in output.formats:
        room.take(len(runs["counts"]))
        result.rle.CopyFrom(pb.Rle(size=(height, width), counts=runs["counts"].decode()))
    if output.formats <= {pb.MASK_FORMAT_LOGITS, pb.MASK_FORMAT_RLE}:
        return result  # no pixels are needed
    mask = cv2.transpose(coco.decode(runs).T).view(np.bool_)
    if pb.MASK_FORMAT_PNG in output.formats:
        encoded, png = cv2.imencode(".png", mask.view(np.uint8) * 255, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not encoded:
            raise RuntimeError("the PNG encoder failed")
        room.take(png.nbytes)
        result.png = png.tobytes()
    if pb.MASK_FORMAT_POLYGONS in output.formats:
        result.polygons.extend(polygons(mask, room))
    if pb.MASK_FORMAT_PACKED_BITS in output.formats:
        room.take(height * -(-width // 8))
        result.packed_bits = np.packbits(mask, axis=1).tobytes()
    return result
