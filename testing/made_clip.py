"""Clips made of cut-outs that move over a photograph, whose masks are therefore known on every frame."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Mover:
    """A cut-out and its way through a clip, at a steady pace.

    Attributes:
        cutout: HxWx4, RGB and how opaque each pixel is.
        longest: Its longer side in pixels of the frame, on the first frame and on the last.
        places: Its centre in pixels of the frame, x and y, on the first frame and on the last.
        turn: Degrees that it turns on its whole way.
    """

    cutout: Pixels
    longest: tuple[float, float]
    places: tuple[tuple[float, float], tuple[float, float]]
    turn: float = 0


def cut_out(pixels: Pixels, mask: Mask) -> Pixels:
    """Cuts an object out of a photograph (HxWx3) by its mask. Returns RGB and opacity."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    opacity = cv2.GaussianBlur(mask[part].astype(np.float32), (0, 0), 0.7)
    return np.dstack([pixels[part], (255 * opacity).astype(np.uint8)])


def make_clip(
    background: Pixels, movers: Mapping[str, Mover], frames: int
) -> tuple[list[Pixels], list[dict[str, Mask]]]:
    """Makes a clip.

    Args:
        background: What rests behind, HxWx3; frames have its size.
        movers: The cut-outs by name; later ones pass before earlier ones.
        frames: Number of frames.

    Returns:
        The frames (HxWx3), and of each the mask of what is visible of each cut-out.
    """
    pictures, masks = [], []
    for index in range(frames):
        picture, seen = background.astype(np.float32), dict[str, Mask]()
        for name, mover in movers.items():
            placed = _placed(mover, index / max(frames - 1, 1), background.shape[1::-1])
            opacity = placed[..., 3:] / np.float32(255)
            picture += (placed[..., :3] - picture) * opacity
            mask = opacity[..., 0] > 0.5
            seen = {other: each & ~mask for other, each in seen.items()} | {name: mask}
        pictures.append(picture.round().clip(0, 255).astype(np.uint8))
        masks.append(seen)
    return pictures, masks


def _placed(mover: Mover, share: float, size: Sequence[int]) -> NDArray[np.float32]:
    """Returns a cut-out where it is after a share of its way, on an empty frame."""
    cutout, way = mover.cutout.astype(np.float32), np.array(mover.places)
    longest = mover.longest[0] + share * (mover.longest[1] - mover.longest[0])
    scale = longest / max(cutout.shape[:2])
    if scale < 1:
        smaller = cv2.resize(cutout, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cutout = np.asarray(smaller, np.float32)
        scale = 1
    centre = np.array(cutout.shape[1::-1]) / 2
    matrix = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), share * mover.turn, scale)
    matrix[:, 2] += way[0] + share * (way[1] - way[0]) - centre
    placed = cv2.warpAffine(cutout, matrix, (size[0], size[1]), flags=cv2.INTER_LINEAR)
    return np.asarray(placed, np.float32)
