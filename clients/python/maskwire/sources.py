"""Images as callers pass them: paths, bytes, PIL images, arrays, open files."""

import hashlib
import os
import threading
from collections.abc import Hashable
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire import pictures
from maskwire.errors import InvalidRequest
from maskwire.pictures import Channels, PictureError, Stretch
from maskwire.v1 import types_pb2


class ArrayLike(Protocol):
    """An object that NumPy can convert, such as a torch tensor."""

    def __array__(self) -> NDArray[Any]: ...


STRETCHES: dict[Stretch, types_pb2.Stretch.ValueType] = {
    "auto": types_pb2.STRETCH_UNSPECIFIED,
    "none": types_pb2.STRETCH_NONE,
    "range": types_pb2.STRETCH_RANGE,
    "percentile": types_pb2.STRETCH_PERCENTILE,
}


class Reading(NamedTuple):
    """How to decode an image."""

    channels: Channels = "rgb"  # order of an array's colour channels
    stretch: Stretch = "auto"  # how samples are mapped to 8 bits


DEFAULT_READING = Reading()


class Source:
    """An image that can be read as the bytes of an image file.

    A file given by its path is read each time its bytes are needed, rather than kept in memory. A PIL image or an array
    is encoded without loss; see docs/reference/pictures.md.

    Args:
        image: The image.
        reading: How to decode it.

    Raises:
        InvalidRequest: The image has an unsupported type, or cannot be read.
    """

    full_size: tuple[int, int] | None = None  # of the picture, where the file that is read is a smaller version of it

    def __init__(self, image: "ImageLike", reading: Reading = DEFAULT_READING) -> None:
        self._path: Path | None = None
        self._digested: tuple[Hashable, bytes] = (None, b"")  # what the file was when its digest was computed, and that
        self._data = b""
        self.name = type(image).__name__
        self.stretch = reading.stretch
        try:
            pictures.check_stretch(reading.stretch)
            pictures.check_channels(reading.channels)
            self._take(image, reading.channels)
        except PictureError as error:
            raise invalid_picture(error) from error

    def _take(self, image: Any, channels: Channels) -> None:
        is_array = not isinstance(image, Image.Image) and pictures.is_array(image)
        if channels != "rgb" and not is_array:
            raise InvalidRequest(
                f"channels={channels!r} is for arrays; the channel order of {type(image).__name__} is known",
                "BAD_CHANNELS",
                "channels",
            )
        if isinstance(image, str | os.PathLike):
            self._path = Path(image)
            self.name = str(image)
        elif isinstance(image, bytes | bytearray | memoryview):
            self._data = bytes(image)
        elif isinstance(image, Image.Image):
            self._data = pictures.from_pil(image)
        elif is_array:
            self._data = pictures.from_array(image, channels)
        elif hasattr(image, "read"):
            if image.seekable():
                image.seek(0)  # the whole file is meant, even if it has been read before
            self._data = image.read()
            if not isinstance(self._data, bytes):
                raise InvalidRequest("the file is open as text; open it with mode 'rb'", "BAD_IMAGE", "image")
            self.name = str(getattr(image, "name", self.name))
        else:
            raise InvalidRequest(
                f"{type(image).__name__} is not an image; give a path, bytes, PIL image, array, tensor or binary file",
                "BAD_IMAGE",
                "image",
            )

    def identify(self) -> Hashable:
        """Returns a key that is equal for equal content decoded in the same way. It is cheap to compute: path, size and
        modification time of a file, else a digest."""
        if self._path is None:
            return self._held_digest, self.stretch
        try:
            status = self._path.stat()
        except OSError as error:
            raise unreadable_file(self._path, error) from error
        return str(self._path.resolve()), status.st_size, status.st_mtime_ns, self.stretch

    def content_name(self) -> str:
        """Makes a name for the image from a digest of its file and, unless it is auto, the stretch."""
        name = f"sha256-{self.load()[2].hex()}"
        return name if self.stretch == "auto" else f"{name}-{self.stretch}"

    def load(self) -> tuple[Hashable, bytes, bytes]:
        """Returns what `identify` and `read` return, and the SHA-256 of the bytes, computed once unless they change."""
        identity = self.identify()  # before the bytes: a file that changes meanwhile is another one next time
        data = self.read()
        if self._path is None:
            return identity, data, self._held_digest
        if self._digested[0] != identity:
            self._digested = identity, hashlib.sha256(data).digest()
        return identity, data, self._digested[1]

    @cached_property
    def _held_digest(self) -> bytes:
        return hashlib.sha256(self._data).digest()

    @property
    def held_bytes(self) -> int:
        """Number of bytes that this object keeps in memory."""
        return len(self._data)

    def read(self) -> bytes:
        """Returns the bytes of the image file.

        Raises:
            InvalidRequest: The file cannot be read.
        """
        if self._path is None:
            return self._data
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise unreadable_file(self._path, error) from error

    def window(self, place: tuple[int, int, int, int]) -> Image.Image | None:
        """Returns a part of the picture, x_min, y_min, x_max, y_max, if it can be read without the rest, or a smaller
        version of that part; else None."""
        return None

    def picture(self) -> Image.Image:
        """Decodes the image as the encoder does, to RGB.

        Raises:
            InvalidRequest: The image cannot be decoded.
        """
        try:
            pixels = pictures.decode_picture(self.read(), stretch=self.stretch).pixels
        except PictureError as error:
            raise invalid_picture(error) from error
        return Image.fromarray(np.ascontiguousarray(pixels))


class LastPicture:
    """The picture that was cut last, decoded: prompts on one image often come one after another."""

    def __init__(self) -> None:
        self._identity: Hashable = None
        self._picture = Image.new("RGB", (1, 1))
        self._lock = threading.Lock()

    def crop(self, source: Source, place: tuple[int, int, int, int]) -> Image.Image:
        """Cuts a part out of a picture: x_min, y_min, x_max, y_max in pixels of it; or a smaller version of that part,
        where the source gives such. Blocks.

        Raises:
            InvalidRequest: The picture cannot be decoded.
        """
        window = source.window(place)
        if window is not None:
            return window
        with self._lock:
            identity = source.identify()
            if identity != self._identity:
                self._picture, self._identity = source.picture(), identity
            return self._picture.crop(place)


def part_of_picture(window: Image.Image, place: tuple[int, int, int, int]) -> Source:
    """Makes a source of a part of a picture, as `LastPicture.crop` gives it. Blocks."""
    part, size = Source(window), (place[2] - place[0], place[3] - place[1])
    part.full_size = None if window.size == size else size
    return part


_File = bytes | bytearray | memoryview | IO[bytes]
ImageLike = str | os.PathLike[str] | _File | Image.Image | NDArray[Any] | ArrayLike | Source


def stretch_of(value: types_pb2.Stretch.ValueType) -> Stretch:
    """Converts the stretch of a response."""
    return next((name for name, number in STRETCHES.items() if name != "auto" and number == value), "none")


def invalid_picture(error: PictureError) -> InvalidRequest:
    """Makes the error of a call from one about a picture."""
    fields = {"BAD_STRETCH": "stretch", "BAD_CHANNELS": "channels", "BAD_BANDS": "bands"}
    return InvalidRequest(error.message, error.reason, fields.get(error.reason, "image"))


def unreadable_file(path: Path, error: OSError) -> InvalidRequest:
    """Makes the error of a call from one of the operating system about a file."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return InvalidRequest(f"no such file: {path}", "NO_SUCH_FILE", "image")
    return InvalidRequest(f"cannot read {path}: {error.strerror or error}", "UNREADABLE_FILE", "image")
