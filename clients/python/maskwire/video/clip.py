"""Clips as callers pass them: films, animated pictures, folders and lists of pictures."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, TypedDict

from numpy.typing import NDArray

from maskwire.arguments import checked
from maskwire.downloads import fetch, is_url
from maskwire.errors import InvalidRequest
from maskwire.sources import ImageLike
from maskwire.video.animations import Animation, is_animation
from maskwire.video.films import Film
from maskwire.video.frame import Frame, StoredFrame
from maskwire.video.selection import Selection
from maskwire.video.stills import Stills, pictures_in

_FRAME_RATE = 24.0  # of pictures, whose times nobody knows: DAVIS'
_LONGEST_SIDE = 16384

ClipLike = str | os.PathLike[str] | bytes | IO[bytes] | Sequence[ImageLike] | NDArray[Any]
"""What is taken as a clip."""


class ClipArguments(TypedDict, total=False):
    """Keyword arguments that say which frames of a clip are taken, and how large.

    Attributes:
        every: Take each so many frames; 1 for all.
        fps: Take at most so many frames of a second, instead of `every`.
        start_s: Take the frames from this time on, in seconds.
        end_s: Take no frames from this time on; None for all.
        max_frames: Take at most so many frames.
        max_side: Scale frames down such that the longer side has at most so many pixels. Coordinates and masks are in
            pixels of the smaller frames.
        frame_rate: Frames of a second in a folder or list of pictures; by default 24.
    """

    every: int
    fps: float | None
    start_s: float
    end_s: float | None
    max_frames: int | None
    max_side: int | None
    frame_rate: float | None


class _Source(Protocol):
    @property
    def has_times(self) -> bool: ...

    @property
    def frame_rate(self) -> float: ...

    @property
    def frames(self) -> int | None: ...

    def read(self, start_s: float) -> Iterator[StoredFrame]: ...


@checked
class Clip:
    """The selected frames of a clip, read one by one: what is in memory does not grow with the clip.

    Iterating yields each `Frame`, and can be done again. Frames are as a player shows them: turned as a phone's film
    says, with square pixels, transparency over white. Times are those of the file, also where its frame rate varies.

    Args:
        clip: Path of a film (MP4, MOV, WebM, MKV, AVI and others; needs PyAV, maskwire[video]), of a GIF, WebP or PNG
            animation, or of a folder of pictures, which are taken in natural order (2 before 10); the bytes of such a
            file, or an open binary file; an http or https URL; or a list of pictures, each as in `Client.embed`.
        every: Take each so many frames; 1 for all.
        fps: Take at most so many frames of a second, instead of `every`.
        start_s: Take the frames from this time on, in seconds.
        end_s: Take no frames from this time on; None for all.
        max_frames: Take at most so many frames.
        max_side: Scale frames down such that the longer side has at most so many pixels.
        frame_rate: Frames of a second in a folder or list of pictures; by default 24.

    Attributes:
        name: What to call the clip: its file name, or "clip".
        size: Width and height of its frames in pixels.
        frame_rate: Selected frames of a second, on average.
        estimated_frames: Number of selected frames: exact for pictures, by the clip's length and rate for others; None
            if that is not known.

    Raises:
        InvalidRequest: An option is wrong (BAD_SELECTION), or the clip is: NO_SUCH_FILE, UNREADABLE_FILE, NOT_A_CLIP,
            CLIP_UNREADABLE, or NO_FRAMES if nothing is selected.
        OutputMissing: NO_PYAV: a film needs PyAV.
    """

    def __init__(
        self,
        clip: ClipLike,
        *,
        every: int = 1,
        fps: float | None = None,
        start_s: float = 0,
        end_s: float | None = None,
        max_frames: int | None = None,
        max_side: int | None = None,
        frame_rate: float | None = None,
    ) -> None:
        self._selection = Selection(every, fps, start_s, end_s, max_frames)
        if max_side is not None and not (isinstance(max_side, int) and 1 <= max_side <= _LONGEST_SIDE):
            raise InvalidRequest(
                f"max_side is {max_side!r}; give 1 to {_LONGEST_SIDE} pixels", "BAD_SELECTION", "max_side"
            )
        if frame_rate is not None and not (isinstance(frame_rate, int | float) and 0 < frame_rate < 1e4):
            raise InvalidRequest(
                f"frame_rate is {frame_rate!r}; give frames of a second", "BAD_SELECTION", "frame_rate"
            )
        self._max_side = max_side
        self.name, self._source = _open(clip, frame_rate)
        if frame_rate is not None and self._source.has_times:
            raise InvalidRequest(
                f"{self.name} says itself when its frames are shown; frame_rate is for folders and lists of pictures. "
                "To thin out the frames give fps",
                "BAD_SELECTION",
                "frame_rate",
            )
        first = next(iter(self._frames()), None)
        if first is None:
            raise InvalidRequest(
                f"{self.name} has no frames from {start_s:g} s on"
                f"{f' before {end_s:g} s' if end_s is not None else ''}; give another time",
                "NO_FRAMES",
                "start_s",
            )
        self.size = first.size

    def __repr__(self) -> str:
        about = "" if self.estimated_frames is None else f", {self.estimated_frames} frames"
        return f"<Clip {self.name!r}, {self.size[0]}x{self.size[1]}{about}>"

    @property
    def frame_rate(self) -> float:
        """Selected frames of a second, on average."""
        rate = self._source.frame_rate
        return rate / self._selection.every if self._selection.fps is None else min(rate, self._selection.fps)

    @property
    def estimated_frames(self) -> int | None:
        """Number of selected frames: exact for pictures, by the clip's length and rate for others; None if unknown."""
        if self._source.frames is None:
            return self._selection.max_frames if self._selection.end_s is None else None
        return self._selection.estimate(self._source.frames, self._source.frame_rate)

    def __iter__(self) -> Iterator[Frame]:
        """Yields the selected frames.

        Raises:
            InvalidRequest: A frame cannot be decoded (CLIP_UNREADABLE, IMAGE_UNREADABLE), or has another size than the
                first (SIZES_DIFFER).
        """
        for frame in self._frames():
            if frame.size != self.size:
                raise InvalidRequest(
                    f"{frame.name} of {self.name} has {frame.size[0]}x{frame.size[1]} pixels, and the first frame "
                    f"{self.size[0]}x{self.size[1]}; all frames of a clip must have one size",
                    "SIZES_DIFFER",
                    "clip",
                )
            yield frame

    def listing(self) -> list[tuple[str, float]]:
        """Returns the name and the time in seconds of each selected frame, in order.

        Pictures have their files' names; frames of films and animations those that YouTube-VIS would give to theirs,
        such as "clip/00007.jpg".
        """
        stem = Path(self.name).stem
        return [
            (f"{stem}/{index:05}.jpg" if self._source.has_times else frame.name, time_s)
            for index, (frame, time_s) in enumerate(self._chosen())
        ]

    def _chosen(self) -> Iterator[tuple[StoredFrame, float]]:
        stored = self._source.read(self._selection.start_s)
        return self._selection.choose(stored, self._source.frame_rate)

    def _frames(self) -> Iterator[Frame]:
        for index, (frame, time_s) in enumerate(self._chosen()):
            yield Frame(index, time_s, frame.name, frame.load(), self._max_side)


