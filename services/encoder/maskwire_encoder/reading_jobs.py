"""What waits to be read, and what comes of it: pixels that are prepared for a model."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from maskwire.pictures import Picture, Stretch
from maskwire.pictures.cost import Cost
from maskwire_core.masks.geometry import Rectangle
from torch import Tensor

from maskwire_encoder.backends.model import Model
from maskwire_encoder.image_input.preprocessing import resize_frame
from maskwire_encoder.image_input.reader_pool import Handle
from maskwire_encoder.spool import ImageFile


@dataclass(frozen=True)
class Pixels:
    """A decoded image, prepared for a model."""

    height: int  # height of the image in pixels
    width: int  # width of the image in pixels
    prepared: Tensor  # the model's input, made by `Model.prepare`
    stretch: Stretch = "none"  # how samples of more than 8 bits were mapped to 8 bits
    warnings: tuple[str, ...] = ()  # what the libraries that decoded the file had to say


@dataclass(frozen=True)
class File:
    """An image file that waits to be decoded."""

    content: ImageFile  # the file itself, which is complete
    stretch: Stretch  # how samples of more than 8 bits are mapped to 8 bits
    is_frame: bool  # whether it is resized as a frame of a video
    part: Rectangle | None  # the part of the picture that is wanted; None for all of it
    cost: Cost  # what decoding may take
    tenant: str  # on whose account its memory is
    handle: Handle  # ends the decoding if nobody wants it any more
    keep: Callable[[Picture], None] | None  # is given the whole picture, whose pixels are gone when it returns


@dataclass(frozen=True)
class Cut:
    """A part of a decoded picture that waits to be prepared for a model."""

    copy: Callable[[], Picture | None]  # makes a picture of the part; None if the whole one has left memory
    is_frame: bool  # whether it is resized as a frame of a video


class Forgotten(Exception):
    """A picture of which a part was wanted has left memory."""


def cut_part(model: Model, cut: Cut) -> Pixels:
    """Prepares a part of a decoded picture for a model. Raises `Forgotten`."""
    picture = cut.copy()
    if picture is None:
        raise Forgotten
    return prepare_pixels(model, picture, None, cut.is_frame)


def prepare_pixels(
    model: Model, picture: Picture, part: Rectangle | None, is_frame: bool, warnings: tuple[str, ...] = ()
) -> Pixels:
    """Prepares a picture, or a part of it, for a model."""
    pixels = picture.pixels
    if part is not None:
        x, y, width, height = part
        # A file of the part alone would be upright; what is turned after resizing differs in the last digits.
        pixels = np.ascontiguousarray(pixels[y : y + height, x : x + width])
    height, width, _ = pixels.shape
    pixels = resize_frame(pixels, model.image_size) if is_frame else pixels
    return Pixels(height, width, model.prepare(pixels), picture.stretch, warnings)
