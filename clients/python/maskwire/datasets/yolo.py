"""YOLO segmentation files: a line for each object."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwire.exports import simplified


def yolo_line(
    contours: Sequence[tuple[NDArray[Any], bool]], category: int, width: int, height: int, simplify_px: float = 1
) -> str:
    """Makes a line of a YOLO segmentation file: the class number, then x and y of each vertex as fractions of the size.

    YOLO allows one polygon an object. Other components and holes are connected to the first by bridges of zero area, so
    that programs that fill the polygon (such as Ultralytics, with OpenCV) get the mask.

    Args:
        contours: Contours, each Nx2 x, y in pixels and whether it is a hole.
        category: Number of the class, from 0.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        simplify_px: Largest distance of removed vertices from the simplified contour, in pixels.

    Returns:
        The line without a line end; empty if no contour has an area.
    """
    rings = [simplified(contour, simplify_px) for contour, _ in contours if len(contour) > 2]
    rings = [ring for ring in rings if len(ring) > 2]
    if not rings:
        return ""
    joined, *others = (ring.astype(float) for ring in rings)
    for ring in others:
        distances = ((joined[:, None] - ring[None]) ** 2).sum(2)
        here, there = np.unravel_index(int(distances.argmin()), distances.shape)
        turned = np.roll(ring, -int(there), axis=0)
        joined = np.concatenate([joined[: here + 1], turned, turned[:1], joined[here:]])
    fractions = (joined / (width, height)).clip(0, 1)
    return f"{category} " + " ".join(f"{value:.6f}" for value in fractions.ravel())