def _open(clip: Any, frame_rate: float | None) -> tuple[str, _Source]:
    """Finds out what was passed as a clip. Returns what to call it, and the source of its frames."""
    rate = frame_rate or _FRAME_RATE
    if isinstance(clip, str) and is_url(clip):
        return clip, _opened(fetch(clip), clip)
    if isinstance(clip, str | os.PathLike):
        path = Path(clip)
        if path.is_dir():
            return path.resolve().name, Stills(pictures_in(path), rate)
        if not path.exists():
            raise InvalidRequest(f"no such file: {path}", "NO_SUCH_FILE", "clip")
        return path.name, _opened(path, str(path))
    if isinstance(clip, bytes | bytearray | memoryview):
        return "clip", _opened(bytes(clip), "the clip")
    if hasattr(clip, "read"):
        data = clip.read()
        if not isinstance(data, bytes):
            raise InvalidRequest("the file is open as text; open it with mode 'rb'", "NOT_A_CLIP", "clip")
        name = str(getattr(clip, "name", "clip"))
        return Path(name).name, _opened(data, name)
    if isinstance(clip, Sequence) or (hasattr(clip, "__getitem__") and hasattr(clip, "__len__")):  # an array NxHxWx3
        return "clip", Stills(clip, rate)
    raise InvalidRequest(
        f"{type(clip).__name__} is not a clip; give the path of a film or folder, bytes, or a list of pictures. Frames "
        "that come one by one, as from a camera, are for live()",
        "NOT_A_CLIP",
        "clip",
    )


def _opened(file: Path | bytes, name: str) -> _Source:
    if isinstance(file, Path):
        try:
            with file.open("rb") as opened:
                beginning = opened.read(16)
        except OSError as error:
            raise InvalidRequest(f"cannot read {name}: {error.strerror or error}", "UNREADABLE_FILE", "clip") from error
    else:
        beginning = file[:16]
    if not beginning:
        raise InvalidRequest(f"{name} is empty (0 bytes)", "CLIP_UNREADABLE", "clip")
    if is_animation(beginning):
        return Animation(file, name)
    return Film(file, name)
