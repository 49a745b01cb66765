"""labelme's files: one for each image."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire.arguments import check_choice
from maskwire.exports import area, bounding_box, simplified, with_area
from maskwire.outlines import edge_rings, pixel_contours

LabelmeShapes = Literal["auto", "polygons", "mask"]

HOLES = 0.01
"""Share of an object that holes may be, if "auto" is to make polygons of it, which fill them."""


def labelme(shapes: Sequence[dict[str, Any]], file_name: str, width: int, height: int) -> dict[str, Any]:
    """Makes the content of a labelme file that refers to the picture instead of embedding it.

    Args:
        shapes: Results of `polygon_shapes` and `mask_shape`.
        file_name: Path to the picture, relative to the labelme file.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
    """
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": file_name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def shapes_of(
    mask: NDArray[np.bool_],
    polygons: Callable[[], Sequence[NDArray[Any]]] | None,
    label: str,
    group_id: int | None,
    simplify_px: float,
    shapes: LabelmeShapes,
) -> list[dict[str, Any]]:
    """Makes the shapes of an object.

    Args:
        mask: The mask, HxW.
        polygons: Makes its polygons, where they are known already; else they are traced.
        label: Label of the object.
        group_id: Number that groups the shapes of one object.
        simplify_px: Largest distance of removed vertices from the simplified polygons, in pixels.
        shapes: "polygons", which fill holes; "mask"; or "auto": polygons unless holes are 1 % of the object or more.
    """
    check_choice("shapes", shapes, get_args(LabelmeShapes))
    if shapes == "auto":
        holes = sum(area(ring) for ring, is_hole in edge_rings(mask) if is_hole)
        shapes = "mask" if holes > HOLES * np.count_nonzero(mask) else "polygons"
    if shapes == "mask":
        return mask_shape(mask, label, group_id)
    if polygons is not None:
        return polygon_shapes(polygons(), label, group_id)
    traced = [ring for contour, is_hole in pixel_contours(mask) if not is_hole for ring in with_area(contour)]
    return polygon_shapes([simplified(ring, simplify_px) for ring in traced], label, group_id)


def polygon_shapes(polygons: Sequence[NDArray[Any]], label: str, group_id: int | None) -> list[dict[str, Any]]:
    """Makes shapes of an object's polygons, Nx2 x, y in pixels with at least three vertices each. The group's number
    keeps them together."""
    return [_shape("polygon", polygon.astype(float).tolist(), label, group_id, None) for polygon in polygons]


def mask_shape(mask: NDArray[np.bool_], label: str, group_id: int | None) -> list[dict[str, Any]]:
    """Makes a shape of a mask with its holes, which labelme from 5.4 reads: the mask within its bounding box, as a PNG.
    An empty mask has none."""
    x_min, y_min, x_max, y_max = bounding_box(mask)
    if x_min == x_max:
        return []
    file = io.BytesIO()
    Image.fromarray(mask[y_min:y_max, x_min:x_max]).save(file, "PNG")
    corners = [[float(x_min), float(y_min)], [float(x_max - 1), float(y_max - 1)]]  # both are inside
    return [_shape("mask", corners, label, group_id, base64.b64encode(file.getvalue()).decode())]


def _shape(kind: str, points: Any, label: str, group_id: int | None, mask: str | None) -> dict[str, Any]:
    return {
        "label": label,
        "points": points,
        "group_id": group_id,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": mask,
    }
