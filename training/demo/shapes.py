"""Procedural outlines and textures."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
"""HxWx3, RGB, 0 to 255, or HxW."""


def texture(size: int, random: np.random.Generator) -> Image:
    """Smooth noise of three scales around a colour; coloured or grey."""
    total = np.full((size, size, 3), random.uniform(0, 255, 3), np.float32)
    for cells in (4, 16, 64):
        channels = 3 if random.random() < 0.5 else 1
        noise = random.normal(0, random.uniform(5, 40), (cells, cells, channels)).astype(np.float32)
        total += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC).reshape(size, size, channels)
    return np.clip(total, 0, 255)


def plain(size: int, random: np.random.Generator) -> Image:
    """One colour that grows darker towards a side, with a little grain, as a wall behind an object."""
    along = np.linspace(-1, 1, size)
    down, across = random.normal(0, 25, 2)
    slope = along[:, None] * down + along[None] * across
    grain = random.normal(0, random.uniform(0, 4), (size, size))
    colour = random.uniform(30, 240) + random.normal(0, 15, 3)
    return np.clip((slope + grain)[..., None] + colour, 0, 255).astype(np.float32)


def outline(size: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """A filled ellipse, ring, bar, polygon or blob in the middle of a square; 0 to 255, with soft borders."""
    mask, centre = np.zeros((size, size), np.uint8), size // 2
    kind = random.choice(["ellipse", "ring", "bar", "polygon", "blob"], p=[0.2, 0.05, 0.2, 0.2, 0.35])
    if kind in ("ellipse", "ring"):
        axes: Any = tuple(int(size * share) for share in random.uniform(0.2, 0.48, 2))
        turn = random.uniform(0, 180)
        cv2.ellipse(mask, (centre, centre), axes, turn, 0, 360, 255, -1, cv2.LINE_AA)
        if kind == "ring":
            hole: Any = tuple(int(axis * random.uniform(0.4, 0.75)) for axis in axes)
            cv2.ellipse(mask, (centre, centre), hole, turn, 0, 360, 0, -1, cv2.LINE_AA)
        return mask
    if kind == "bar":
        width, height = size * random.uniform(0.1, 0.65, 2)
        corners = cv2.boxPoints(((centre, centre), (width, height), random.uniform(0, 180)))
    else:
        count = int(random.integers(3, 9)) if kind == "polygon" else 80
        angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
        if kind == "polygon":
            angles, radii = np.sort(random.uniform(0, 2 * np.pi, count)), random.uniform(0.2, 0.48, count)
        else:
            waves = [
                random.normal(0, 0.09 / wave) * np.cos(wave * angles + random.uniform(0, 6.3)) for wave in range(1, 6)
            ]
            radii = np.clip(0.33 + np.sum(waves, 0), 0.06, 0.49)
        corners = centre + size * radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    cv2.fillPoly(mask, [np.asarray(corners, np.int32)], 255, cv2.LINE_AA)
    return mask


def patchwork(patches: list[Image], random: np.random.Generator) -> Image:
    """One surface of several: each further patch (all SxSx3) covers a random outline anywhere on those before.

    Nothing within tells where such an object ends; a box around it does.
    """
    surface, *others = patches
    side = len(surface)
    for patch in others:
        shift = tuple(random.integers(-side // 3, side // 3 + 1, 2))
        cover = np.roll(outline(side, random), shift, (0, 1)).astype(np.float32)[..., None] / 255
        surface = np.asarray(surface + (patch - surface) * cover, np.float32)
    return surface
