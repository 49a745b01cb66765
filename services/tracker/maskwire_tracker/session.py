"""Answers a Track stream: requests in, masks out."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.empty_pb2 import Empty
from maskwire.v1 import tracker_pb2 as pb
from maskwire_core import names
from maskwire_core.call_context import current
from maskwire_core.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    ServiceError,
)
from maskwire_core.masks.answer_room import AnswerRoom
from maskwire_core.rpc.error_status import status_of
from maskwire_core.telemetry.metrics import STREAM_ANSWERS

from maskwire_tracker.opened_track import OpenedTrack
from maskwire_tracker.tracker import Tracker

_MAX_WAITING = 256  # requests that are read ahead
_MAX_WAITING_FRAMES = 16  # among them, frames
_MAX_UNSEEN = 8  # masks on the way to a caller that says what it has seen
_PATIENCE_S = 30  # for memory for a frame
_OPEN_S = 60  # for the first request


@dataclass(eq=False)
class _Request:
    """A request that waits."""

    message: pb.TrackRequest  # what was sent; of a frame, without its file
    content: bytes | str = b""  # of a frame: its file, or the content key of its embedding

    @property
    def kind(self) -> str | None:
        """What is asked."""
        return self.message.WhichOneof("request")


class TrackSession:
    """Answers one stream.

    One task reads, one works, and whoever iterates over `answer` sends: the next frame is followed when the masks of
    the last one have left, and a caller that says what it has seen has at most eight to read.

    Args:
        tracker: Opens tracks.
        token: The caller's token, for the encoder.
        draining: Set when the caller should go on elsewhere.
    """

    def __init__(self, tracker: Tracker, token: str, draining: asyncio.Event) -> None:
        self._tracker, self._token, self._draining = tracker, token, draining
        self._changed = asyncio.Event()
        self._waiting: deque[_Request] = deque()
        self._coming = bytearray()  # of the frame that comes; a list would take many times as much as small parts have
        self._refusing = False  # whether the rest of that frame is thrown away
        self._outbox: deque[pb.TrackResponse] = deque()
        self._memory = current().memory.another()  # frames that come, wait or are kept
        self._sending = False
        self._answer_memory = current().memory
        self._masks_sent = 0
        self._masks_seen: int | None = None
        self._input_ended = False
        self._is_live = False  # whether a live "follow" is under way
        self._opened: OpenedTrack | None = None

    async def answer(self, requests: AsyncIterator[pb.TrackRequest]) -> AsyncGenerator[pb.TrackResponse, None]:
        """Yields the answers to requests, until the requests end. Raises what ends the stream."""
        reader = asyncio.create_task(self._read(requests))
        worker = asyncio.create_task(self._work())
        drain = asyncio.create_task(self._announce_drain())
        for task in (reader, worker):
            task.add_done_callback(lambda _: self._notify())
        try:
            while True:
                await self._until(lambda: bool(self._outbox) or worker.done() or _failed(reader))
                if self._outbox:
                    self._sending = True
                    yield self._outbox.popleft()
                    self._sending = False
                    self._answer_memory.give_back(self._answer_memory.nbytes)
                    self._notify()
                    continue
                if _failed(reader):
                    await reader
                await worker
                return
        finally:
            for task in (reader, worker, drain):
                task.cancel()
            await asyncio.gather(reader, worker, drain, return_exceptions=True)
            self._memory.close()
            if self._opened is not None:
                with contextlib.suppress(ServiceError):
                    await self._opened.close()

    def _notify(self) -> None:
        """Makes the tasks that wait in `_until` check their conditions again."""
        self._changed.set()
        self._changed.clear()

    def _has_sent_all(self) -> bool:
        return not self._outbox and not self._sending

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    # Requests

    async def _read(self, requests: AsyncIterator[pb.TrackRequest]) -> None:
        try:
            async for message in requests:
                says_seen = message.HasField("masks_seen")
                if says_seen:
                    self._masks_seen = max(self._masks_seen or 0, message.masks_seen)
                kind = message.WhichOneof("request")
                is_request = kind is not None or not says_seen
                try:
                    current().caller.charge(requests=kind != "frame" and is_request, received_bytes=message.ByteSize())
                    names.request_id(message.request_id)
                    if kind == "frame":
                        await self._read_frame(message)
                    elif is_request:
                        self._waiting.append(_Request(message))
                except ServiceError as error:
                    if kind == "frame":
                        self._refuse_frame(message)
                    self._send_error(message.request_id, error)
                self._notify()
                await self._until(self._may_read)
        finally:
            self._input_ended = True

    def _may_read(self) -> bool:
        frames = sum(request.kind == "frame" for request in self._waiting)
        return len(self._waiting) < _MAX_WAITING and frames < _MAX_WAITING_FRAMES and len(self._outbox) < _MAX_WAITING

    async def _read_frame(self, message: pb.TrackRequest) -> None:
        frame = message.frame
        if self._refusing:
            self._refusing = not frame.part.last
            return
        if frame.content_key:
            self._accept_frame(_Request(message, names.content_key(frame.content_key)))
            return
        most = self._tracker.settings.max_frame_bytes
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
            self._accept_frame(_Request(message, content))

    def _refuse_frame(self, message: pb.TrackRequest) -> None:
        """Throws away what has come of a frame, and what will come."""
        self._memory.give_back(len(self._coming))
        self._coming = bytearray()
        self._refusing = not message.frame.part.last and not message.frame.content_key

    def _accept_frame(self, request: _Request) -> None:
        """Has a frame wait, instead of one that may be skipped while objects are followed live."""
        last = self._waiting[-1] if self._waiting else None
        if self._is_live and last is not None and last.kind == "frame" and last.message.frame.may_be_skipped:
            self._waiting.pop()
            self._forget(last)
            self._send(last.message.request_id, skipped=Empty())
        self._waiting.append(request)

    def _forget(self, request: _Request) -> None:
        if isinstance(request.content, bytes):
            self._memory.give_back(len(request.content))

    # Answers

    async def _work(self) -> None:
        opened = await self._open()
        while (request := await self._next()) is not None:
            try:
                await self._answer_request(opened, request)
            except FailedPrecondition:  # somebody else has the track
                raise
            except Exception as error:  # reported to the caller, whose stream lives on
                self._is_live = False
                self._answer_memory.give_back(self._answer_memory.nbytes)
                self._send_error(request.message.request_id, error)
        await opened.save()

    async def _open(self) -> OpenedTrack:
        try:
            async with asyncio.timeout(_OPEN_S):
                request = await self._next()
        except TimeoutError as error:
            raise DeadlineExceeded("MESSAGE_STALLED", "the first request did not come; send open") from error
        if request is None or request.kind != "open":
            raise InvalidArgument("NOT_OPEN", "the first request must be open", field="request")
        self._opened = opened = await self._tracker.open(request.message.open, self._token)
        self._send(request.message.request_id, opened=opened.info)
        return opened

    async def _next(self) -> _Request | None:
        """Returns the next request; None at the end."""
        await self._until(lambda: bool(self._waiting) or self._input_ended)
        if not self._waiting:
            return None
        request = self._waiting.popleft()
        self._notify()
        return request

    async def _answer_request(self, opened: OpenedTrack, request: _Request) -> None:
        request_id = request.message.request_id
        match request.kind:
            case "frame":
                self._add_frame(opened, request)
            case "prompt":
                await self._until(self._has_sent_all)
                masks = await opened.prompt(request.message.prompt, AnswerRoom(self._answer_memory))
                if masks is None:
                    self._send(request_id, changed=opened.info)
                else:
                    self._send_masks(request_id, masks)
            case "follow":
                try:
                    await self._follow(opened, request)
                finally:
                    opened.frames.drop()
            case "stop":
                pass  # what it would have ended has ended
            case "open":
                raise InvalidArgument("ALREADY_OPEN", "the stream has a track; open another stream", field="open")
            case _:
                raise InvalidArgument("EMPTY_REQUEST", "send frame, prompt, follow or stop", field="request")

    def _add_frame(self, opened: OpenedTrack, request: _Request) -> int:
        """Takes the next frame of a stream. Returns its index."""
        if opened.live is None:
            self._forget(request)
            raise InvalidArgument("HAS_CLIP", "this track's frames are those of its clip", field="frame")
        self._memory.give_back(opened.live.add(request.content, request.message.frame.captured_at_us))
        opened.description.frames = opened.live.count
        return opened.live.count - 1

    async def _follow(self, opened: OpenedTrack, request: _Request) -> None:
        follow, request_id = request.message.follow, request.message.request_id
        if follow.live:
            await self._follow_live(opened, request)
        else:
            start = await opened.begin(follow)
            most = follow.most if follow.HasField("most") else None
            if most is None and opened.live is not None:
                most = max(0, opened.description.frames - 1 - start)
            order = opened.track.order(start, most, follow.reverse)
            if opened.live is not None:
                order = range(order.start, min(order.stop, opened.description.frames), order.step)
            for place, index in enumerate(order):
                if not await self._may_go_on():
                    break
                ahead = order[place + 1 : place + 1 + self._tracker.settings.frames_ahead]
                await self._follow_frame(opened, request_id, index, follow.reverse, list(ahead))
            await opened.save()
        self._send(request_id, followed=opened.info)

    async def _follow_live(self, opened: OpenedTrack, request: _Request) -> None:
        follow = request.message.follow
        if opened.live is None or follow.HasField("most") or follow.reverse:
            raise InvalidArgument(
                "NOT_LIVE", "live is for frames that come on the stream, without most and reverse", field="follow.live"
            )
        index, self._is_live = await opened.begin(follow), True
        try:
            while True:
                while index < opened.live.count:
                    if not await self._may_go_on():
                        return
                    ahead = range(index + 1, min(index + 1 + self._tracker.settings.frames_ahead, opened.live.count))
                    await self._follow_frame(opened, request.message.request_id, index, False, ahead)
                    index += 1
                if (other := await self._next()) is None or other.kind == "stop":
                    return
                await self._answer_between(opened, other)
        finally:
            self._is_live = False

    async def _answer_between(self, opened: OpenedTrack, request: _Request) -> None:
        """Answers a request between two frames that are followed live."""
        try:
            if request.kind == "follow":
                raise InvalidArgument("ALREADY_FOLLOWING", "send stop before another follow", field="follow")
            await self._answer_request(opened, request)
            if request.kind == "prompt":
                await opened.begin(pb.Follow(live=True))
        except FailedPrecondition:
            raise
        except Exception as error:  # reported to the caller; the frames that follow are followed
            self._answer_memory.give_back(self._answer_memory.nbytes)
            self._send_error(request.message.request_id, error)

    async def _may_go_on(self) -> bool:
        """Waits until the masks before have left, and the caller has read enough. Returns False if it wants no more."""

        def stopped() -> bool:
            return any(request.kind == "stop" for request in self._waiting)

        def may_send() -> bool:
            unseen = 0 if self._masks_seen is None else self._masks_sent - self._masks_seen
            return self._has_sent_all() and unseen < _MAX_UNSEEN

        await self._until(lambda: may_send() or stopped() or self._input_ended)
        if stopped():
            stop = next(request for request in self._waiting if request.kind == "stop")
            self._waiting.remove(stop)
            return False
        await self._until(self._has_sent_all)  # a caller that has sent all will not say any more what it has read
        return True

    async def _follow_frame(
        self, opened: OpenedTrack, request_id: str, index: int, backwards: bool, ahead: Any
    ) -> None:
        room = AnswerRoom(self._answer_memory)
        self._send_masks(request_id, await opened.follow(index, backwards, list(ahead), room))

    # Sending

    def _send_masks(self, request_id: str, masks: pb.FrameMasks) -> None:
        self._masks_sent += 1
        self._send(request_id, masks=masks)

    def _send_error(self, request_id: str, error: Exception) -> None:
        self._send(request_id, error=status_of(error))

    def _send(self, request_id: str, **outcome: Any) -> None:
        response = pb.TrackResponse(request_id=request_id[: names.MAX_REQUEST_ID], **outcome)
        STREAM_ANSWERS.labels(str(response.WhichOneof("outcome"))).inc()
        self._outbox.append(response)
        self._notify()

    async def _announce_drain(self) -> None:
        await self._draining.wait()
        self._send("", reconnect=Empty())


def _failed(task: "asyncio.Task[None]") -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
