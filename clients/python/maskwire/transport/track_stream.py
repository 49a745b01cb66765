"""One Track stream of a tracker: requests, and the answers to each."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from maskwire.errors import DeadlineExceeded, MaskwireError, ServerUnavailable, from_rpc, from_status
from maskwire.transport.caller import Caller
from maskwire.transport.calls import Attempt, call_with_retries
from maskwire.transport.channels import Channels
from maskwire.transport.losses import Losses
from maskwire.v1 import tracker_pb2 as pb
from maskwire.v1 import tracker_pb2_grpc

_CHUNK_BYTES = 1 << 16  # few of them are in flight at a time; see channels.py
_FRAME = "frame "  # beginning of the request_id of frames


class TrackStreamLost(Exception):
    """The stream ended before its answers came; the track is to be opened on another.

    Attributes:
        error: What callers are told where no other stream can be opened.
    """

    def __init__(self, error: MaskwireError) -> None:
        super().__init__(str(error))
        self.error = error


class TrackAnswers:
    """The answers to a request, in the order in which they come."""

    def __init__(self, stream: "TrackStream", request_id: str, timeout_s: float) -> None:
        self._stream = stream
        self._timeout_s = timeout_s
        self.request_id = request_id
        self.queue: asyncio.Queue[pb.TrackResponse | BaseException] = asyncio.Queue()

    async def next(self, patient: bool = False) -> pb.TrackResponse:
        """Returns the next answer, and tells the tracker that masks in it have been read.

        Args:
            patient: Whether to wait for as long as it takes, rather than the caller's timeout.

        Raises:
            TrackStreamLost: The stream ended.
            MaskwireError: The request failed, or the track cannot go on.
        """
        try:
            async with asyncio.timeout(None if patient else self._timeout_s):
                answer = await self.queue.get()
        except TimeoutError as error:
            raise DeadlineExceeded(f"the tracker gave no answer within {self._timeout_s:g} s") from error
        if isinstance(answer, BaseException):
            self.queue.put_nowait(answer)  # for whoever asks again
            raise answer
        if answer.HasField("masks"):
            await self._stream.acknowledge()
        if answer.HasField("error"):
            raise from_status(answer.error)
        return answer


class TrackStream:
    """A stream on which a track is open. Made by `connect`.

    Attributes:
        info: What the tracker said last of the track.
    """

    def __init__(self, call: Any, caller: Caller, info: pb.TrackInfo) -> None:
        self.info = info
        self._call = call
        self._caller = caller
        self._numbers = itertools.count(1)
        self._answers: dict[str, TrackAnswers] = {}
        self._of_frames: TrackAnswers | None = None
        self._seen = 0
        self._writing = asyncio.Lock()
        self._lost: BaseException | None = None
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def connect(
        cls, channels: Channels, caller: Caller, message: pb.OpenTrack, losses: Losses | None = None
    ) -> "TrackStream":
        """Opens a track, a new one or one to go on with; while trackers are away or busy, tries again.

        Raises:
            MaskwireError: The track cannot be opened, or no tracker answers.
        """

        async def begin(attempt: Attempt) -> tuple[Any, pb.TrackInfo]:
            call: Any = tracker_pb2_grpc.TrackerServiceStub(attempt.channel).Track(metadata=attempt.metadata)
            try:
                with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # read() says why
                    await call.write(pb.TrackRequest(request_id="open", open=message, masks_seen=0))
                async with asyncio.timeout(attempt.left_s):
                    answer = await call.read()
                if answer is grpc.aio.EOF or answer.HasField("reconnect"):
                    raise ServerUnavailable("the tracker is about to stop")
                if answer.HasField("error"):
                    raise from_status(answer.error)
            except BaseException:
                call.cancel()
                raise
            return call, answer.opened

        call, info = await call_with_retries(channels, caller, message.track_id or None, begin, losses=losses)
        return cls(call, caller, info)

    @property
    def is_lost(self) -> bool:
        """Whether the stream has ended."""
        return self._lost is not None

    async def ask(self, **request: Any) -> TrackAnswers:
        """Sends a request: a prompt, or follow.

        Raises:
            TrackStreamLost: The stream has ended.
        """
        answers = TrackAnswers(self, str(next(self._numbers)), self._caller.timeout_s)
        self._answers[answers.request_id] = answers
        await self._write(pb.TrackRequest(request_id=answers.request_id, **request))
        return answers

    async def send_frame(self, name: str, file: bytes, captured_at_us: int, may_be_skipped: bool) -> None:
        """Sends a frame. If it is skipped or wrong, the answers that `hear_of_frames` returned say so.

        Args:
            name: The frame's name in these answers.
            file: Its file.
            captured_at_us: When it was taken, by the caller's clock.
            may_be_skipped: Whether a newer frame may take its place while it waits.
        """
        async with self._writing:  # the parts of a frame follow one another
            for part in parts_of(file):
                frame = pb.TrackFrame(part=part, captured_at_us=captured_at_us, may_be_skipped=may_be_skipped)
                await self._send(pb.TrackRequest(request_id=_FRAME + name, frame=frame))

    def hear_of_frames(self, answers: TrackAnswers) -> None:
        """Adds what is said of frames to the answers to another request, with the frames' names as request_id."""
        self._of_frames = answers

    async def stop(self) -> None:
        """Ends the follow that is under way, whose last answer says so."""
        await self._write(pb.TrackRequest(stop=Empty()))

    async def acknowledge(self) -> None:
        """Says that masks have been read."""
        self._seen += 1
        with contextlib.suppress(TrackStreamLost):  # the next answer says it
            await self._write(pb.TrackRequest(masks_seen=self._seen))

    def forget(self, answers: TrackAnswers) -> None:
        """Forgets a request that no more is wanted of."""
        self._answers.pop(answers.request_id, None)

    async def close(self) -> None:
        """Ends the stream, after what is under way."""
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await self._call.done_writing()
            await asyncio.wait({self._reader}, timeout=self._caller.timeout_s)
        self._call.cancel()
        self._reader.cancel()
        await asyncio.wait({self._reader})

    async def _write(self, request: pb.TrackRequest) -> None:
        async with self._writing:
            await self._send(request)

    async def _send(self, request: pb.TrackRequest) -> None:
        if self._lost is not None:
            raise self._lost
        try:
            await self._call.write(request)
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await asyncio.wait({self._reader})  # learns why
            assert self._lost is not None
            raise self._lost from None

    async def _read(self) -> None:
        reason: MaskwireError = ServerUnavailable("the tracker ended the stream")
        losses = Losses()
        try:
            while (answer := await self._call.read()) is not grpc.aio.EOF:
                if answer.HasField("reconnect"):
                    break
                outcome = answer.WhichOneof("outcome")
                if outcome in ("opened", "changed", "followed"):
                    self.info = getattr(answer, outcome)
                waiting = self._answers.get(answer.request_id)
                if answer.request_id.startswith(_FRAME):
                    answer.request_id = answer.request_id.removeprefix(_FRAME)
                    waiting = self._of_frames
                if waiting is not None:
                    waiting.queue.put_nowait(answer)
                elif outcome == "masks":
                    await self.acknowledge()  # nobody waits for them any more
        except grpc.aio.AioRpcError as error:
            losses.note(error)
            reason = from_rpc(error, "tracker")
        except asyncio.CancelledError:
            self._end(TrackStreamLost(MaskwireError("the track is closed; open it again", "CLOSED")))
            raise
        finally:
            self._call.cancel()  # a tracker that is about to stop waits for the ends of its streams
        # What a server said of the track holds on every other one, too; all else may go on there.
        self._end(TrackStreamLost(reason) if isinstance(reason, ServerUnavailable) else reason)

    def _end(self, lost: BaseException) -> None:
        self._lost = lost
        for waiting in self._answers.values():
            waiting.queue.put_nowait(lost)


