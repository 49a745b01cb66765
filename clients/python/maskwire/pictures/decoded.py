"""What readers of formats give, before orientation, profile, transparency and stretch are applied."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire.pictures.levels import Levels


@dataclass
class Decoded:
    """A picture as its file has it: an 8-bit PIL image, levels, or finished pixels.

    Attributes:
        image: A loaded PIL image with 8 bits a sample, or fewer.
        levels: Samples of another type, or such as have their transparency in `alpha`.
        pixels: HxWx3, uint8, sRGB, opaque: nothing is left to do but orientation.
        alpha: HxW, of any type: transparency of `levels`; 0 is transparent.
        exif: EXIF block, for the orientation.
        orientation: Instead of `exif`, 1 to 8.
        profile: ICC profile.
    """

    image: Image.Image | None = None
    levels: Levels | None = None
    pixels: NDArray[np.uint8] | None = None
    alpha: NDArray[Any] | None = None
    exif: object = None
    orientation: int | None = None
    profile: bytes | None = None
