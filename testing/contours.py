"""The contract's reading of contours."""

import cv2
import numpy as np
from numpy.typing import NDArray


def filled(contours: list[tuple[NDArray[np.int32], bool]], height: int, width: int) -> NDArray[np.bool_]:
    """Contours back to a mask as the contract says: each filled, its own pixels too, less what its holes enclose."""
    mask, piece = np.zeros((height, width), bool), np.zeros((height, width), np.uint8)
    for points, is_hole in contours:
        if not is_hole:
            mask |= piece > 0
            piece[:] = 0
        cv2.fillPoly(piece, [points], 0 if is_hole else 1)
        if is_hole:
            cv2.polylines(piece, [points], isClosed=True, color=1)
    return mask | (piece > 0)


def with_holes_filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without its holes, as tools show it that have outer contours only."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outer = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(outer, contours, -1, 1, cv2.FILLED)
    return outer.astype(bool)
