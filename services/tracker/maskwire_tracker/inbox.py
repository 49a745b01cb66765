"""Requests of a Track stream that have come and wait to be answered."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.empty_pb2 import Empty
from maskwire.v1 import tracker_pb2 as pb
from maskwire_core import names
from maskwire_core.call_context import current
from maskwire_core.errors import InvalidArgument, ResourceExhausted, ServiceError
from maskwire_core.rpc.error_status import status_of
from maskwire_core.scheduling.changes import Changes

MAX_WAITING = 256
"""Requests that are read ahead."""

_MAX_WAITING_FRAMES = 16  # among them, frames
_PATIENCE_S = 30  # for memory for a frame


@dataclass(eq=False)
class Request:
    """A request that waits."""

    message: pb.TrackRequest  # what was sent; of a frame, without its file
    content: bytes | str = b""  # of a frame: its file, or the content key of its embedding

    @property
    def kind(self) -> str | None:
        """What is asked."""
        return self.message.WhichOneof("request")


class Inbox:
    """Reads a stream ahead, up to a number of requests and the bytes of frames that its call may hold.

    Args:
        changes: Told when something has come.
        max_frame_bytes: Largest file of a frame.
        has_room: Whether few enough answers wait to be sent that more may be read.
        send: Sends an answer: the id of its request, and its outcome.

    Attributes:
        masks_seen: How many masks the caller says it has read; None if it does not say.
        ended: Whether the caller has sent all.
        skips_frames: Whether a frame that comes takes the place of one that waits and may be skipped.
    """

    def __init__(
        self,
        changes: Changes,
        max_frame_bytes: int,
        has_room: Callable[[], bool],
        send: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self.masks_seen: int | None = None
        self.ended = False
        self.skips_frames = False
        self._changes, self._max_frame_bytes = changes, max_frame_bytes
        self._has_room, self._send = has_room, send
        self._waiting: deque[Request] = deque()
        self._coming = bytearray()  # of the frame that comes; a list would take many times as much as small parts have
        self._refusing = False  # whether the rest of that frame is thrown away
        self._memory = current().memory.another()  # frames that come, wait or are kept

    async def read(self, requests: AsyncIterator[pb.TrackRequest]) -> None:
        """Reads requests until they end."""
        try:
            async for message in requests:
                says_seen = message.HasField("masks_seen")
                if says_seen:
                    self.masks_seen = max(self.masks_seen or 0, message.masks_seen)
                kind = message.WhichOneof("request")
                is_request = kind is not None or not says_seen
                try:
                    current().caller.charge(requests=kind != "frame" and is_request, received_bytes=message.ByteSize())
                    names.request_id(message.request_id)
                    if kind == "frame":
                        await self._read_frame(message)
                    elif is_request:
                        self._waiting.append(Request(message))
                except ServiceError as error:
                    if kind == "frame":
                        self._refuse_frame(message)
                    self._send(message.request_id, {"error": status_of(error)})
                self._changes.notify()
                await self._changes.until(self._may_read)
        finally:
            self.ended = True

    async def next(self) -> Request | None:
        """Returns the next request; None at the end."""
        await self._changes.until(lambda: bool(self._waiting) or self.ended)
        if not self._waiting:
            return None
        request = self._waiting.popleft()
        self._changes.notify()
        return request

    def has_stop(self) -> bool:
        """Whether the caller has asked to stop."""
        return any(request.kind == "stop" for request in self._waiting)

    def take_stop(self) -> None:
        """Takes the request to stop, whatever came before it."""
        self._waiting.remove(next(request for request in self._waiting if request.kind == "stop"))

    def give_back(self, nbytes: int) -> None:
        """Gives back memory of frames that are no longer kept."""
        self._memory.give_back(nbytes)

    def forget(self, request: Request) -> None:
        """Gives back the memory of a frame that will not be kept."""
        if isinstance(request.content, bytes):
            self._memory.give_back(len(request.content))

    def close(self) -> None:
        """Drops what waits, and gives back all memory."""
        self._waiting.clear()
        self._coming = bytearray()
        self._memory.close()

    def _may_read(self) -> bool:
        frames = sum(request.kind == "frame" for request in self._waiting)
        return len(self._waiting) < MAX_WAITING and frames < _MAX_WAITING_FRAMES and self._has_room()

    async def _read_frame(self, message: pb.TrackRequest) -> None:
        frame = message.frame
        if self._refusing:
            self._refusing = not frame.part.last
            return
        if frame.content_key:
            self._accept_frame(Request(message, names.content_key(frame.content_key)))
            return
        most = self._max_frame_bytes
        if len(self._coming) + len(frame.part.chunk) > most:
            raise ResourceExhausted("FRAME_TOO_LARGE", f"a frame has more than {most} bytes", field="frame.part")
        await self._memory.wait(len(frame.part.chunk), _PATIENCE_S)
        self._coming += frame.part.chunk
        frame.part.chunk = b""
        if frame.part.last:
            content = bytes(self._coming)
            if not content:
                raise InvalidArgument("EMPTY_IMAGE", "the frame has no bytes", field="frame.part")
            self._coming = bytearray()
            self._accept_frame(Request(message, content))

    def _refuse_frame(self, message: pb.TrackRequest) -> None:
        """Throws away what has come of a frame, and what will come."""
        self._memory.give_back(len(self._coming))
        self._coming = bytearray()
        self._refusing = not message.frame.part.last and not message.frame.content_key

    def _accept_frame(self, request: Request) -> None:
        """Has a frame wait, instead of one that may be skipped."""
        last = self._waiting[-1] if self._waiting else None
        if self.skips_frames and last is not None and last.kind == "frame" and last.message.frame.may_be_skipped:
            self._waiting.pop()
            self.forget(last)
            self._send(last.message.request_id, {"skipped": Empty()})
        self._waiting.append(request)
