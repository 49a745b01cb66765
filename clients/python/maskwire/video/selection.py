"""Which frames of a clip are taken."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from maskwire.errors import InvalidRequest
from maskwire.video.frame import StoredFrame

_ROUNDING_S = 1e-6  # times are sums and fractions: a frame that is due at 1/30 s may be at 0.0333333


@dataclass(frozen=True)
class Selection:
    """Which frames of a clip are taken.

    Raises:
        InvalidRequest: BAD_SELECTION, or TWO_NAMES for `every` together with `fps`.
    """

    every: int = 1  # take each so many frames, from the first after `start_s`
    fps: float | None = None  # take at most so many frames of a second
    start_s: float = 0  # take none before
    end_s: float | None = None  # take none from here on
    max_frames: int | None = None  # take at most so many

    def __post_init__(self) -> None:
        if self.fps is not None and self.every != 1:
            raise InvalidRequest("every and fps both thin out the frames; give one of them", "TWO_NAMES", "fps")
        for name, smallest in (("every", 1), ("max_frames", 1), ("start_s", 0)):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value >= smallest):
                raise _bad(name, value, f"{smallest} or more")
        for name in ("every", "max_frames"):
            value = getattr(self, name)
            if value is not None and value != int(value):
                raise _bad(name, value, "a whole number")
        if self.fps is not None and not (_is_number(self.fps) and self.fps > 0):
            raise _bad("fps", self.fps, "more than 0 frames a second")
        if self.end_s is not None and not (_is_number(self.end_s) and self.end_s > self.start_s):
            raise _bad("end_s", self.end_s, f"seconds after start_s, which is {self.start_s:g}")

    def choose(self, frames: Iterable[StoredFrame], frame_rate: float) -> Iterator[tuple[StoredFrame, float]]:
        """Yields the chosen frames, each with its time in seconds.

        Frames without a time, and those that a damaged clip shows before the one before, follow it at the frame rate.

        Args:
            frames: The clip's frames, from `start_s` or earlier.
            frame_rate: Frames of a second, for frames without a time.
        """
        taken = passed = 0
        time_s = -1 / frame_rate
        period = -1  # the last of the 1/fps seconds from start_s of which a frame was taken
        for frame in frames:
            later_s = time_s + 1 / frame_rate
            time_s = frame.time_s if frame.time_s is not None and frame.time_s > time_s else later_s
            if self.end_s is not None and time_s >= self.end_s - _ROUNDING_S:
                return
            if time_s < self.start_s - _ROUNDING_S:
                continue
            passed += 1
            if self.fps is not None:
                now = math.floor((time_s - self.start_s + _ROUNDING_S) * self.fps)
                if now <= period:
                    continue
                period = now
            elif (passed - 1) % self.every:
                continue
            yield frame, time_s
            taken += 1
            if taken == self.max_frames:
                return

    def estimate(self, frames: int, frame_rate: float) -> int:
        """Estimates how many frames are chosen of a clip: exactly, where its frames are evenly spaced.

        Args:
            frames: Number of frames of the clip.
            frame_rate: Frames of a second.
        """
        end_s = frames / frame_rate if self.end_s is None else min(self.end_s, frames / frame_rate)
        left = round(max(0.0, end_s - self.start_s) * frame_rate, 6)
        if self.fps is not None and self.fps < frame_rate:
            left = round(left / frame_rate * self.fps, 6)
        chosen = math.ceil(left / self.every)
        return chosen if self.max_frames is None else min(chosen, self.max_frames)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _bad(name: str, value: object, wanted: str) -> InvalidRequest:
    return InvalidRequest(f"{name} is {value!r}; give {wanted}", "BAD_SELECTION", name)
