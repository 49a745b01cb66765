"""An open track: its objects change on worker threads, frame by frame, and its state is written to the store."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from maskwire.v1 import tracker_pb2 as pb
from maskwire_core.config import TrackerSettings
from maskwire_core.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from maskwire_core.masks.answer_room import AnswerRoom
from maskwire_core.masks.geometry import ImageSize
from maskwire_core.scheduling.byte_budget import Account
from maskwire_core.scheduling.executors import ThreadScheduler
from maskwire_core.scheduling.fair_queue import Requester
from maskwire_core.scheduling.scheduler import Demand
from maskwire_core.storage.tracks import TrackStore
from maskwire_core.telemetry.metrics import FRAMES, STAGES

from maskwire_tracker import stored_track
from maskwire_tracker.frames import FrameEmbeddings, LiveFrames
from maskwire_tracker.messages import Formats, parse_mask, parse_object_id, parse_points, track_info
from maskwire_tracker.patience import patient
from maskwire_tracker.predictor import Frame
from maskwire_tracker.remembered import Remembered
from maskwire_tracker.rendering import render
from maskwire_tracker.stored_track import Description
from maskwire_tracker.track import Track

T = TypeVar("T")


@dataclass(frozen=True)
class TrackName:
    """What names an open track in the store."""

    namespace: str
    track_id: str
    epoch: int
    owner: str


@dataclass(eq=False)
class OpenedTrack:
    """A track that this tracker has open. Its methods are called one after another.

    Args:
        name: What names it.
        description: What it was opened with, and where it is.
        track: Its objects.
        frames: The embeddings of its frames.
        live: The frames of its stream; None if it has a clip.
        formats: Forms of masks.
        settings: Limits.
        scheduler: Runs the work.
        tracks: Where it is stored.
        memory: On whose account its state is.
        when_closed: Called when it is closed; set by whoever opens it.
    """

    name: TrackName
    description: Description
    track: Track
    frames: FrameEmbeddings
    live: LiveFrames | None
    formats: Formats
    settings: TrackerSettings
    scheduler: ThreadScheduler
    tracks: TrackStore
    memory: Account
    when_closed: Callable[[], None] = lambda: None
    _prepared: Frame | None = None
    _saved: stored_track.Records = field(default_factory=dict)
    _saving: "asyncio.Task[bool] | None" = None
    _saved_before: stored_track.Records = field(default_factory=dict)
    _unsaved_frames: int = 0

    @property
    def info(self) -> pb.TrackInfo:
        """What is known of the track."""
        name = self.name
        return track_info(name.namespace, name.track_id, name.epoch, self.description, list(self.track.objects))

    def restored(self) -> None:
        """Notes that the objects are as they are stored."""
        self._saved = stored_track.records(self.track.objects)
        self._count_memory()

    async def prompt(self, message: pb.TrackPrompt, room: AnswerRoom) -> pb.FrameMasks | None:
        """Changes an object's prompts.

        Returns:
            The object on the frame; None where prompts were taken back or the object was removed.

        Raises:
            ServiceError: The prompt is wrong, or there is no room for more.
        """
        started, change = time.perf_counter(), message.WhichOneof("change")
        name, size = parse_object_id(message.object_id), ImageSize(self.track.width, self.track.height)
        is_new = name not in self.track.objects
        if change in ("clear", "remove"):
            if is_new:
                raise NotFound("OBJECT_NOT_FOUND", f"there is no object {name!r}", field="prompt.object_id")
            if change == "clear":
                self.track.clear(message.frame, name)
            else:
                self.track.remove(name)
            await self.save()
            return None
        if message.frame >= self.description.frames:
            raise InvalidArgument(
                "NO_SUCH_FRAME",
                f"there is no frame {message.frame}; there are {self.description.frames}, from 0 on",
                field="prompt.frame",
            )
        if is_new and len(self.track.objects) >= self.settings.max_objects:
            raise ResourceExhausted(
                "TOO_MANY_OBJECTS",
                f"a track has at most {self.settings.max_objects} objects; remove one, or open another track",
                field="prompt.object_id",
            )
        if change == "points":
            points = parse_points(message.points, size, self.settings.max_points)

            def add(frame: Frame) -> Remembered:
                return self.track.add_points(
                    frame, name, points.points, points.labels, points.box, not points.keep_points
                )

        elif change == "mask":
            mask = parse_mask(message.mask, size)

            def add(frame: Frame) -> Remembered:
                return self.track.add_mask(frame, name, mask)

        else:
            raise InvalidArgument("EMPTY_REQUEST", "give points, a mask, clear or remove", field="prompt")

        def work(frame: Frame) -> pb.FrameMasks:
            seen = add(frame)
            if self.live is not None:  # the frame may be gone when its memory is needed
                self.track.settle(frame)
            return self._render(frame.index, {name: seen}, room)

        answer = await self._on_frame(message.frame, (), started, work)
        self._count_memory()
        await self.save()
        return answer

    async def begin(self, follow: pb.Follow) -> int:
        """Makes prompts what other frames are conditioned on. Returns the frame from which objects are followed.

        Raises:
            InvalidArgument: NOTHING_TO_FOLLOW, NO_SUCH_FRAME.
        """
        for index in self.track.unsettled():
            await self._on_frame(index, (), 0, self.track.settle)
        try:
            first = self.track.start()
        except ValueError as error:
            raise InvalidArgument("NOTHING_TO_FOLLOW", str(error), field="follow") from error
        start = follow.start if follow.HasField("start") else first
        if start >= max(self.description.frames, 1 if follow.live else 0):
            raise InvalidArgument(
                "NO_SUCH_FRAME",
                f"there is no frame {start}; there are {self.description.frames}, from 0 on",
                field="follow.start",
            )
        return start

    async def follow(self, index: int, backwards: bool, ahead: Sequence[int], room: AnswerRoom) -> pb.FrameMasks:
        """Finds all objects on a frame.

        Args:
            index: The frame.
            backwards: Whether objects are followed towards the first frame.
            ahead: The frames after it.
            room: For the masks.
        """
        started = time.perf_counter()

        def work(frame: Frame) -> pb.FrameMasks:
            return self._render(index, self.track.follow(frame, backwards), room)

        answer = await self._on_frame(index, ahead, started, work)
        FRAMES.inc()
        self.description.followed_to = index
        if self.live is not None:
            self.live.followed(index)
            self.track.forget_before(max(0, index + 1 - self.description.kept_frames))
            answer.captured_at_us = self.live.captured_at_us(index)
        self._count_memory(index)
        self._unsaved_frames += 1
        if self._unsaved_frames >= self.settings.save_every:
            await patient(self._begin_saving)
        return answer

    async def save(self) -> None:
        """Writes what has changed to the store.

        Raises:
            FailedPrecondition: TAKEN_OVER.
        """

        async def write() -> None:
            await self._begin_saving()
            await self._end_saving()

        await patient(write)

    async def close(self) -> None:
        """Gives back what the open track takes."""
        self.when_closed()
        self.memory.close()
        self.frames.close()

    async def _begin_saving(self) -> None:
        """Begins a write, after the last one has ended."""
        await self._end_saving()
        now, before = stored_track.records(self.track.objects), self._saved
        changed = {name: seen for name, seen in now.items() if before.get(name) is not seen}
        gone = [name for name in before if name not in now]
        self.description.stored_bytes = nbytes = sum(seen.size for seen in now.values())
        frames = self.description.frames if self.live is None else self.live.done_with
        meta = stored_track.pack_meta(replace(self.description, frames=frames), self.track.objects)
        self._saved_before, self._saved, self._unsaved_frames = before, now, 0

        def write() -> bool:
            packed = {name: stored_track.pack_record(seen) for name, seen in changed.items()}
            name = self.name
            return self.tracks.write(name.namespace, name.track_id, name.owner, meta, packed, gone, nbytes)

        self._saving = asyncio.create_task(asyncio.to_thread(write))

    async def _end_saving(self) -> None:
        if self._saving is not None:
            saving, self._saving = self._saving, None
            try:
                is_ours = await saving
            except BaseException:
                self._saved = self._saved_before  # it may not have been written, and is written again
                raise
            if not is_ours:
                raise FailedPrecondition(
                    "TAKEN_OVER",
                    f"the track {self.name.track_id!r} was opened by another stream, deleted, or has expired",
                    field="track_id",
                )

    async def _on_frame(self, index: int, ahead: Sequence[int], started: float, work: Callable[[Frame], T]) -> T:
        """Runs work on a prepared frame, on a worker thread; `FrameMasks` get their timings."""
        before = time.perf_counter()
        is_prepared = self._prepared is not None and self._prepared.index == index
        tensors = None if is_prepared else await patient(lambda: self.frames.get(index, ahead))
        fetched = time.perf_counter()

        def run() -> tuple[T, float, float]:
            begun = time.perf_counter()
            if tensors is not None:
                self._prepared = self.track.predictor.prepare(index, tensors)
            assert self._prepared is not None
            prepared = time.perf_counter()
            return work(self._prepared), (prepared - begun) * 1e3, (time.perf_counter() - prepared) * 1e3

        demand = Demand(Requester(self.name.namespace, self))
        (result, prepare_ms, work_ms), queue_ms = await self.scheduler.run(demand, run)
        self.frames.drop(keep=ahead)
        if isinstance(result, pb.FrameMasks):
            timings = result.timings
            timings.encode_ms, timings.fetch_ms = (fetched - before) * 1e3, prepare_ms
            timings.queue_ms, timings.track_ms = queue_ms, work_ms - timings.mask_ms
            timings.total_ms = (time.perf_counter() - started) * 1e3
            for stage in ("encode", "fetch", "track", "mask"):
                STAGES.labels(stage).observe(getattr(timings, f"{stage}_ms") / 1e3)
        return result

    def _render(self, index: int, found: dict[str, Remembered], room: AnswerRoom) -> pb.FrameMasks:
        """Makes the masks of objects on a frame, on a worker thread."""
        started, track = time.perf_counter(), self.track
        apart = track.options.non_overlap_masks
        logits = {name: seen.logits for name, seen in found.items() if seen.logits is not None}
        masks = render(logits, track.width, track.height, apart, self.formats, room)
        answer = pb.FrameMasks(frame=index, handed_over=self.description.hand_over)
        for name, seen in found.items():
            tracked = track.objects[name]
            asked = (tracked.prompted, tracked.new_prompted, tracked.new_followed)
            answer.objects.add(
                object_id=name,
                mask=masks[name],
                object_score=seen.object_score,
                prompted=any(index in frames for frames in asked),
            )
        answer.timings.mask_ms = (time.perf_counter() - started) * 1e3
        return answer

    def _count_memory(self, index: int | None = None) -> None:
        """Takes memory for the track's state, and for the frame that is prepared. A track that has too much forgets
        frames that are far from `index`."""
        if self.track.size > self.settings.track_bytes:
            if index is not None:
                self.track.forget_farthest(index, self.settings.track_bytes * 9 // 10)
            if self.track.size > self.settings.track_bytes:
                raise ResourceExhausted(
                    "TRACK_TOO_LARGE",
                    f"the track's state takes {self.track.size} bytes; at most {self.settings.track_bytes} are kept. "
                    "Remove objects, or take prompts back",
                )
        needed = self.track.size + (0 if self._prepared is None else self._prepared.nbytes)
        surplus = self.memory.nbytes - needed
        if surplus > 0:
            self.memory.give_back(surplus)
        else:
            self.memory.take(-surplus)
