"""Images as users have them: paths, bytes, PIL images, arrays, open files."""

import hashlib
import io
import os
from collections.abc import Hashable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from maskwire.errors import InvalidRequest

ImageLike = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any] | IO[bytes]

_PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")


class Source:
    """The bytes of an image file, with a name to print.

    A path is read when its bytes are needed, and again later rather than kept in memory. A PIL image or an array (HxW,
    HxWx3 RGB or HxWx4 RGBA, uint8) becomes a PNG, without loss.

    Raises:
        InvalidRequest: It is none of these, or cannot be read.
    """

    def __init__(self, image: ImageLike) -> None:
        self._path: Path | None = None
        self._data = b""
        self.name = type(image).__name__
        if isinstance(image, str | os.PathLike):
            self._path = Path(image)
            self.name = str(image)
        elif isinstance(image, bytes | bytearray | memoryview):
            self._data = bytes(image)
        elif isinstance(image, Image.Image):
            self._data = _png(image)
        elif isinstance(image, np.ndarray):
            self._data = _png(_from_array(image))
        elif hasattr(image, "read"):
            if image.seekable():
                image.seek(0)  # a file that was used before is meant as a whole
            self._data = image.read()
            self.name = str(getattr(image, "name", self.name))
        else:
            raise InvalidRequest(
                f"{type(image).__name__} is no image; give a path, bytes, PIL image, uint8 array or binary file",
                "BAD_IMAGE",
                "image",
            )

    def identify(self) -> Hashable:
        """Equal for equal content, cheap to get: a file's place, size and time, or a digest."""
        if self._path is None:
            return hashlib.sha256(self._data).digest()
        try:
            status = self._path.stat()
        except OSError as error:
            raise _unreadable(self._path, error) from error
        return str(self._path.resolve()), status.st_size, status.st_mtime_ns

    @property
    def held_bytes(self) -> int:
        """Bytes that this object keeps in memory."""
        return len(self._data)

    def read(self) -> bytes:
        """The file's bytes."""
        if self._path is None:
            return self._data
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise _unreadable(self._path, error) from error

    def picture(self) -> Image.Image:
        """The image as its viewer shows it, RGB: the encoder's rules for EXIF, transparency and 16 bits."""
        with Image.open(io.BytesIO(self.read())) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):
                return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
            if image.has_transparency_data:
                layered = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)
            return image.convert("RGB")


def _unreadable(path: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest(f"cannot read {path}: {error.strerror or error}", "UNREADABLE_FILE", "image")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image = ImageOps.exif_transpose(image)  # Pillow opens files without applying it
    image = image if image.mode in _PNG_MODES else image.convert("RGB")
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InvalidRequest(
            f"an array of {array.dtype} and shape {array.shape}; give uint8 of HxW, HxWx3 (RGB) or HxWx4 (RGBA)",
            "BAD_IMAGE",
            "image",
        )
    return Image.fromarray(array)
