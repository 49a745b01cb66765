"""Writes films with PyAV, frame by frame."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskwire.errors import InvalidRequest
from maskwire.video.films import load_av

_TICKS = 90_000  # of a second: times of any frame rate, nearly
_BT709 = 1  # the colour space, and its number in the file
_LIMITED_RANGE = 1
_H264 = ("libx264", "libopenh264", "h264")
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    ".mp4": ("mp4", (*_H264, "mpeg4")),
    ".mov": ("mov", (*_H264, "mpeg4")),
    ".mkv": ("matroska", (*_H264, "mpeg4")),
    ".webm": ("webm", ("libvpx-vp9", "libvpx")),
}
FILM_ENDINGS = tuple(_KINDS)
"""Endings of the films that can be written."""

_QUALITY = {
    "libx264": {"crf": "18", "preset": "medium", "tune": "animation"},
    "libvpx-vp9": {"crf": "28", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    "libvpx": {"crf": "10", "b": "4M"},
    "mpeg4": {"qscale": "3"},
}


class FilmWriter:
    """A film: H.264 in MP4, MOV or MKV, or VP9 in WebM. Frames keep their times, also where their rate varies.

    Args:
        path: File to write.
        ending: Which kind it is, such as ".mp4".
        size: Width and height of all frames. H.264 wants even numbers: odd ones lose a row or column of pixels.
        frame_rate: Frames of a second, on average.

    Raises:
        OutputMissing: NO_PYAV: PyAV is not installed.
        InvalidRequest: BAD_OUTPUT: this build of FFmpeg has no encoder for it.
    """

    def __init__(self, path: Path, ending: str, size: tuple[int, int], frame_rate: float) -> None:
        self._av = load_av()
        form, encoders = _KINDS[ending]
        self._size = max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2)
        self._begins_s: float | None = None
        self._last = -1
        encoder = next((name for name in encoders if name in self._av.codecs_available), None)
        if encoder is None:
            raise InvalidRequest(
                f"PyAV on this machine has no encoder for {ending} ({', '.join(encoders)}); write .gif",
                "BAD_OUTPUT",
                "path",
            )
        options = {"movflags": "+faststart"} if form in ("mp4", "mov") else {}
        self._container: Any = self._av.open(str(path.absolute()), "w", format=form, options=options)
        rate = Fraction(frame_rate).limit_denominator(1001)
        self._stream: Any = self._container.add_stream(encoder, rate=rate, options=_QUALITY.get(encoder, {}))
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = Fraction(1, _TICKS)
        # Players guess the colours of a film that does not say which they are, by its size.
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE

    def write(self, picture: Image.Image, time_s: float) -> None:
        """Adds an RGB picture that is shown from a time on; the first is shown from the beginning."""
        if self._begins_s is None:
            self._begins_s = time_s
        frame = self._av.VideoFrame.from_ndarray(_cut(picture, self._size), format="rgb24")
        frame = frame.reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", interpolation="BICUBIC"
        )
        self._last = max(self._last + 1, round((time_s - self._begins_s) * _TICKS))
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Writes what the encoder holds back, and closes the file."""
        if self._begins_s is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def _cut(picture: Image.Image, size: tuple[int, int]) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    pixels = np.asarray(picture)
    pixels = pixels[: size[1], : size[0]]
    missing = size[1] - pixels.shape[0], size[0] - pixels.shape[1]  # of a frame that is a pixel wide or high
    return np.ascontiguousarray(np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge"))
