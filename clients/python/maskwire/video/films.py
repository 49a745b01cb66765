"""Reads films with PyAV: MP4, MOV, WebM, MKV, AVI and what else FFmpeg demuxes."""

import functools
import io
import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from maskwire.errors import InvalidRequest, OutputMissing
from maskwire.pictures.orientation import upright_image
from maskwire.video.frame import StoredFrame

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,ivf,mxf,nut,h264,hevc,m4v"
"""What may be in a file. Without playlists, whose text could have FFmpeg open other files and addresses."""

_DEFAULT_RATE = 25.0
_SEEKS_FROM_S = 2.0  # an earlier start is reached by decoding


def load_av() -> Any:
    """Imports PyAV.

    Raises:
        OutputMissing: NO_PYAV: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise OutputMissing('films need PyAV: pip install "maskwire[video]"', "NO_PYAV") from error
    return av


class Film:
    """A film as a source of frames.

    Args:
        file: Path, or the file's bytes.
        name: What to call it in messages.

    Attributes:
        frame_rate: Frames of a second, on average.
        frames: Number of its frames, as the file says or its length suggests; None if it is not known.

    Raises:
        InvalidRequest: CLIP_UNREADABLE: it is no film, or has no pictures.
        OutputMissing: NO_PYAV: PyAV is not installed.
    """

    has_times = True

    def __init__(self, file: Path | bytes, name: str) -> None:
        self._av = load_av()
        self._file = file
        self._name = name
        with self._open() as (container, stream):
            rate = stream.average_rate or stream.guessed_rate or stream.base_rate
            self.frame_rate = float(rate) if rate else _DEFAULT_RATE
            self.frames = stream.frames or _frames_of_length(container, stream, self.frame_rate)

    def read(self, start_s: float) -> Iterator[StoredFrame]:
        """Yields the frames in the order in which they are shown, from the key frame before `start_s` or earlier."""
        if start_s >= _SEEKS_FROM_S:
            frames = self._decode(start_s)
            first = next(frames, None)
            if first is not None and first.time_s is not None and first.time_s <= start_s:
                yield first
                yield from frames
                return
            frames.close()  # the file's index leads too far, or nowhere
        yield from self._decode(0)

    def _decode(self, seek_s: float) -> Generator[StoredFrame]:
        number = 0
        with self._open() as (container, stream):
            stream.thread_type = "AUTO"
            base = stream.time_base
            begins = (stream.start_time or 0) * base if base else 0
            if seek_s and base:
                container.seek(math.floor((seek_s + begins) / base), stream=stream)
            for decoded in container.decode(stream):
                time_s = None if decoded.pts is None or not base else float(decoded.pts * base - begins)
                when = "" if time_s is None else f" at {time_s:.3f} s"
                yield StoredFrame(time_s, f"frame {number}{when}", functools.partial(_as_shown, decoded, stream))
                number += 1

    @contextmanager
    def _open(self) -> "Iterator[tuple[InputContainer, VideoStream]]":
        """Opens the file, and reports errors of FFmpeg as errors about the clip."""
        try:
            with (
                self._file.open("rb") if isinstance(self._file, Path) else io.BytesIO(self._file) as opened,
                self._av.open(opened, options={"format_whitelist": _DEMUXERS}) as container,
            ):
                attached = self._av.stream.Disposition.attached_pic  # the cover of a song
                streams = [each for each in container.streams.video if not each.disposition & attached]
                if not streams:
                    raise InvalidRequest(f"{self._name} has no pictures, only sound", "CLIP_UNREADABLE", "clip")
                yield container, streams[0]
        except self._av.error.FFmpegError as error:
            raise InvalidRequest(
                f"{self._name} cannot be read as a film: {error.strerror or error}; where only its end is damaged, "
                "end_s (--end-s) stops before that",
                "CLIP_UNREADABLE",
                "clip",
            ) from error
        except OSError as error:
            raise InvalidRequest(
                f"cannot read {self._name}: {error.strerror or error}", "UNREADABLE_FILE", "clip"
            ) from error


def _frames_of_length(container: "InputContainer", stream: "VideoStream", frame_rate: float) -> int | None:
    if stream.duration and stream.time_base:
        return max(1, round(float(stream.duration * stream.time_base) * frame_rate))
    return max(1, round(container.duration / 1e6 * frame_rate)) if container.duration else None


def _as_shown(decoded: "av.VideoFrame", stream: "VideoStream") -> Image.Image:
    """Converts a frame to RGB as players show it: square pixels, turned as the file says."""
    shape = stream.sample_aspect_ratio
    width = max(1, round(decoded.width * shape)) if shape and shape > 0 else decoded.width
    scaled: Any = decoded.reformat(width=width, format="rgb24", interpolation="BICUBIC")
    return upright_image(scaled.to_image(), orientation_of(decoded))


def orientation_of(decoded: "av.VideoFrame") -> int:
    """Returns how a frame must be turned to be upright, as EXIF numbers it; from the file's display matrix."""
    matrix: Any = decoded.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    # (x, y) is shown at (a x + c y, b x + d y), with y down.
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return {(1, 1): 1, (-1, 1): 2, (-1, -1): 3, (1, -1): 4}[_sign(a), _sign(d)]
    return {(1, 1): 5, (1, -1): 6, (-1, -1): 7, (-1, 1): 8}[_sign(b), _sign(c)]


def _sign(number: int) -> int:
    return 1 if number >= 0 else -1
