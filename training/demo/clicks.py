"""Where an annotator clicks: the middle of an object, then the middle of what is most wrong."""

import cv2
import numpy as np
from numpy.typing import NDArray

from training.demo.decoder import BACKGROUND, FOREGROUND

Mask = NDArray[np.bool_]


def centre(mask: Mask) -> tuple[int, int]:
    """x, y of the pixel of a mask that is farthest from its border and the picture's."""
    return _deepest(mask)[0]


def correction(mask: Mask, target: Mask) -> tuple[tuple[int, int], int]:
    """The next click and its label: the deepest pixel of what is missing or too much, as SAM is evaluated."""
    missing, missing_depth = _deepest(target & ~mask)
    surplus, surplus_depth = _deepest(mask & ~target)
    if missing_depth == surplus_depth == 0:
        return centre(target), FOREGROUND
    return (missing, FOREGROUND) if missing_depth >= surplus_depth else (surplus, BACKGROUND)


def _deepest(mask: Mask) -> tuple[tuple[int, int], float]:
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return (int(x), int(y)), float(depth[y, x])
