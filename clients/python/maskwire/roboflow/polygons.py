"""Contours of masks, as Roboflow's package makes them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwire.errors import InvalidRequest, OutputMissing


def masks2poly(masks: NDArray[Any]) -> list[NDArray[np.float32]]:
    """Traces the outer contour of each mask; of several the one with most vertices, and holes are left out.

    Args:
        masks: NxHxW, or HxW: bool, or 0 and 1.

    Returns:
        The vertices of each contour, Mx2 x, y in pixels; 0x2 for an empty mask.

    Raises:
        InvalidRequest: The masks have another shape.
        OutputMissing: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise OutputMissing(
            "OpenCV is not installed: pip install opencv-python-headless, or 'maskwire[supervision]'", "NO_OPENCV"
        ) from error
    several = np.asarray(masks)
    several = several[None] if several.ndim == 2 else several
    if several.ndim != 3:
        raise InvalidRequest(f"masks are NxHxW, or HxW; got shape {several.shape}", "BAD_MASK", "masks")
    polygons = []
    for mask in several:
        inside = np.ascontiguousarray(mask > 0).view(np.uint8)
        contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        longest = max(contours, key=len, default=np.zeros((0, 2)))
        polygons.append(longest.reshape(-1, 2).astype(np.float32))
    return polygons
