"""Non-maximum suppression of the boxes of masks."""

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]
"""Nx4: x_min, y_min, x_max, y_max."""

_NEAR_EDGE_PX = 20


def area(boxes: Boxes) -> NDArray[np.float32]:
    """Returns the areas of N boxes, measured from edge to edge."""
    areas: NDArray[np.float32] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def distinct(boxes: Boxes, scores: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression, with the arithmetic and the order of torchvision's `nms`.

    Args:
        boxes: Nx4 fp32.
        scores: N fp32.
        threshold: IoU above which the box with the lower score goes; of equal scores, the later one.

    Returns:
        Indices of the boxes that stay, by falling score.
    """
    order = np.argsort(-scores, kind="stable")
    areas = area(boxes)
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        sides = (high - low).clip(min=0)
        inner = sides[:, 0] * sides[:, 1]
        with np.errstate(invalid="ignore"):  # a box without an area is no duplicate
            iou = inner / (areas[best] + areas[rest] - inner)
        order = rest[~(iou.astype(np.float64) > threshold)]
    return np.array(kept, np.intp)


def near_crop_edge(box: NDArray[np.float32], crop: NDArray[np.float32], width: int, height: int) -> bool:
    """Returns whether a box ends at an edge of its crop that is not an edge of the image (`is_box_near_crop_edge`).

    Args:
        box: x_min, y_min, x_max, y_max in pixels of the image.
        crop: The same for the crop.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """
    at_crop = np.abs(box - crop) <= _NEAR_EDGE_PX
    at_image = np.abs(box - np.array([0, 0, width, height], np.float32)) <= _NEAR_EDGE_PX
    return bool((at_crop & ~at_image).any())
