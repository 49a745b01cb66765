"""Masks as values of Label Studio's regions, in the form of the tag that they belong to."""

import base64
import io
import uuid
from typing import Any

import numpy as np
from maskwire import Result
from numpy.typing import NDArray
from PIL import Image

from maskwire_adapters import brush
from maskwire_adapters.label_config import Target


def regions(target: Target, labels: list[str], result: Result, simplify_px: float) -> list[dict[str, Any]]:
    """Makes the regions of a mask: one of a brush or bitmask, one for each outer contour of polygons and vectors.

    Args:
        target: The tags that the regions belong to.
        labels: The regions' labels.
        result: The mask.
        simplify_px: How far polygons and vectors may deviate from the mask's outline, in pixels.
    """
    return [
        {
            "id": _new_id(),
            "from_name": target.from_name,
            "to_name": target.to_name,
            "type": target.kind,
            "original_width": result.width,
            "original_height": result.height,
            "image_rotation": 0,
            "value": {**value, target.kind: labels},
            "score": result.score,
        }
        for value in _values(target.kind, result, simplify_px)
    ]


def _values(kind: str, result: Result, simplify_px: float) -> list[dict[str, Any]]:
    if kind == "brushlabels":
        return [{"format": "rle", "rle": brush.encode(result.mask)}]
    if kind == "bitmasklabels":
        return [{"imageDataURL": bitmask(result.mask)}]
    scale = (100 / result.width, 100 / result.height)
    outlines = [(polygon * scale).tolist() for polygon in result.polygons(simplify_px)]
    if kind == "vectorlabels":
        return [{"vertices": vertices(outline), "closed": True} for outline in outlines]
    return [{"points": outline} for outline in outlines]


def bitmask(mask: NDArray[np.bool_]) -> str:
    """Makes the data URL that BitmaskLabels store: a PNG that is black inside the mask and transparent outside."""
    pixels = np.zeros((*mask.shape, 4), np.uint8)
    pixels[..., 3] = np.where(mask, 255, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def vertices(outline: list[list[float]]) -> list[dict[str, Any]]:
    """Makes the vertices that VectorLabels store of a closed path: each names the one before it, the first the last.

    Args:
        outline: The corners of a polygon, x and y in percent of the image's sides.
    """
    ids = [_new_id() for _ in outline]
    return [
        {"id": own, "x": x, "y": y, "prevPointId": before, "isBezier": False}
        for own, before, (x, y) in zip(ids, [*ids[-1:], *ids], outline, strict=False)
    ]


def _new_id() -> str:
    return uuid.uuid4().hex[:10]
