"""Pictures: files, PIL images and arrays to pixels, by one set of rules (docs/pictures.md).

Needs NumPy and Pillow alone; the encoder uses it, too. `read` turns a file's bytes into pixels. `from_pil` and
`from_array` turn what a program holds into a file that `read` shows in the same way.
"""

from maskwire.pictures.arrays import Channels, check_channels, from_array, is_array
from maskwire.pictures.decoders import DecodeJpeg
from maskwire.pictures.errors import PictureError
from maskwire.pictures.images import from_pil
from maskwire.pictures.levels import STRETCHES, Stretch
from maskwire.pictures.levels import check as check_stretch
from maskwire.pictures.reading import Picture, read

__all__ = [
    "STRETCHES",
    "Channels",
    "DecodeJpeg",
    "Picture",
    "PictureError",
    "Stretch",
    "check",
    "from_array",
    "from_pil",
    "is_array",
    "read",
]


def check(stretch: str, channels: str = "rgb") -> None:
    """Refuses names that are no `Stretch` or no `Channels`.

    Raises:
        PictureError: BAD_STRETCH or BAD_CHANNELS.
    """
    check_stretch(stretch)
    check_channels(channels)
