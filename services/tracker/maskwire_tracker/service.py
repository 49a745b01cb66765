"""TrackerService over gRPC."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from google.protobuf.empty_pb2 import Empty
from maskwire.v1 import tracker_pb2 as pb
from maskwire.v1 import tracker_pb2_grpc
from maskwire_core import names
from maskwire_core.call_context import current
from maskwire_core.config import TrackerSettings
from maskwire_core.errors import (
    CorruptValue,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServiceError,
    Unavailable,
)
from maskwire_core.rpc.interceptor import Context
from maskwire_core.storage.clips import Upload
from maskwire_core.tenancy.tokens import Right

from maskwire_tracker import stored_track
from maskwire_tracker.encoding import token_of
from maskwire_tracker.messages import check_size, track_info
from maskwire_tracker.session import TrackSession
from maskwire_tracker.tracker import Clip, Tracker

T = TypeVar("T")

NAME = pb.DESCRIPTOR.services_by_name["TrackerService"].full_name
RIGHTS: dict[str, Right | None] = {
    "Track": "segment",
    "GetTrack": "read",
    "DeleteTrack": "delete",
    "UploadClip": "encode",
    "DeleteClip": "delete",
}
"""The right that a token needs for each method."""

_PAUSE_S = 20  # after which an upload of which nothing comes is ended


class TrackerService(tracker_pb2_grpc.TrackerServiceServicer):
    """See protos/maskwire/v1/tracker.proto."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Tells the callers of streams to go on elsewhere, and refuses new streams."""
        self._draining.set()

    async def Track(
        self, requests: AsyncIterator[pb.TrackRequest], context: Context
    ) -> AsyncIterator[pb.TrackResponse]:
        if self._draining.is_set():
            raise Unavailable("DRAINING", "this tracker is about to stop; ask another", retry_after_s=0.1)
        token = token_of(dict(context.invocation_metadata() or ()))
        session = TrackSession(self._tracker, token, self._draining)
        async with contextlib.aclosing(session.answer(requests)) as responses:
            async for response in responses:
                yield response

    async def GetTrack(self, request: pb.GetTrackRequest, context: Context) -> pb.TrackInfo:
        namespace, track_id = current().caller.reading(request.namespace), names.image_id(request.track_id)
        found = await asyncio.to_thread(self._tracker.tracks.peek, namespace, track_id)
        try:
            if found is not None:
                return track_info(namespace, track_id, found[0], *stored_track.read_description(found[1]))
        except CorruptValue:
            pass
        raise NotFound("TRACK_NOT_FOUND", f"there is no track {track_id!r}", field="track_id")

    async def DeleteTrack(self, request: pb.DeleteTrackRequest, context: Context) -> Empty:
        namespace, track_id = current().caller.reading(request.namespace), names.image_id(request.track_id)
        await asyncio.to_thread(self._tracker.tracks.delete, namespace, track_id)
        return Empty()

    async def UploadClip(self, requests: AsyncIterator[pb.UploadClipRequest], context: Context) -> pb.ClipInfo:
        messages, settings = aiter(requests), self._tracker.settings
        first = await _within_pause(anext(messages, None))
        if first is None or first.WhichOneof("request") != "header":
            raise InvalidArgument("HEADER_MISSING", "the first message must be the header", field="header")
        header = first.header
        check_size(header.width_px, header.height_px, "header")
        if header.frames < 1:
            raise InvalidArgument("BAD_FRAMES", "the clip has no frames; give at least one", field="header.frames")
        if header.frames > settings.max_clip_frames:
            raise InvalidArgument(
                "CLIP_TOO_LONG",
                f"the clip has {header.frames} frames, and at most {settings.max_clip_frames} are taken; send fewer of "
                "a second, or a part",
                field="header.frames",
            )
        caller = current().caller
        namespace = caller.writing(header.namespace)
        clip_id = names.image_id(header.clip_id) if header.clip_id else names.issue_clip_id()
        replaced = await asyncio.to_thread(self._tracker.clips.meta, namespace, clip_id)
        upload = await asyncio.to_thread(self._tracker.clips.upload, namespace, clip_id, caller.token.clips_bytes)
        try:
            await self._receive(messages, header.frames, upload, settings)
            clip = Clip(upload.name, header.frames, header.width_px, header.height_px, header.fps, upload.nbytes)
            before = None if replaced is None else Clip.unpack(replaced).upload
            await asyncio.to_thread(upload.complete, clip.pack(), before)
        except BaseException:
            with contextlib.suppress(ServiceError):
                await asyncio.shield(asyncio.to_thread(upload.abandon))
            raise
        return pb.ClipInfo(
            clip_id=clip_id,
            namespace=namespace,
            frames=clip.frames,
            width_px=clip.width,
            height_px=clip.height,
            fps=clip.fps,
            stored_bytes=clip.nbytes,
            expires_in_s=settings.clip_ttl_s,
        )

    async def DeleteClip(self, request: pb.DeleteClipRequest, context: Context) -> Empty:
        namespace, clip_id = current().caller.reading(request.namespace), names.image_id(request.clip_id)
        meta = await asyncio.to_thread(self._tracker.clips.meta, namespace, clip_id)
        if meta is not None:
            await asyncio.to_thread(self._tracker.clips.delete, namespace, clip_id, Clip.unpack(meta).upload)
        return Empty()

    async def _receive(
        self, messages: AsyncIterator[pb.UploadClipRequest], frames: int, upload: Upload, settings: TrackerSettings
    ) -> None:
        """Receives the files of a clip's frames, each of which is stored when it is complete."""
        file = bytearray()  # a list of parts takes many times as much as small ones have
        memory, come = current().memory, 0
        while (message := await _within_pause(anext(messages, None))) is not None:
            current().caller.charge(received_bytes=message.ByteSize())
            if message.WhichOneof("request") != "frame":
                raise InvalidArgument("FRAME_MISSING", "after the header, send frames", field="frame")
            if come == frames:
                raise InvalidArgument("TOO_MANY_FRAMES", f"the header said {frames} frames", field="frame")
            memory.take(len(message.frame.chunk))
            file += message.frame.chunk
            nbytes = len(file)
            if nbytes > settings.max_frame_bytes:
                raise ResourceExhausted(
                    "FRAME_TOO_LARGE",
                    f"frame {come} has more than {settings.max_frame_bytes} bytes; save it as JPEG",
                    field="frame",
                )
            if upload.nbytes + nbytes > settings.clip_bytes:
                raise ResourceExhausted(
                    "CLIP_TOO_LARGE",
                    f"the clip has more than {settings.clip_bytes} bytes; send fewer or smaller frames",
                    field="frame",
                )
            if message.frame.last:
                if not nbytes:
                    raise InvalidArgument("EMPTY_IMAGE", f"frame {come} has no bytes", field="frame")
                await asyncio.to_thread(upload.add, bytes(file))
                memory.give_back(nbytes)
                file, come = bytearray(), come + 1
        if come < frames or file:
            raise InvalidArgument(
                "FRAMES_MISSING", f"{come} of {frames} frames came; send all of them", field="header.frames"
            )


async def _within_pause(message: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(_PAUSE_S):
            return await message
    except TimeoutError as error:
        raise DeadlineExceeded("UPLOAD_STALLED", f"nothing came for {_PAUSE_S} s; send it again") from error
