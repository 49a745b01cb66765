"""Answers a Track stream: requests in, masks out."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from google.protobuf.empty_pb2 import Empty
from maskwire.v1 import tracker_pb2 as pb
from maskwire_core import names
from maskwire_core.call_context import current
from maskwire_core.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, ServiceError
from maskwire_core.masks.answer_room import AnswerRoom
from maskwire_core.rpc.error_status import status_of
from maskwire_core.scheduling.changes import Changes
from maskwire_core.telemetry.metrics import STREAM_ANSWERS

from maskwire_tracker.inbox import MAX_WAITING, Inbox, Request
from maskwire_tracker.opened_track import OpenedTrack
from maskwire_tracker.tracker import Tracker

_MAX_UNSEEN = 8  # masks on the way to a caller that says what it has seen
_OPEN_S = 60  # for the first request


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
        self._changes = Changes()
        self._outbox: deque[pb.TrackResponse] = deque()
        self._inbox = Inbox(
            self._changes,
            tracker.settings.max_frame_bytes,
            lambda: len(self._outbox) < MAX_WAITING,
            lambda request_id, outcome: self._send(request_id, **outcome),
        )
        self._sending = False
        self._answer_memory = current().memory
        self._masks_sent = 0
        self._opened: OpenedTrack | None = None

    async def answer(self, requests: AsyncIterator[pb.TrackRequest]) -> AsyncGenerator[pb.TrackResponse, None]:
        """Yields the answers to requests, until the requests end. Raises what ends the stream."""
        reader = asyncio.create_task(self._inbox.read(requests))
        worker = asyncio.create_task(self._work())
        drain = asyncio.create_task(self._announce_drain())
        for task in (reader, worker):
            task.add_done_callback(lambda _: self._changes.notify())
        try:
            while True:
                await self._changes.until(lambda: bool(self._outbox) or worker.done() or _failed(reader))
                if self._outbox:
                    self._sending = True
                    yield self._outbox.popleft()
                    self._sending = False
                    self._answer_memory.give_back(self._answer_memory.nbytes)
                    self._changes.notify()
                    continue
                if _failed(reader):
                    await reader
                await worker
                return
        finally:
            for task in (reader, worker, drain):
                task.cancel()
            await asyncio.gather(reader, worker, drain, return_exceptions=True)
            self._inbox.close()
            opened, self._opened = self._opened, None  # this session is garbage with cycles, and would keep its state
            if opened is not None:
                with contextlib.suppress(ServiceError):
                    await opened.close()

    def _has_sent_all(self) -> bool:
        return not self._outbox and not self._sending

    # Answers

    async def _work(self) -> None:
        opened = await self._open()
        while (request := await self._inbox.next()) is not None:
            try:
                await self._answer_request(opened, request)
            except FailedPrecondition:  # somebody else has the track
                raise
            except Exception as error:  # reported to the caller, whose stream lives on
                self._inbox.skips_frames = False
                self._answer_memory.give_back(self._answer_memory.nbytes)
                self._send_error(request.message.request_id, error)
        await opened.save()

    async def _open(self) -> OpenedTrack:
        try:
            async with asyncio.timeout(_OPEN_S):
                request = await self._inbox.next()
        except TimeoutError as error:
            raise DeadlineExceeded("MESSAGE_STALLED", "the first request did not come; send open") from error
        if request is None or request.kind != "open":
            raise InvalidArgument("NOT_OPEN", "the first request must be open", field="request")
        self._opened = opened = await self._tracker.open(request.message.open, self._token)
        self._send(request.message.request_id, opened=opened.info)
        return opened

    async def _answer_request(self, opened: OpenedTrack, request: Request) -> None:
        request_id = request.message.request_id
        match request.kind:
            case "frame":
                self._add_frame(opened, request)
            case "prompt":
                await self._changes.until(self._has_sent_all)
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

    def _add_frame(self, opened: OpenedTrack, request: Request) -> int:
        """Takes the next frame of a stream. Returns its index."""
        if opened.live is None:
            self._inbox.forget(request)
            raise InvalidArgument("HAS_CLIP", "this track's frames are those of its clip", field="frame")
        self._inbox.give_back(opened.live.add(request.content, request.message.frame.captured_at_us))
        opened.description.frames = opened.live.count
        return opened.live.count - 1

    async def _follow(self, opened: OpenedTrack, request: Request) -> None:
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

    async def _follow_live(self, opened: OpenedTrack, request: Request) -> None:
        follow = request.message.follow
        if opened.live is None or follow.HasField("most") or follow.reverse:
            raise InvalidArgument(
                "NOT_LIVE", "live is for frames that come on the stream, without most and reverse", field="follow.live"
            )
        index, self._inbox.skips_frames = await opened.begin(follow), True
        try:
            while True:
                while index < opened.live.count:
                    if not await self._may_go_on():
                        return
                    ahead = range(index + 1, min(index + 1 + self._tracker.settings.frames_ahead, opened.live.count))
                    await self._follow_frame(opened, request.message.request_id, index, False, ahead)
                    index += 1
                if (other := await self._inbox.next()) is None or other.kind == "stop":
                    return
                await self._answer_between(opened, other)
        finally:
            self._inbox.skips_frames = False

    async def _answer_between(self, opened: OpenedTrack, request: Request) -> None:
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

        def may_send() -> bool:
            seen = self._inbox.masks_seen
            unseen = 0 if seen is None else self._masks_sent - seen
            return self._has_sent_all() and unseen < _MAX_UNSEEN

        await self._changes.until(lambda: may_send() or self._inbox.has_stop() or self._inbox.ended)
        if self._inbox.has_stop():
            self._inbox.take_stop()
            return False
        # A caller that has sent all will not say any more what it has read.
        await self._changes.until(self._has_sent_all)
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
        self._changes.notify()

    async def _announce_drain(self) -> None:
        await self._draining.wait()
        self._send("", reconnect=Empty())


def _failed(task: "asyncio.Task[None]") -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
