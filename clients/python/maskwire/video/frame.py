"""A frame of a clip: its picture, when it is shown, and how it is sent."""

import io
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

from PIL import Image

from maskwire.errors import InvalidRequest
from maskwire.sources import Source

_JPEG_QUALITY = 95
_UNCHANGED = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
"""Beginnings of the files that are sent as they are: JPEG and PNG."""


class StoredFrame(NamedTuple):
    """A frame as a clip holds it, before it is decided whether it is wanted."""

    time_s: float | None  # when it is shown, from the clip's beginning; None where the clip does not say
    name: str  # what to call it in messages
    load: Callable[[], Image.Image | Source]  # decodes it; valid until the next frame is read


class Frame:
    """A frame of a clip.

    Attributes:
        index: Its number among the frames that were selected, from 0: what prompts and masks call it.
        time_s: When it is shown, in seconds from the beginning of the clip.
        name: What to call it in messages: the file's name, or the number and the time.
    """

    def __init__(
        self, index: int, time_s: float, name: str, content: Image.Image | Source, max_side: int | None = None
    ) -> None:
        self.index = index
        self.time_s = time_s
        self.name = name
        self._content = content
        self._max_side = max_side

    def __repr__(self) -> str:
        return f"<Frame {self.index} at {self.time_s:.3f} s>"

    @cached_property
    def picture(self) -> Image.Image:
        """The frame as a viewer shows it, RGB.

        Raises:
            InvalidRequest: Its file cannot be decoded.
        """
        return scaled_down(self._original, self._max_side)

    @cached_property
    def _original(self) -> Image.Image:
        if not isinstance(self._content, Source):
            return self._content
        try:
            return self._content.picture()
        except InvalidRequest as error:
            raise InvalidRequest(f"{self.name}: {error.message}", error.reason, "clip") from error

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.picture.size

    def encode(self, lossless: bool = False) -> bytes:
        """Encodes the frame as a file to send.

        JPEG and PNG files that the frame was read from are returned as they are. Other frames become JPEGs of quality
        95 without chroma subsampling, or PNGs.

        Args:
            lossless: Whether to encode as PNG rather than as JPEG.
        """
        if isinstance(self._content, Source) and self.picture is self._original:
            data = self._content.read()
            if data.startswith(_UNCHANGED):
                return data
        buffer = io.BytesIO()
        if lossless:
            self.picture.save(buffer, "PNG", compress_level=1)
        else:
            self.picture.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
        return buffer.getvalue()


def scaled_down(picture: Image.Image, max_side: int | None) -> Image.Image:
    """Scales a picture down such that its longer side has at most so many pixels; None: not at all."""
    if max_side is None or max(picture.size) <= max_side:
        return picture
    factor = max_side / max(picture.size)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    return picture.resize(size, Image.Resampling.LANCZOS)
