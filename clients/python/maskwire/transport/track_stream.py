"""One Track stream of a tracker: requests, and the answers to each."""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

from google.protobuf.empty_pb2 import Empty

from maskwire.errors import DeadlineExceeded, MaskwireError, ServerUnavailable, from_status
from maskwire.transport.caller import Caller
from maskwire.transport.channels import CHUNK_BYTES
from maskwire.transport.track_call import TrackCall
from maskwire.v1 import tracker_pb2 as pb

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
    """A stream on which a track is open, as `Servers.open_track` opens it.

    Args:
        call: The stream.
        caller: On whose behalf.

    Attributes:
        info: What the tracker said last of the track.
    """

    def __init__(self, call: TrackCall, caller: Caller) -> None:
        self.info = call.opened.opened
        self._call = call
        self._caller = caller
        self._numbers = itertools.count(1)
        self._answers: dict[str, TrackAnswers] = {}
        self._of_frames: TrackAnswers | None = None
        self._seen = 0
        self._writing = asyncio.Lock()
        self._lost: BaseException | None = None
        self._reader = asyncio.create_task(self._read())

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
        """Forgets a request whose further answers nobody wants."""
        self._answers.pop(answers.request_id, None)

    async def close(self) -> None:
        """Ends the stream, after what is under way."""
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
        if not await self._call.write(request):
            await asyncio.wait({self._reader})  # learns why
            assert self._lost is not None
            raise self._lost

    async def _read(self) -> None:
        reason: MaskwireError = ServerUnavailable("the tracker ended the stream")
        try:
            while (answer := await self._call.read()) is not None:
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
        except MaskwireError as error:
            reason = error
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
    for start in range(0, len(file), CHUNK_BYTES):
        end = start + CHUNK_BYTES
        yield pb.FramePart(chunk=file[start:end], last=end >= len(file))
