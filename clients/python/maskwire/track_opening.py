"""What a track is opened with: its clip, which is uploaded, and how objects are followed."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from maskwire.connection import Connection
from maskwire.errors import InvalidRequest
from maskwire.transport.track_stream import TrackStream, parts_of
from maskwire.v1 import tracker_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire.video import Clip, ClipArguments, ClipLike

_MANY_FRAMES = 1000  # which take seconds to count
_AT_LEAST = 0.98  # of the frames that a film says it has
_Parts = Callable[[], AsyncGenerator[pb.FramePart, None]]
_OPTIONS = {field.name for field in pb.TrackOptions.DESCRIPTOR.fields}


class TrackArguments(ClipArguments, total=False):
    """Keyword arguments that say how objects are followed, beside which frames of the clip.

    Attributes:
        model: Name of the model; empty for the server's default.
        track_id: Name of a stored track to go on with, instead of a clip.
        keep: Keep track and clip in the store when the track is closed, until they expire.
        lossless: Send decoded frames as PNG, rather than as JPEG of quality 95. Files of a folder are sent as they are.
        hand_over: Follow without memory, for models that have none, by what objects looked like on earlier frames.
            Worse than a trained memory.
        fp16: Keep frames' embeddings in half precision: half the bytes, and masks that may differ a little from sam2's.
        fill_hole_area: Fill holes of at most so many low-resolution pixels; 8 by default.
        non_overlap_masks: Give a pixel that several objects claim to the likeliest one.
        add_all_frames_to_correct_as_cond: Corrections stay when frames are followed again; True by default, unlike
            sam2.
        clear_non_cond_mem_around_input: A prompt makes the object forget the followed frames around it.
        memory_temporal_stride_for_eval: Memories are taken from each so many-th frame; 1 by default.
        progress: Called while the clip is uploaded, with the number of frames that were sent, and of all: on the thread
            of the event loop, which is not the caller's for `Client`. It begins anew where a tracker is lost.
        kept_frames: Of frames that are sent one by one, how many of the newest ones can be prompted; 8 by default.
        max_cond_frames_in_attn: Attend to so many prompted frames at most, the closest ones; 0, the default, for all.
    """

    model: str
    track_id: str
    keep: bool
    lossless: bool
    hand_over: bool
    fp16: bool
    fill_hole_area: int
    non_overlap_masks: bool
    add_all_frames_to_correct_as_cond: bool
    clear_non_cond_mem_around_input: bool
    memory_temporal_stride_for_eval: int
    max_cond_frames_in_attn: int
    kept_frames: int
    progress: Callable[[int, int], None]


class TrackOpening:
    """Opens a track on one stream after another.

    Args:
        connection: The servers, and on whose behalf.
        clip: The clip, to upload; None to go on with a stored track.
        arguments: How to follow, and which frames.

    Attributes:
        clip: The clip, when it has been read.
        times_s: When each of its frames is shown.
        keep: Whether the track stays in the store.
        lossless: Whether decoded frames are sent as PNG.
        is_live: Whether its frames are sent one by one.

    Raises:
        InvalidRequest: There are a clip and the name of a stored track, or options are for something else.
    """

    def __init__(self, connection: Connection, clip: "ClipLike | Clip | None", arguments: TrackArguments) -> None:
        given: dict[str, Any] = dict(arguments)
        self.clip: Clip | None = None
        self.times_s: list[float] = []
        self.keep = bool(given.pop("keep", False)) or "track_id" in given
        self.lossless = bool(given.pop("lossless", False))
        self.is_live = clip is None
        self._connection = connection
        self._clip = clip
        self._progress: Callable[[int, int], None] | None = given.pop("progress", None)
        options = {name: given.pop(name) for name in _OPTIONS & given.keys()}
        self._message = pb.OpenTrack(
            namespace=connection.caller.namespace,
            model=given.pop("model", ""),
            track_id=given.pop("track_id", ""),
            hand_over=given.pop("hand_over", False),
            kept_frames=given.pop("kept_frames", 0),
            embeddings=types_pb2.DATA_TYPE_FP16 if given.pop("fp16", False) else types_pb2.DATA_TYPE_FP32,
            options=pb.TrackOptions(**options),
        )
        self._clip_arguments = given
        if clip is not None and self._message.track_id:
            raise InvalidRequest("give a clip, or the track_id of a stored track, not both", "TWO_NAMES", "track_id")
        if given and (clip is None or isinstance(clip, Clip)):
            name = next(iter(given))
            raise InvalidRequest(f"{name} is for a clip that is read here; give it to Clip", "BAD_SELECTION", name)

    def set_size(self, size: tuple[int, int]) -> None:
        """Notes the size of a live track's frames."""
        if self.is_live and not self._message.track_id:
            self._message.width_px, self._message.height_px = size

    @property
    def known_size(self) -> tuple[int, int] | None:
        """Width and height of the frames in pixels; None where they are a stored clip's or track's."""
        if self._message.width_px:
            return self._message.width_px, self._message.height_px
        return None if self.clip is None else self.clip.size

    @property
    def waits_for_frame(self) -> bool:
        """Whether the size of the frames is not known yet."""
        return self.is_live and not (self._message.track_id or self._message.width_px)

    async def prepare(self) -> None:
        """Reads and uploads the clip, unless there is none or this has been done.

        Raises:
            MaskwireError: It cannot be read, or is refused.
        """
        if self.waits_for_frame:
            raise InvalidRequest(
                "the track has no frames yet; send one with add_frame, or give a clip", "NO_CLIP", "clip"
            )
        if self._clip is None or self._message.clip_id:
            return
        given: Any = self._clip
        clip = given if isinstance(given, Clip) else await asyncio.to_thread(Clip, given, **self._clip_arguments)
        if (clip.estimated_frames or 0) > _MANY_FRAMES:
            await self._ask_for_room(clip)
        listed = await asyncio.to_thread(clip.listing)
        self.clip, self.times_s = clip, [time_s for _, time_s in listed]
        self._message.clip_id = (await self._upload(clip, len(listed), self._parts)).clip_id

    async def connect(self, track_id: str) -> TrackStream:
        """Opens the track: a new one, or the one of a name."""
        self._message.track_id = track_id or self._message.track_id
        caller, request = self._connection.caller, pb.TrackRequest(request_id="open", open=self._message, masks_seen=0)
        stream = TrackStream(await self._connection.servers.open_track(request, caller), caller)
        self.is_live = not stream.info.clip_id  # of a track that goes on, too
        return stream

    async def forget(self, track_id: str) -> None:
        """Deletes from the store what is there: the track, unless it was never opened ("") and its clip."""
        caller, clip_id = self._connection.caller, "" if self._clip is None else self._message.clip_id
        servers = self._connection.servers
        if track_id:
            await servers.delete_track(pb.DeleteTrackRequest(track_id=track_id, namespace=caller.namespace), caller)
        if clip_id:
            await servers.delete_clip(pb.DeleteClipRequest(clip_id=clip_id, namespace=caller.namespace), caller)

    async def _ask_for_room(self, clip: Clip) -> None:
        """Asks whether a long clip would be taken, since counting its frames takes long: its header, without frames.

        Raises:
            InvalidRequest: It is clearly too long.
        """
        estimate = clip.estimated_frames or 0
        least = int(estimate * _AT_LEAST)
        try:
            await self._upload(clip, least, _no_parts)
        except InvalidRequest as error:
            if error.reason == "FRAMES_MISSING":  # the header was taken
                return
            error.message = error.message.replace(f"has {least} frames", f"has about {estimate} frames")
            raise

    async def _upload(self, clip: Clip, count: int, parts: _Parts) -> pb.ClipInfo:
        caller, (width, height) = self._connection.caller, clip.size
        header = pb.ClipHeader(
            namespace=caller.namespace, frames=count, width_px=width, height_px=height, fps=clip.frame_rate
        )
        try:
            return await self._connection.servers.upload_clip(header, parts, caller)
        except InvalidRequest as error:
            if error.reason == "CLIP_TOO_LONG":
                raise InvalidRequest(
                    f"{clip.name}: {error.message}: fps, every, start_s, end_s and max_frames take fewer",
                    error.reason,
                    "clip",
                ) from error
            raise

    async def _parts(self) -> AsyncGenerator[pb.FramePart, None]:
        """Yields the parts of the file of each frame, which is read and encoded when it is wanted."""
        assert self.clip is not None
        frames, count = iter(self.clip), len(self.times_s)

        def next_file() -> bytes | None:
            frame = next(frames, None)
            return None if frame is None else frame.encode(self.lossless)

        for done in range(1, count + 1):
            file = await asyncio.to_thread(next_file)
            if file is None:
                return
            for part in parts_of(file):
                yield part
            if self._progress is not None:
                self._progress(done, count)


async def _no_parts() -> AsyncGenerator[pb.FramePart, None]:
    return
    yield pb.FramePart()
