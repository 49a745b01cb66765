"""A track's conversation with trackers, which goes on with another where one is lost."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterable

from maskwire.answered_size import check_size
from maskwire.connection import Connection
from maskwire.errors import InvalidRequest, MaskwireError
from maskwire.live_frames import LiveFrames, each, encoded
from maskwire.sources import ImageLike
from maskwire.track_opening import TrackOpening
from maskwire.tracked_frame import TrackedFrame
from maskwire.transport.track_stream import TrackAnswers, TrackStream, TrackStreamLost
from maskwire.v1 import tracker_pb2 as pb
from maskwire.video import MaskSequence

_MAX_LOSSES = 4  # of streams under one request, without any answer in between


class TrackConnection:
    """A track that is opened at its first use, and on another stream where one was lost.

    Args:
        connection: The servers, and on whose behalf.
        opening: What it is opened with.

    Attributes:
        opening: As given.
        masks: The newest masks of each frame that was read; None until the track is open.
        inherited: Objects that the track had when it was opened first.
        live: The frames that were sent; None for a track of a clip.
    """

    def __init__(self, connection: Connection, opening: TrackOpening) -> None:
        self.opening = opening
        self.masks: MaskSequence | None = None
        self.inherited: set[str] = set()
        self.live: LiveFrames | None = None
        self._is_followed_live = False
        self._named: list[str] = []  # objects in answers, which may be newer than `info`
        self._connection = connection
        self._stream: TrackStream | None = None
        self._following: TrackAnswers | None = None
        self._opens = asyncio.Lock()
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether the track has been opened."""
        return self._stream is not None

    @property
    def info(self) -> pb.TrackInfo:
        """What trackers said last of the track; empty until it is open."""
        return pb.TrackInfo() if self._stream is None else self._stream.info

    @property
    def objects(self) -> list[str]:
        """Names of the objects, in the order in which they were made."""
        return list(dict.fromkeys([*self.info.object_ids, *self._named]))

    def forget_object(self, name: str) -> None:
        """Forgets an object that was removed, and its masks."""
        self.inherited.discard(name)
        self._named = [each for each in self._named if each != name]
        if self.masks is not None and name in self.masks.objects:
            self.masks.remove(name)

    async def open(self) -> None:
        """Opens the track, unless the size of its frames is known only with the first of them."""
        self._connection.servers.check()
        if not self.opening.waits_for_frame:
            await self.connected()

    async def connected(self) -> TrackStream:
        """Returns a stream on which the track is open: the one that there is, or another if it was lost.

        Raises:
            MaskwireError: The track cannot be opened, or is closed.
        """
        self._connection.servers.check()
        if self._closed:
            raise MaskwireError("the track is closed; open it again", "CLOSED")
        async with self._opens:
            if self._stream is not None and not self._stream.is_lost:
                return self._stream
            if self._stream is None:
                await self.opening.prepare()  # the size of a live track's frames is known from its first
            self._stream = await self.opening.connect(self.info.track_id)
            if self.live is not None:
                with contextlib.suppress(TrackStreamLost):  # the next call opens another
                    await self.live.send_again(self._stream)
            elif self.opening.is_live:
                self.live = LiveFrames(self._stream.info.frames)
            if self.masks is None:
                self.masks = MaskSequence(*check_size(self.info.width_px, self.info.height_px, self.opening.known_size))
                self.inherited = set(self.info.object_ids)
            return self._stream

    async def close(self) -> None:
        """Ends the stream, and deletes track and clip from the store unless they are to be kept."""
        if self._closed:
            return
        self._closed = True
        if self._stream is not None:
            await self.end_follow()
            await self._stream.close()
        if not self.opening.keep:
            with contextlib.suppress(MaskwireError):  # they expire
                await self.opening.forget(self.info.track_id)

    async def ask(self, prompt: pb.TrackPrompt) -> pb.TrackResponse:
        """Sends a prompt, and again on another stream where one is lost before the answer. It ends a follow.

        Raises:
            InvalidRequest: It is wrong; `field` is what callers of `click` and `box` call it.
        """
        if not self._is_followed_live:
            await self.end_follow()
        for losses in range(1, _MAX_LOSSES + 1):
            stream = await self.connected()
            try:
                answers = await stream.ask(prompt=prompt)
                try:
                    return await answers.next()
                finally:
                    stream.forget(answers)
            except TrackStreamLost as lost:
                if losses == _MAX_LOSSES:
                    raise lost.error from lost
            except InvalidRequest as error:
                error.field = _argument(error.field)
                raise
        raise AssertionError("unreachable: the last loss raises")

    async def follow(self, start: int | None, count: int | None, reverse: bool) -> AsyncGenerator[TrackedFrame, None]:
        """Follows all objects; see `AsyncTrack.follow`."""
        await self.connected()
        await self.end_follow()
        step, losses = (-1 if reverse else 1), 0
        first = last = None  # frames that were read
        before = self._stored_to
        while True:
            stream = await self.connected()
            begin = start if first is None or last is None else self._resumes_at(first, last, step, before)
            message = pb.Follow(start=begin, most=None if count is None else count - 1, reverse=reverse)
            if first is not None and count is not None and begin is not None:
                message.most = count - 1 - abs(begin - first)
            answers = None
            try:
                self._following = answers = await stream.ask(follow=message)
                while self._following is answers:
                    answer = await answers.next(patient=True)
                    if answer.HasField("followed"):
                        self._following = None
                        return
                    if last is not None and (answer.masks.frame - last) * step <= 0:
                        continue  # read before the stream was lost
                    found = self.take(answer.masks)
                    first, last, losses = found.index if first is None else first, found.index, 0
                    yield found
                return  # another request came
            except TrackStreamLost as lost:
                losses += 1
                if losses == _MAX_LOSSES:
                    raise lost.error from lost
                if first is not None and last is not None and self._is_end(first, last, count, step):
                    return
            except MaskwireError:
                self._following = None  # it has ended
                raise
            finally:
                if answers is not None:
                    if self._following is answers:
                        await self.end_follow()
                    stream.forget(answers)

    async def add_frame(self, picture: ImageLike, may_be_skipped: bool) -> int:
        """Sends a frame. Returns its index, if it is not skipped."""
        file, size = await asyncio.to_thread(encoded, picture, self.opening.lossless)
        self.opening.set_size(size)
        stream = await self.connected()
        if self.live is None:
            raise InvalidRequest("the frames of this track are those of its clip", "HAS_CLIP", "frames")
        frame = self.live.add(file)
        index = self.live.count - 1
        with contextlib.suppress(TrackStreamLost):  # it is sent again with the next call
            await stream.send_frame(frame.name, frame.file, frame.captured_at_us, may_be_skipped)
        return index

    async def follow_live(
        self, frames: Iterable[ImageLike] | AsyncIterable[ImageLike], skip: bool
    ) -> AsyncGenerator[TrackedFrame, None]:
        """Follows all objects on frames as they come; see `AsyncTrack.live`."""
        await self.end_follow()
        come = asyncio.Event()

        async def feed() -> None:
            try:
                async for frame in each(frames):
                    await self.add_frame(frame, skip)
                    come.set()
            finally:
                come.set()

        feeding, last, losses = asyncio.create_task(feed()), None, 0
        self._is_followed_live = True
        try:
            while True:
                while not feeding.done() and (
                    self.live is None or self.live.count <= (-1 if last is None else last + 1)
                ):
                    come.clear()
                    await come.wait()  # for a frame to follow
                if self.live is None or (feeding.done() and last == self.live.count - 1):
                    await feeding
                    return
                stream = await self.connected()
                try:
                    begin = None if last is None else self._resumes_live_at(last)
                    self._following = answers = await stream.ask(follow=pb.Follow(start=begin, live=True))
                    stream.hear_of_frames(answers)
                    async with contextlib.aclosing(self._until_fed(answers, feeding)) as found:
                        async for message in found:
                            if last is not None and message.frame <= last:
                                continue  # read before the stream was lost
                            last, losses = message.frame, 0
                            yield self.take(message)
                except TrackStreamLost as lost:
                    losses += 1
                    if losses == _MAX_LOSSES:
                        raise lost.error from lost
        finally:
            self._is_followed_live = False
            feeding.cancel()
            await self.end_follow()

    async def _until_fed(
        self, answers: TrackAnswers, feeding: "asyncio.Task[None]"
    ) -> AsyncGenerator[pb.FrameMasks, None]:
        """Yields the masks of live frames until the last of them."""
        assert self.live is not None
        last, asking = -1, None
        try:
            while not (feeding.done() and last >= self.live.count - 1):
                asking = asking or asyncio.ensure_future(answers.next(patient=True))
                waited = {asking} if feeding.done() else {asking, feeding}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if not asking.done():
                    feeding.result()  # raises what went wrong with the frames
                    continue
                answer, asking = asking.result(), None
                if answer.HasField("skipped"):
                    self.live.drop(answer.request_id)
                elif answer.HasField("masks"):
                    last = answer.masks.frame
                    yield answer.masks
                elif answer.HasField("followed"):
                    self._following = None
                    return
        finally:
            if asking is not None:
                asking.cancel()

    async def stop(self) -> None:
        """Has the follow that is under way end; what was found is still read."""
        if self._following is not None and self._stream is not None:
            with contextlib.suppress(TrackStreamLost):
                await self._stream.stop()

    async def end_follow(self) -> None:
        """Ends the follow that is under way; the masks on their way are kept."""
        answers, self._following = self._following, None
        if answers is None or self._stream is None:
            return
        with contextlib.suppress(TrackStreamLost, MaskwireError):
            await self._stream.stop()
            while not (answer := await answers.next(patient=True)).HasField("followed"):
                self.take(answer.masks)
        self._stream.forget(answers)

    def take(self, message: pb.FrameMasks) -> TrackedFrame:
        """Makes a frame of an answer, and keeps its masks."""
        assert self.masks is not None
        times_s, size = self.opening.times_s, (self.masks.width, self.masks.height)
        found = TrackedFrame(message, size, times_s[message.frame] if message.frame < len(times_s) else None)
        self._named += [name for name in found.masks if name not in self._named]
        if self.masks is not None and self.live is None:  # live tracks have no end
            kept = self.masks.rles(found.index)
            kept.update({name: mask.rle for name, mask in found.masks.items()})
            self.masks.add(found.index, kept)
        return found

    @property
    def _stored_to(self) -> int | None:
        return self.info.followed_to if self.info.HasField("followed_to") else None

    def _resumes_at(self, first: int, last: int, step: int, before: int | None) -> int:
        """Returns the frame from which a follow goes on whose stream was lost.

        What the store has of it decides: it may be behind the last frame that was read, or ahead. Without anything new
        in the store, it begins again.
        """
        stored = self._stored_to
        if stored is None or stored == before or (stored - first) * step < 0:
            return first
        return (min(stored, last) if step > 0 else max(stored, last)) + step

    def _resumes_live_at(self, last: int) -> int:
        """As `_resumes_at` for live frames, of which those behind the store's were sent again."""
        stored = self._stored_to
        return min(last + 1, self.info.frames if stored is None else stored + 1)

    def _is_end(self, first: int, last: int, count: int | None, step: int) -> bool:
        """Whether the last frame that was read is the last of all."""
        return last == (self.info.frames - 1 if step > 0 else 0) or (
            count is not None and abs(last - first) == count - 1
        )


def _argument(field: str) -> str:
    """What a field of a prompt is called by callers of `click` and `box`."""
    name = field.removeprefix("prompt.").split(".")[-1].removesuffix("_px")
    return {"object_id": "object"}.get(name, name)
