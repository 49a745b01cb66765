"""Draws objects over a frame: their masks in smooth colours, and their names."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from maskwire.exports import bounding_box
from maskwire.video.colours import Colour, object_colour, outline_colour, text_colour

_OPACITY = 0.45
_EDGE_OPACITY = 0.95
_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "arialuni.ttf", "Arial Unicode.ttf")
"""Fonts with more than Latin letters, where Pillow finds them; its own has those."""


def draw_objects(
    picture: Image.Image, masks: Mapping[str, NDArray[np.bool_]], objects: Sequence[str], names: bool = True
) -> Image.Image:
    """Draws masks over a picture, smaller ones over larger ones, each with an outline and its object's name.

    Args:
        picture: RGB picture.
        masks: Masks of the objects that are to be seen, HxW each, of the picture's size.
        objects: Names of all objects of the clip: an object's place in it decides its colour.
        names: Whether to write the objects' names.

    Returns:
        A new picture.
    """
    pixels = np.array(picture.convert("RGB"))
    line = max(1.0, max(picture.size) / 640)
    colours = {name: object_colour(number) for number, name in enumerate(objects)}
    ordered = sorted(masks, key=lambda name: int(np.count_nonzero(masks[name])), reverse=True)
    for name in ordered:
        _blend(pixels, masks[name], colours[name], line)
    drawn = Image.fromarray(pixels)
    if names:
        _write_names(drawn, {name: bounding_box(masks[name]) for name in objects if name in masks}, colours)
    return drawn


def _blend(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], colour: Colour, line: float) -> None:
    """Blends a mask over pixels, HxWx3, in place."""
    x_min, y_min, x_max, y_max = bounding_box(mask)
    if x_max == x_min:
        return
    margin = round(3 * line) + 1
    rows = slice(max(0, y_min - margin), y_max + margin)
    columns = slice(max(0, x_min - margin), x_max + margin)
    # Blurring the mask makes stairs of pixels smooth: inside is 1, the border between two pixels 0.5.
    hard = Image.fromarray(mask[rows, columns].view(np.uint8) * 255)
    soft = np.asarray(hard.filter(ImageFilter.GaussianBlur(0.8 * line)), np.float32)[..., None] / 255
    inside = np.clip((soft - 0.5) * 2 + 0.5, 0, 1)
    edge = np.clip(1.5 * (1 - np.abs(2 * soft - 1)), 0, 1)
    below = pixels[rows, columns].astype(np.float32)
    tinted = below + _OPACITY * inside * (np.array(colour, np.float32) - below)
    outline = np.array(outline_colour(colour), np.float32)
    tinted += _EDGE_OPACITY * edge * (outline - tinted)
    pixels[rows, columns] = np.rint(tinted).astype(np.uint8)


def _write_names(
    drawn: Image.Image, boxes: Mapping[str, tuple[int, int, int, int]], colours: Mapping[str, Colour]
) -> None:
    """Writes each object's name above it, on a plate of its colour; plates do not cover one another."""
    size = max(10, round(max(drawn.size) / 38))
    pen = ImageDraw.Draw(drawn)
    padding_x, padding_y = round(size * 0.45), round(size * 0.22)
    taken: list[tuple[float, float, float, float]] = []
    for name, (x_min, y_min, x_max, y_max) in boxes.items():
        if x_max == x_min:
            continue
        font = _font(size, name.isascii())
        left, _, right, _ = pen.textbbox((0, 0), name, font=font, anchor="ls")
        ascent = pen.textbbox((0, 0), "Ag", font=font, anchor="ls")
        width = right - left + 2 * padding_x
        height = ascent[3] - ascent[1] + 2 * padding_y
        x = min(max(0, (x_min + x_max - width) / 2), max(0, drawn.width - width))
        y = y_min - height - size * 0.35
        if y < 0:  # no room above it
            y = min(y_max + size * 0.35, drawn.height - height) if y_max + 2 * height < drawn.height else 0
        for other in sorted(taken, key=lambda plate: plate[1]):
            if x < other[2] and other[0] < x + width and y < other[3] and other[1] < y + height:
                y = other[3] + 1
        y = min(max(0, y), drawn.height - height)
        taken.append((x, y, x + width, y + height))
        pen.rounded_rectangle((x, y, x + width, y + height), radius=height * 0.3, fill=colours[name])
        baseline = y + padding_y - ascent[1]
        pen.text((x + padding_x - left, baseline), name, font=font, fill=text_colour(colours[name]), anchor="ls")


@functools.lru_cache(maxsize=8)
def _font(size: int, is_plain: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in () if is_plain else _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
