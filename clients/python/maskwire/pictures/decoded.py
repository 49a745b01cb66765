"""The intermediate result of decoding, before orientation, colour profile, transparency and stretch are applied."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire.pictures.levels import Levels


@dataclass
class Decoded:
    """A picture as its file stores it. Exactly one of `image`, `levels` and `pixels` is set.

    Attributes:
        image: Loaded PIL image with at most 8 bits a sample.
        levels: Samples of any other type, or samples whose transparency is in `alpha`.
        pixels: HxWx3, uint8, sRGB and opaque: only the orientation still has to be applied.
        alpha: Transparency of `levels`, HxW of any type; 0 is transparent.
        exif: EXIF block, which gives the orientation if `orientation` is None.
        orientation: EXIF orientation, 1 to 8.
        profile: ICC profile.
    """

    image: Image.Image | None = None
    levels: Levels | None = None
    pixels: NDArray[np.uint8] | None = None
    alpha: NDArray[Any] | None = None
    exif: object = None
    orientation: int | None = None
    profile: bytes | None = None
