"""The blocking track: `AsyncTrack` run on the background event loop."""

# Written by scripts/generate_blocking.py from track.py; change that, and run the script again.

import os
import weakref
from collections.abc import AsyncIterable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self, Unpack

from numpy.typing import NDArray

from maskwire.arguments import checked
from maskwire.background import iterate_in_background, run_in_background, schedule
from maskwire.sources import ImageLike
from maskwire.track import AsyncTrack
from maskwire.tracked_frame import TrackedFrame
from maskwire.video import Clip, MaskSequence
from maskwire.video.saving import SavingArguments


@checked
class Track:
    """Follows objects through a clip. Made by `Client.track`.

    Prompts (clicks, boxes, masks) on any frame make an object, by its name, or correct it; each answers with the object
    on that frame. `follow` then finds all objects on the other frames. Correct a frame where it goes wrong, and follow
    again. Objects may be added and removed at any time. A prompt ends a `follow` that is under way.

    The track's state is in the servers' store: if a tracker stops or dies, another one goes on with the same masks.
    The clip is uploaded at the first use, or by `with`, which deletes clip and track in the end unless they were
    to be kept (`keep=True`): then `track(track_id=...)` goes on with it.
    """

    def __init__(self, track: AsyncTrack) -> None:
        self._track = track
        # A track that is garbage collected is closed silently.
        weakref.finalize(self, schedule, track.close).atexit = False

    def __repr__(self) -> str:
        return repr(self._track).replace("AsyncTrack", "Track")

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the track, and deletes it and its clip from the store unless it was made with `keep=True`."""
        run_in_background(self._track.close())

    def open(self) -> None:
        """Uploads the clip and opens the track. Other methods do that themselves.

        Raises:
            MaskwireError: The clip cannot be read (see `Clip`) or is refused, the model cannot follow objects
                (NO_MEMORY), there is no such track (TRACK_NOT_FOUND), or no server answers.
        """
        return run_in_background(self._track.open())

    @property
    def clip(self) -> Clip | None:
        """The clip, when it has been read; None for a track that goes on."""
        return self._track.clip

    @property
    def track_id(self) -> str:
        """Name of the track; empty until it is open."""
        return self._track.track_id

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames in pixels."""
        return self._track.size

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self._track.frames

    @property
    def objects(self) -> list[str]:
        """Names of the objects, in the order in which they were made."""
        return self._track.objects

    @property
    def masks(self) -> MaskSequence:
        """The newest masks of all frames that were read, for `save`."""
        return self._track.masks

    def click(
        self, x: float, y: float, *, frame: int = 0, object: str = "object-1", positive: bool = True
    ) -> TrackedFrame:
        """Adds a click inside an object, or outside of it.

        Args:
            x: Pixels from the left edge of the frame.
            y: Pixels from the top.
            frame: Number of the frame, from 0.
            object: Name of the object; a new name makes one.
            positive: Whether the click is inside the object.

        Returns:
            The object on this frame.

        Raises:
            InvalidRequest: An argument is wrong; `field` says which.
        """
        return run_in_background(self._track.click(x, y, frame=frame, object=object, positive=positive))

    def correct(self, x: float, y: float, *, frame: int, object: str = "object-1") -> TrackedFrame:
        """Adds a click where the mask should not be: `click` with `positive=False`.

        Args:
            x: Pixels from the left edge of the frame.
            y: Pixels from the top.
            frame: Number of the frame, from 0.
            object: Name of the object.
        """
        return run_in_background(self._track.correct(x, y, frame=frame, object=object))

    def box(
        self, x_min: float, y_min: float, x_max: float, y_max: float, *, frame: int = 0, object: str = "object-1"
    ) -> TrackedFrame:
        """Gives a box around an object, in pixels of the frame, which replaces its clicks and box on this frame.

        Args:
            x_min: Left edge.
            y_min: Upper edge.
            x_max: Right edge.
            y_max: Lower edge.
            frame: Number of the frame, from 0.
            object: Name of the object; a new name makes one.
        """
        return run_in_background(self._track.box(x_min, y_min, x_max, y_max, frame=frame, object=object))

    def mask(self, mask: NDArray[Any], *, frame: int = 0, object: str = "object-1") -> TrackedFrame:
        """Gives the object's mask on a frame, as it is.

        Args:
            mask: HxW bool, of the frame's size, such as `Mask.array`.
            frame: Number of the frame, from 0.
            object: Name of the object; a new name makes one.
        """
        return run_in_background(self._track.mask(mask, frame=frame, object=object))

    def clear(self, *, frame: int, object: str = "object-1") -> None:
        """Takes an object's prompts on a frame back.

        Args:
            frame: Number of the frame, from 0.
            object: Name of the object.
        """
        return run_in_background(self._track.clear(frame=frame, object=object))

    def remove(self, object: str) -> None:
        """Removes an object, and its masks on all frames."""
        return run_in_background(self._track.remove(object))

    def follow(
        self, start: int | None = None, count: int | None = None, *, reverse: bool = False
    ) -> Iterator[TrackedFrame]:
        """Follows all objects from frame to frame.

        Leaving the loop ends the work. If a tracker is lost, another one goes on where the last frame was read.

        Args:
            start: The first frame; None: the earliest with a prompt.
            count: Number of frames; None: all to the end of the clip (or its beginning, in reverse).
            reverse: Whether to follow backwards.

        Yields:
            All objects on each frame, as soon as they are found.

        Raises:
            InvalidRequest: No object has a prompt (NOTHING_TO_FOLLOW), or there is no such frame (NO_SUCH_FRAME).
        """
        return iterate_in_background(self._track.follow(start, count, reverse=reverse))

    def add_frame(self, picture: ImageLike) -> int:
        """Sends the next frame of a track without a clip, so that it can be prompted.

        Args:
            picture: The frame, as in `Client.embed`; all of one size.

        Returns:
            Number of the frame, from 0. Prompts are possible on the newest `kept_frames`.
        """
        return run_in_background(self._track.add_frame(picture))

    def live(
        self, frames: Iterable[ImageLike] | AsyncIterable[ImageLike], *, skip: bool = True
    ) -> Iterator[TrackedFrame]:
        """Follows all objects on frames as they come, such as a camera's, after at least one has a prompt.

        Prompts on the newest frames are possible meanwhile. Leaving the loop ends the work; if a tracker is lost,
        another one goes on. The masks are not kept for `save`.

        Args:
            frames: The frames, in order: an iterable or an asynchronous one, which is read while objects are followed.
            skip: Whether a frame that waits gives way to a newer one where following is slower than the frames come;
                it gets no number. Otherwise every frame is followed.

        Yields:
            All objects on each frame, beginning with the earliest that has a prompt.

        Raises:
            InvalidRequest: No object has a prompt (NOTHING_TO_FOLLOW), or the track has a clip (HAS_CLIP).
        """
        return iterate_in_background(self._track.live(frames, skip=skip))

    def stop(self) -> None:
        """Ends the `follow` that is under way after the frames that were found, which are still read."""
        return run_in_background(self._track.stop())

    def save(self, path: str | os.PathLike[str], **arguments: Unpack[SavingArguments]) -> list[Path]:
        """Writes the masks in the format of the path's ending.

        .mp4, .mov, .mkv, .webm and .gif show the frames with masks over them; .json is a data set in the form of
        YouTube-VIS; a folder gets a picture of object numbers for each frame, as DAVIS has them.

        Args:
            path: File or folder to write.
            **arguments: How: `SavingArguments`.

        Returns:
            The files.

        Raises:
            InvalidRequest: BAD_OUTPUT: the ending is unknown, or the file cannot be written. NO_CLIP: a track that goes
                on has no frames to draw over; use `maskwire.video.save` with the clip.
        """
        return run_in_background(self._track.save(path, **arguments))
