"""Masks as callers of /sam2/segment_image take them."""

import io
from typing import Any

import cv2
import numpy as np
from maskwire.v1 import decoder_pb2, types_pb2
from maskwire_core.bilinear import enlarge
from maskwire_core.http.problems import Problem
from numpy.typing import NDArray
from pycocotools import mask as coco

MAX_ARRAY_BYTES = 256 << 20
_CLAMP = 32.0  # of low-resolution logits, as SAM2ImagePredictor.predict returns them


def predictions(response: decoder_pb2.SegmentResponse, form: str) -> list[dict[str, Any]]:
    """One for each prompt: the best mask's polygons (form "json") or run lengths ("rle"), and its predicted IoU."""
    masks = [result.masks[0] for result in response.results]
    return [
        {
            "masks": polygons(mask.rle) if form == "json" else {"size": list(mask.rle.size), "counts": mask.rle.counts},
            "confidence": mask.score,
            "format": "polygon" if form == "json" else "rle",
        }
        for mask in masks
    ]


def polygons(rle: types_pb2.Rle) -> list[list[list[int]]]:
    """Outer contours as [[x, y], ...]; of an empty mask one that is empty.

    Holes are not told, nor islands in them: what these callers fill is the outline.
    """
    mask: Any = coco.decode({"size": list(rle.size), "counts": rle.counts.encode()})
    contours, _ = cv2.findContours(np.ascontiguousarray(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found: list[list[list[int]]] = [contour.reshape(-1, 2).astype(int).tolist() for contour in contours]
    return found or [[]]


def array_bytes(prompts: int, width: int, height: int) -> int:
    """Bytes of the logits of `arrays`.

    Raises:
        Problem: They are too many for one answer.
    """
    size = prompts * width * height * np.dtype(np.float32).itemsize
    if size > MAX_ARRAY_BYTES:
        raise Problem(
            413,
            f"{prompts} masks of {width}x{height} as logits are {size} bytes, and {MAX_ARRAY_BYTES} fit in an answer; "
            "ask for fewer, or for rle",
            "ANSWER_TOO_LARGE",
            "format",
        )
    return size


def arrays(response: decoder_pb2.SegmentResponse) -> bytes:
    """A compressed npz: masks, NxHxW fp32 logits; low_res_masks, NxSxS fp32, the same clamped to -32..32.

    As `SAM2ImagePredictor.predict` with return_logits gives them: masks are enlarged before anything is clamped. The
    response must hold fp32 logits that are not clamped.
    """
    logits = [result.masks[0].logits for result in response.results]
    low: list[NDArray[np.float32]] = [
        np.frombuffer(one.data, "<f4").reshape(one.height, one.width).astype(np.float32) for one in logits
    ]
    masks = np.empty((len(low), response.image.height_px, response.image.width_px), np.float32)
    for mask, samples in zip(masks, low, strict=True):
        mask[:] = enlarge(samples, response.image.width_px, response.image.height_px)
    file = io.BytesIO()
    np.savez_compressed(file, masks=masks, low_res_masks=np.stack(low).clip(-_CLAMP, _CLAMP))
    return file.getvalue()
