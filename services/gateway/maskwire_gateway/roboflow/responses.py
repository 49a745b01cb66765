"""Answers of the /sam2 routes, in the forms that their clients know."""

import io
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, NotRequired

import cv2
import numpy as np
from maskwire.bilinear import enlarge
from maskwire.v1 import decoder_pb2, types_pb2
from maskwire_core.http.problems import Problem
from numpy.typing import NDArray
from pycocotools import mask as coco
from pydantic import Field
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

MAX_LOGITS_BYTES = 256 << 20
_CLAMP = 32.0  # bound of low-resolution logits, as SAM2ImagePredictor.predict returns them

Seconds = Annotated[float, Field(description="Seconds.")]
Polygon = list[list[int]]
"""[[x, y], ...] in pixels."""


class RunLengths(TypedDict):
    """COCO RLE: [height, width], and the compressed run lengths."""

    size: list[int]
    counts: str


class Prediction(TypedDict):
    """The best mask of a prompt, and its predicted IoU. If the prompt is wrong and others are not: an empty mask."""

    masks: list[Polygon] | RunLengths
    confidence: float
    format: Literal["polygon", "rle"]
    error: NotRequired[Annotated[str, Field(description="What is wrong with the prompt.")]]


class Identity(TypedDict):
    """Fields that answers of Roboflow's server have too; null there for SAM 2."""

    inference_id: str | None
    frame_id: int | None
    resolved_model: dict[str, Any] | None


IDENTITY: Identity = {"inference_id": None, "frame_id": None, "resolved_model": None}


class Predictions(Identity):
    """What /sam2/segment_image answers."""

    predictions: list[Prediction]
    time: Seconds


class Embedded(Identity):
    """What /sam2/embed_image answers."""

    image_id: str
    time: Seconds


def predictions(
    response: decoder_pb2.SegmentResponse, form: Literal["json", "rle"], refused: Mapping[int, Problem]
) -> list[Prediction]:
    """The best mask of each prompt, as polygons ("json") or run lengths ("rle").

    Args:
        response: With one RLE for each prompt that was not refused.
        form: The form of the masks.
        refused: What is wrong with the others, by their index among all.
    """
    found: list[Prediction] = []
    for result in response.results:
        mask = result.masks[0]
        if form == "json":
            found.append({"masks": polygons(mask.rle), "confidence": mask.score, "format": "polygon"})
        else:
            rle: RunLengths = {"size": list(mask.rle.size), "counts": mask.rle.counts}
            found.append({"masks": rle, "confidence": mask.score, "format": "rle"})
    for index in sorted(refused):
        found.insert(index, _empty(response.image, form, refused[index]))
    return found


def _empty(image: decoder_pb2.SegmentedImage, form: Literal["json", "rle"], problem: Problem) -> Prediction:
    """The empty mask of a prompt that was refused."""
    said = str(problem)
    if form == "json":
        return {"masks": [[]], "confidence": 0.0, "format": "polygon", "error": said}
    height, width = image.height_px, image.width_px
    zeros: Any = {"size": [height, width], "counts": [height * width]}
    counts: Any = coco.frPyObjects(zeros, height, width)["counts"]
    rle: RunLengths = {"size": [height, width], "counts": counts.decode()}
    return {"masks": rle, "confidence": 0.0, "format": "rle", "error": said}


def polygons(rle: types_pb2.Rle) -> list[Polygon]:
    """The outer contours of a mask; for an empty mask a single empty one.

    Holes, and islands within holes, are left out: clients fill the outline.
    """
    mask: Any = coco.decode({"size": list(rle.size), "counts": rle.counts.encode()})
    contours, _ = cv2.findContours(np.ascontiguousarray(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found: list[Polygon] = [contour.reshape(-1, 2).astype(int).tolist() for contour in contours]
    return found or [[]]


def logits_bytes(prompts: int, width: int, height: int) -> int:
    """Size in bytes of the fp32 logits of an image's masks, one for each prompt, in the size of the image.

    Raises:
        Problem: ANSWER_TOO_LARGE: they exceed 256 MiB.
    """
    size = prompts * width * height * np.dtype(np.float32).itemsize
    if size > MAX_LOGITS_BYTES:
        raise Problem(
            413,
            f"{prompts} masks of {width}x{height} as logits are {size} bytes, and {MAX_LOGITS_BYTES} fit in an answer; "
            "ask for fewer, or for rle",
            "ANSWER_TOO_LARGE",
            "format",
        )
    return size


def compressed_logits(response: decoder_pb2.SegmentResponse, refused: Collection[int]) -> bytes:
    """Logits as `SAM2ImagePredictor.predict(return_logits=True)` returns them: enlarged before anything is clamped.

    Args:
        response: With fp32 logits that are not clamped, for each prompt that was not refused.
        refused: Indices of the others among all; their masks are empty.

    Returns:
        A compressed npz file: masks, NxHxW fp32 logits; low_res_masks, NxSxS fp32 logits clamped to -32..32.
    """
    logits = [result.masks[0].logits for result in response.results]
    low: list[NDArray[np.float32]] = [
        np.frombuffer(one.data, "<f4").reshape(one.height, one.width).astype(np.float32) for one in logits
    ]
    for index in sorted(refused):
        low.insert(index, np.full_like(low[0], -_CLAMP))
    masks = np.empty((len(low), response.image.height_px, response.image.width_px), np.float32)
    for mask, samples in zip(masks, low, strict=True):
        mask[:] = enlarge(samples, response.image.width_px, response.image.height_px)
    file = io.BytesIO()
    np.savez_compressed(file, masks=masks, low_res_masks=np.stack(low).clip(-_CLAMP, _CLAMP))
    return file.getvalue()
