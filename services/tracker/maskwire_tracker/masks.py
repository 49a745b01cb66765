"""Masks of frames: those that callers give, and those that they get."""

from collections.abc import Mapping

import cv2
import numpy as np
from maskwire.bilinear import enlarge, resize_antialiased
from numpy.typing import NDArray

from maskwire_tracker.remembered import Floats

_FILLED = np.float32(0.1)  # logits of filled holes (sam2.utils.misc.fill_holes_in_mask_scores)
_GIVEN = np.float32(10)  # logits of a mask that is taken as it is, inside; minus that outside
_APART = np.float32(-10)  # logits that an object keeps at most where another one is


def with_holes_filled(logits: Floats, area: int) -> Floats:
    """Fills holes of up to `area` pixels (8-connected) in a mask's logits."""
    if not area:
        return logits
    _, labels, statistics, _ = cv2.connectedComponentsWithStats((logits <= 0).view(np.uint8), connectivity=8)
    small = statistics[:, cv2.CC_STAT_AREA] <= area
    small[0] = False  # what is inside
    return np.where(small[labels], _FILLED, logits)


def given_masks(mask: NDArray[np.bool_], size: int) -> tuple[NDArray[np.bool_], Floats]:
    """Resizes a mask that a caller gives, as `SAM2VideoPredictor.add_new_mask` does.

    Args:
        mask: The mask, height x width, of any size.
        size: Side of the model's input in pixels.

    Returns:
        The mask at the model's input size, and its logits at a quarter of it, fp32.
    """
    if mask.shape != (size, size):
        mask = resize_antialiased(mask.astype(np.float32), size, size) >= np.float32(0.5)
    logits = np.where(mask, _GIVEN, -_GIVEN)
    return mask, resize_antialiased(logits, size // 4, size // 4)


def at_video_size(logits: Mapping[str, Floats], width: int, height: int, apart: bool) -> dict[str, Floats]:
    """Enlarges the masks of a frame to the video's size.

    Args:
        logits: Low-resolution masks by object.
        width: Width of the video in pixels.
        height: Height of the video in pixels.
        apart: Whether objects keep only the pixels where their logit is the highest (non_overlap_masks).

    Returns:
        Logits by object, height x width, fp32.
    """
    large = {name: enlarge(each, width, height) for name, each in logits.items()}
    if not apart or len(large) < 2:
        return large
    owners = np.argmax(np.stack(list(large.values())), axis=0)
    return {
        name: np.where(owners == index, each, np.minimum(each, _APART))
        for index, (name, each) in enumerate(large.items())
    }
