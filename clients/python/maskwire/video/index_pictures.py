"""Masks of a frame as a picture of object numbers, as DAVIS has them."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire.errors import InvalidRequest

_MOST = 255


def index_picture(masks: Mapping[str, NDArray[np.bool_]], objects: Sequence[str], size: tuple[int, int]) -> Image.Image:
    """Makes a picture with a palette: 0 outside, 1 for the first object, and so on, in the colours of DAVIS.

    Where masks overlap, the object with the lowest number is on top, as in sam2's vos_inference.py.

    Args:
        masks: Masks of the objects that are to be seen, HxW each.
        objects: Names of all objects of the clip, in order.
        size: Width and height of the picture.

    Raises:
        InvalidRequest: BAD_OUTPUT: there are more than 255 objects.
    """
    if len(objects) > _MOST:
        raise InvalidRequest(
            f"{len(objects)} objects do not fit into pictures of object numbers, which end at {_MOST}; write .json",
            "BAD_OUTPUT",
            "path",
        )
    numbers = np.zeros(size[::-1], np.uint8)
    for number in range(len(objects), 0, -1):
        mask = masks.get(objects[number - 1])
        if mask is not None:
            numbers[mask] = number
    picture = Image.fromarray(numbers)
    picture.putpalette(davis_palette())
    return picture


def davis_palette() -> list[int]:
    """Returns the 256 colours of DAVIS and Pascal VOC, red, green and blue in turn: bits of the number, dealt out."""
    colours = []
    for number in range(256):
        for channel in range(3):
            bits = [number >> (3 * place + channel) & 1 for place in range(3)]
            colours.append(sum(bit << (7 - place) for place, bit in enumerate(bits)))
    return colours
