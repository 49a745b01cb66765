"""Frames that are sent to a track one by one, as from a camera."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass

from PIL import Image

from maskwire.sources import ImageLike, Source
from maskwire.transport.track_stream import TrackStream
from maskwire.video.frame import Frame

_KEPT = 64  # the most that a track may ask for again


@dataclass(frozen=True)
class LiveFrame:
    """A frame that was sent."""

    name: str  # in answers
    file: bytes
    captured_at_us: int


def encoded(picture: ImageLike, lossless: bool) -> tuple[bytes, tuple[int, int]]:
    """Encodes a picture as a frame's file; JPEG and PNG files stay as they are.

    Returns:
        The file, and its width and height as a viewer shows it.
    """
    frame = Frame(0, 0, "the frame", picture if isinstance(picture, Image.Image) else Source(picture))
    if isinstance(picture, Image.Image) and picture.mode != "RGB":
        frame = Frame(0, 0, "the frame", Source(picture))
    file = frame.encode(lossless)
    return file, frame.size


async def each(frames: Iterable[ImageLike] | AsyncIterable[ImageLike]) -> AsyncIterator[ImageLike]:
    """Yields frames as they come; those of an ordinary iterable on a thread, since they may take their time."""
    if isinstance(frames, AsyncIterable):
        async for frame in frames:
            yield frame
        return
    iterator, end = iter(frames), object()
    while (found := await asyncio.to_thread(next, iterator, end)) is not end:
        yield found  # type: ignore[misc]


class LiveFrames:
    """The newest frames of a live track, which a tracker that takes over is sent again.

    Args:
        count: Number of frames that the track has already.
    """

    def __init__(self, count: int) -> None:
        self._kept: deque[LiveFrame] = deque()
        self._first = count  # index of the oldest that is kept
        self._names = itertools.count()

    @property
    def count(self) -> int:
        """Number of frames of the track."""
        return self._first + len(self._kept)

    def add(self, file: bytes) -> LiveFrame:
        """Adds a frame, which gets the next index unless it turns out to be skipped."""
        frame = LiveFrame(str(next(self._names)), file, time.time_ns() // 1000)
        self._kept.append(frame)
        while len(self._kept) > _KEPT:
            self._kept.popleft()
            self._first += 1
        return frame

    def drop(self, name: str) -> None:
        """Takes a frame out that was skipped, or is wrong: those after it have smaller indices."""
        self._kept = deque(frame for frame in self._kept if frame.name != name)

    async def send_again(self, stream: TrackStream) -> None:
        """Sends the frames that a tracker which took over does not have."""
        for frame in list(self._kept)[max(0, stream.info.frames - self._first) :]:
            await stream.send_frame(frame.name, frame.file, frame.captured_at_us, may_be_skipped=False)
