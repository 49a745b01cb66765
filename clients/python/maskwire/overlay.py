"""Draws masks over pictures."""

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from maskwire.v1 import types_pb2

_FILL = (30, 136, 229)
_EDGE = (255, 255, 255)
_POSITIVE = (46, 204, 64)
_NEGATIVE = (255, 65, 54)
_BOX = (255, 220, 0)
_OPACITY = 0.5


def draw(picture: Image.Image, mask: NDArray[np.bool_], prompt: types_pb2.Prompt) -> Image.Image:
    """Draws a mask, and the points and box of its prompt.

    Args:
        picture: RGB picture.
        mask: HxW, of the picture's size.
        prompt: The prompt, in pixels of the picture.

    Returns:
        A new picture: the mask tinted blue with a white edge, positive points green, negative points red, boxes yellow.
    """
    pixels = np.array(picture)
    pixels[mask] = ((1 - _OPACITY) * pixels[mask] + _OPACITY * np.array(_FILL)).astype(np.uint8)
    unit = max(1, round(max(picture.size) / 500))
    pixels[_edge(mask, unit)] = _EDGE
    drawn = Image.fromarray(pixels)
    pen = ImageDraw.Draw(drawn)
    if prompt.HasField("box"):
        box = prompt.box
        pen.rectangle((box.x_min_px, box.y_min_px, box.x_max_px, box.y_max_px), outline=_BOX, width=2 * unit)
    for point in prompt.points:
        color = _POSITIVE if point.label else _NEGATIVE
        pen.circle((point.x_px, point.y_px), 5 * unit, fill=color, outline=_EDGE, width=unit)
    return drawn


def draw_all(picture: Image.Image, masks: Sequence[NDArray[np.bool_]]) -> Image.Image:
    """Draws several masks, each in a different colour, smaller ones over larger ones.

    Args:
        picture: RGB picture.
        masks: Masks, HxW each, of the picture's size.

    Returns:
        A new picture.
    """
    pixels = np.array(picture)
    unit = max(1, round(max(picture.size) / 1000))
    # Multiples of the golden ratio spread hues evenly, for any number of masks.
    colors = [colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.75, 1) for number in range(len(masks))]
    for color, mask in zip(colors, sorted(masks, key=np.count_nonzero, reverse=True), strict=True):
        pixels[mask] = ((1 - _OPACITY) * pixels[mask] + _OPACITY * 255 * np.array(color)).astype(np.uint8)
        pixels[_edge(mask, unit)] = (255 * np.array(color)).astype(np.uint8)
    return Image.fromarray(pixels)


def _edge(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Returns the pixels of a mask that have a pixel outside it within `width` pixels above, below, left or right."""
    padded = np.pad(mask, width)
    inner = mask.copy()
    rows, columns = mask.shape
    for step in (-width, width):
        inner &= padded[width + step : width + step + rows, width : width + columns]
        inner &= padded[width : width + rows, width + step : width + step + columns]
    return mask & ~inner