def parts_of(file: bytes) -> Iterator[pb.FramePart]:
    """Divides a frame's file into the parts in which it is sent."""
    for start in range(0, len(file), _CHUNK_BYTES):
        end = start + _CHUNK_BYTES
        yield pb.FramePart(chunk=file[start:end], last=end >= len(file))


async def upload_clip(
    channels: Channels, caller: Caller, header: pb.ClipHeader, frames: Callable[[], AsyncGenerator[bytes, None]]
) -> pb.ClipInfo:
    """Uploads the frames of a clip; where a tracker is lost, from the beginning.

    Args:
        channels: The trackers.
        caller: On whose behalf; its `timeout_s` holds for each part rather than for all.
        header: Describes the clip.
        frames: Yields the file of each frame, anew at each call.

    Raises:
        MaskwireError: The clip is refused, or no tracker answers.
    """

    async def send(attempt: Attempt) -> pb.ClipInfo:
        call: Any = tracker_pb2_grpc.TrackerServiceStub(attempt.channel).UploadClip(metadata=attempt.metadata)

        async def write(message: pb.UploadClipRequest) -> None:
            async with asyncio.timeout(caller.timeout_s):
                await call.write(message)

        try:
            try:
                await write(pb.UploadClipRequest(header=header))
                async with contextlib.aclosing(frames()) as files:
                    async for file in files:
                        for part in parts_of(file):
                            await write(pb.UploadClipRequest(frame=part))
                await call.done_writing()
            except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
                pass  # the call has ended before the upload; its answer tells why
            async with asyncio.timeout(caller.timeout_s):
                info: pb.ClipInfo = await call
                return info
        except BaseException:
            call.cancel()
            raise

    return await call_with_retries(channels, caller, None, send)
