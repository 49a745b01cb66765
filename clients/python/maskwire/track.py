"""Objects that are followed through a clip."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Self, Unpack

from google.protobuf.empty_pb2 import Empty
from numpy.typing import NDArray

from maskwire.arguments import checked
from maskwire.connection import Connection
from maskwire.errors import InvalidRequest
from maskwire.prompts import Prompt
from maskwire.sources import ImageLike
from maskwire.track_connection import TrackConnection
from maskwire.track_opening import TrackOpening
from maskwire.tracked_frame import TrackedFrame
from maskwire.v1 import tracker_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire.video import Clip, MaskSequence, save
from maskwire.video.saving import SavingArguments

_Key = tuple[str, int]


@checked
class AsyncTrack:
    """Follows objects through a clip. Made by `AsyncClient.track`.

    Prompts (clicks, boxes, masks) on any frame make an object, by its name, or correct it; each answers with the object
    on that frame. `follow` then finds all objects on the other frames. Correct a frame where it goes wrong, and follow
    again. Objects may be added and removed at any time. A prompt ends a `follow` that is under way.

    The track's state is in the servers' store: if a tracker stops or dies, another one goes on with the same masks.
    The clip is uploaded at the first use, or by `async with`, which deletes clip and track in the end unless they were
    to be kept (`keep=True`): then `track(track_id=...)` goes on with it.
    """

    def __init__(self, connection: Connection, opening: TrackOpening) -> None:
        self._track = TrackConnection(connection, opening)
        self._given: dict[_Key, pb.TrackPoints] = {}  # what this caller has clicked
        connection.closes_with(self)

    def __repr__(self) -> str:
        if not self._track.is_open:
            return f"<{type(self).__name__}, not open yet>"
        width, height = self.size
        return f"<{type(self).__name__} {self.track_id!r}, {self.frames} frames of {width}x{height}>"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Uploads the clip and opens the track. Other methods do that themselves.

        Raises:
            MaskwireError: The clip cannot be read (see `Clip`) or is refused, the model cannot follow objects
                (NO_MEMORY), there is no such track (TRACK_NOT_FOUND), or no server answers.
        """
        await self._track.open()

    async def close(self) -> None:
        """Closes the track, and deletes it and its clip from the store unless it was made with `keep=True`."""
        await self._track.close()

    @property
    def clip(self) -> Clip | None:
        """The clip, when it has been read; None for a track that goes on."""
        return self._track.opening.clip

    @property
    def track_id(self) -> str:
        """Name of the track; empty until it is open."""
        return self._track.info.track_id

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames in pixels."""
        return self._track.info.width_px, self._track.info.height_px

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self._track.info.frames

    @property
    def objects(self) -> list[str]:
        """Names of the objects, in the order in which they were made."""
        return self._track.objects

    @property
    def masks(self) -> MaskSequence:
        """The newest masks of all frames that were read, for `save`."""
        if self._track.masks is None:
            raise InvalidRequest("the track has no masks yet; click on a frame first", "NO_MASKS", "masks")
        return self._track.masks

    # Prompts

    async def click(
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
        point = Prompt(points=[(x, y)], labels=[int(positive)]).message().points[0]
        return await self._add(pb.TrackPoints(points=[point]), frame, object)

    async def correct(self, x: float, y: float, *, frame: int, object: str = "object-1") -> TrackedFrame:
        """Adds a click where the mask should not be: `click` with `positive=False`.

        Args:
            x: Pixels from the left edge of the frame.
            y: Pixels from the top.
            frame: Number of the frame, from 0.
            object: Name of the object.
        """
        return await self.click(x, y, frame=frame, object=object, positive=False)

    async def box(
        self,
        x_min: float,
        y_min: float,
        x_max: float,
        y_max: float,
        *,
        frame: int = 0,
        object: str = "object-1",
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
        self._given.pop((object, frame), None)
        box = Prompt(box=(x_min, y_min, x_max, y_max)).message().box
        return await self._add(pb.TrackPoints(box=box), frame, object)

    async def mask(self, mask: NDArray[Any], *, frame: int = 0, object: str = "object-1") -> TrackedFrame:
        """Gives the object's mask on a frame, as it is.

        Args:
            mask: HxW bool, of the frame's size, such as `Mask.array`.
            frame: Number of the frame, from 0.
            object: Name of the object; a new name makes one.
        """
        await self.open()
        drawn = MaskSequence(*self.size)
        drawn.add(0, {object: mask})
        found = drawn.rles(0).get(object)
        if found is None:
            raise InvalidRequest("the mask is empty; give one with pixels inside", "BAD_MASK", "mask")
        self._given.pop((object, frame), None)
        rle = types_pb2.Rle(size=found["size"], counts=found["counts"])
        return await self._prompt(pb.TrackPrompt(object_id=object, frame=frame, mask=rle))

    async def clear(self, *, frame: int, object: str = "object-1") -> None:
        """Takes an object's prompts on a frame back.

        Args:
            frame: Number of the frame, from 0.
            object: Name of the object.
        """
        await self._track.ask(pb.TrackPrompt(object_id=object, frame=frame, clear=Empty()))
        self._given.pop((object, frame), None)

    async def remove(self, object: str) -> None:
        """Removes an object, and its masks on all frames."""
        await self._track.ask(pb.TrackPrompt(object_id=object, remove=Empty()))
        self._given = {key: points for key, points in self._given.items() if key[0] != object}
        self._track.forget_object(object)

    # Following

    async def follow(
        self, start: int | None = None, count: int | None = None, *, reverse: bool = False
    ) -> AsyncIterator[TrackedFrame]:
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
        if count is not None and count < 1:
            raise InvalidRequest(f"count is {count}; give 1 or more, or None for all", "BAD_COUNT", "count")
        async with contextlib.aclosing(self._track.follow(start, count, reverse)) as found:
            async for frame in found:
                yield frame

    async def add_frame(self, picture: ImageLike) -> int:
        """Sends the next frame of a track without a clip, so that it can be prompted.

        Args:
            picture: The frame, as in `AsyncClient.embed`; all of one size.

        Returns:
            Number of the frame, from 0. Prompts are possible on the newest `kept_frames`.
        """
        return await self._track.add_frame(picture, False)

    async def live(
        self, frames: Iterable[ImageLike] | AsyncIterable[ImageLike], *, skip: bool = True
    ) -> AsyncIterator[TrackedFrame]:
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
        async with contextlib.aclosing(self._track.follow_live(frames, skip)) as found:
            async for frame in found:
                yield frame

    async def stop(self) -> None:
        """Ends the `follow` that is under way after the frames that were found, which are still read."""
        await self._track.stop()

    async def save(self, path: str | os.PathLike[str], **arguments: Unpack[SavingArguments]) -> list[Path]:
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
        if self.clip is None:
            raise InvalidRequest(
                "this track was opened without its clip; use maskwire.video.save(track.masks, path, Clip(...))",
                "NO_CLIP",
                "path",
            )
        return await asyncio.to_thread(save, self.masks, path, self.clip, **arguments)

    async def _add(self, points: pb.TrackPoints, frame: int, name: str) -> TrackedFrame:
        """Adds to the points on a frame. All of them are sent, so that nothing is added twice if it is sent again."""
        key = name, frame
        given = pb.TrackPoints()
        given.CopyFrom(self._given.get(key, pb.TrackPoints()))
        given.MergeFrom(points)
        if name in self._track.inherited and key not in self._given and not points.HasField("box"):
            points.keep_points = True
            return await self._prompt(pb.TrackPrompt(object_id=name, frame=frame, points=points))
        found = await self._prompt(pb.TrackPrompt(object_id=name, frame=frame, points=given))
        self._given[key] = given
        return found

    async def _prompt(self, prompt: pb.TrackPrompt) -> TrackedFrame:
        return self._track.take((await self._track.ask(prompt)).masks)
