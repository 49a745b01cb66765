"""Reads animated pictures with Pillow: GIF, WebP and APNG."""

import functools
import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from maskwire.errors import InvalidRequest
from maskwire.pictures.errors import decoder_message
from maskwire.video.frame import StoredFrame

_SHORTEST_MS = 20  # browsers show frames that state less for 100 ms
_SHOWN_MS = 100
_MAGIC = (b"GIF87a", b"GIF89a", b"\x89PNG\r\n\x1a\n")


def is_animation(beginning: bytes) -> bool:
    """Tells from a file's first bytes whether it may be an animated picture."""
    return beginning.startswith(_MAGIC) or (beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP")


class Animation:
    """An animated picture as a source of frames, which are blended over white as other pictures are.

    Args:
        file: Path, or the file's bytes.
        name: What to call it in messages.

    Attributes:
        frame_rate: Frames of a second, by the time of the first.
        frames: Number of its frames.

    Raises:
        InvalidRequest: CLIP_UNREADABLE: it cannot be decoded. NOT_A_CLIP: it is a single picture.
    """

    has_times = True

    def __init__(self, file: Path | bytes, name: str) -> None:
        self._file = file
        self._name = name
        with self._open() as picture:
            self.frames = int(getattr(picture, "n_frames", 1))
            if self.frames == 1:
                raise InvalidRequest(
                    f"{name} is a single picture; give a film, an animation, a folder or a list of pictures",
                    "NOT_A_CLIP",
                    "clip",
                )
            self.frame_rate = 1000 / _duration_ms(picture)

    def read(self, start_s: float) -> Iterator[StoredFrame]:
        """Yields all frames; a frame that is skipped is decoded too, since the next ones may show parts of it."""
        time_ms = 0.0
        with self._open() as picture:
            for index in range(self.frames):
                self._seek(picture, index)
                yield StoredFrame(time_ms / 1000, f"frame {index}", functools.partial(_over_white, picture))
                time_ms += _duration_ms(picture)

    def _open(self) -> Image.Image:
        file = io.BytesIO(self._file) if isinstance(self._file, bytes) else self._file
        try:
            return Image.open(file)
        except Exception as error:  # decoders raise all kinds of exceptions for damaged files
            raise self._unreadable(decoder_message(error)) from error

    def _seek(self, picture: Image.Image, index: int) -> None:
        try:
            picture.seek(index)
            picture.load()
        except Exception as error:
            raise self._unreadable(f"frame {index}: {decoder_message(error)}") from error

    def _unreadable(self, why: str) -> InvalidRequest:
        return InvalidRequest(f"{self._name} cannot be read as an animation: {why}", "CLIP_UNREADABLE", "clip")


def _duration_ms(picture: Image.Image) -> float:
    duration_ms = float(picture.info.get("duration", 0) or 0)
    return duration_ms if duration_ms >= _SHORTEST_MS else _SHOWN_MS


def _over_white(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
