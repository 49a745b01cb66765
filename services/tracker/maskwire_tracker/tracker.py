"""What all streams of a tracker share, and how a track is opened."""

import asyncio
import contextlib
import json
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from maskwire.v1 import tracker_pb2 as pb
from maskwire_core import names
from maskwire_core.call_context import current
from maskwire_core.config import TrackerSettings
from maskwire_core.errors import CorruptValue, Internal, NotFound, ResourceExhausted
from maskwire_core.models.decoder_bundle import DecoderConfig
from maskwire_core.scheduling import fair_queue
from maskwire_core.scheduling.byte_budget import Account, ByteBudget
from maskwire_core.scheduling.executors import ThreadScheduler
from maskwire_core.scheduling.scheduler import Demand
from maskwire_core.storage.clips import ClipStore
from maskwire_core.storage.embedding import Embedding
from maskwire_core.storage.store import Store
from maskwire_core.storage.tracks import TrackStore
from maskwire_core.telemetry import logs
from maskwire_core.telemetry.metrics import TRACKS, LiveMetric
from maskwire_core.tenancy.tokens import Token

from maskwire_tracker import stored_track
from maskwire_tracker.encoding import FrameEncoder, no_memory
from maskwire_tracker.frames import ClipFrames, Expected, FrameEmbeddings, LiveFrames
from maskwire_tracker.messages import check_size, parse_codec, parse_formats, parse_kept_frames, parse_options
from maskwire_tracker.opened_track import OpenedTrack, TrackName
from maskwire_tracker.predictors import Predictors
from maskwire_tracker.remembered import TrackedObject
from maskwire_tracker.stored_track import Description
from maskwire_tracker.track import Track

_COPIES = 2  # of a stored track while it is restored: the store's bytes, and what is made of them
_PATIENCE_S = 30  # how long to wait for memory for both


@dataclass(frozen=True)
class Clip:
    """A stored clip."""

    upload: str  # the upload that it was
    frames: int  # number of frames
    width: int  # of the frames, in pixels
    height: int  # likewise
    fps: float  # frames a second; 0 if not known
    nbytes: int  # of its files

    def pack(self) -> bytes:
        """Serializes what describes it."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, meta: bytes) -> "Clip":
        """The inverse of `pack`. Raises `Internal` (BAD_CLIP)."""
        try:
            return cls(**json.loads(meta))
        except (TypeError, ValueError) as error:
            raise Internal("BAD_CLIP", "the clip was stored by another version of Maskwire; upload it again") from error


class Tracker:
    """Opens tracks, and has what they share: worker threads, models, memory.

    Args:
        settings: Limits.
        store: Where tracks, clips and embeddings are.
        encoder: Encodes frames.
        predictors: The models that tracks are followed with.

    Attributes:
        settings: As given.
        tracks: The tracks in the store.
        clips: The clips in the store.
        scheduler: Runs the work on frames.
        closed_bytes: Memory that the state of all closed tracks took.
    """

    def __init__(self, settings: TrackerSettings, store: Store, encoder: FrameEncoder, predictors: Predictors) -> None:
        self.settings = settings
        self.tracks = TrackStore(store, settings.stored_tracks_bytes, settings.max_stored_tracks, settings.track_ttl_s)
        self.clips = ClipStore(store, settings.clips_bytes, settings.max_clips, settings.clip_ttl_s)
        self.scheduler = ThreadScheduler("tracker", settings.workers, fair_queue.Limits(settings.queue_limit))
        self._store = store
        self._encoder = encoder
        self._predictors = predictors
        self._memory = ByteBudget(settings.tracks_bytes)
        self.closed_bytes = 0
        self._open: set[OpenedTrack] = set()
        self._open_by_token: Counter[str] = Counter()  # number of tracks by the token's ID

    async def self_test(self) -> None:
        """Shows that the worker threads live. A store that is away is no failure: all trackers share it."""
        await self.scheduler.run(Demand(fair_queue.Requester("", self)), lambda: None)

    def live_metrics(self) -> list[LiveMetric]:
        """Returns the gauges of a tracker."""
        scheduler = self.scheduler
        return [
            LiveMetric("maskwire_tracks_open", "Tracks that streams have open.", lambda: len(self._open)),
            LiveMetric(
                "maskwire_tracks_stored_bytes",
                "State in the store of the tracks that streams have open.",
                lambda: sum(opened.description.stored_bytes for opened in self._open),
            ),
            LiveMetric(
                "maskwire_queue_waiting",
                "Frames that wait for a thread.",
                lambda: scheduler.waiting,
                (("urgency", "interactive"),),
            ),
            LiveMetric(
                "maskwire_queue_oldest_seconds",
                "How long the oldest frame has waited.",
                lambda: scheduler.oldest_wait_s,
            ),
            LiveMetric(
                "maskwire_backlog_seconds",
                "Time that the waiting frames will take at the present rate.",
                lambda: scheduler.waiting * scheduler.pace_s,
            ),
            LiveMetric("maskwire_workers", "Frames in which objects are found at once.", lambda: scheduler.at_once),
            LiveMetric("maskwire_workers_busy", "Frames in which objects are being found.", lambda: scheduler.running),
            *self._memory.live_metrics("tracks"),
        ]

    async def open(self, message: pb.OpenTrack, token: str) -> OpenedTrack:
        """Opens a track, a new one or one that is stored.

        Args:
            message: What is asked.
            token: The caller's token, for the encoder.

        Raises:
            ServiceError: See `TrackerService.Track`.
        """
        with contextlib.ExitStack() as leaving:
            leaving.enter_context(self._counted(current().caller.token))
            opened = await self._open_counted(message, token)
            leaving.callback(self._closed, opened)
            opened.when_closed = leaving.pop_all().close
        self._open.add(opened)
        TRACKS.labels("new" if opened.name.epoch == 1 else "taken over").inc()
        try:
            opened.restored()
            await opened.save()
        except BaseException:
            await opened.close()
            raise
        return opened

    def _closed(self, opened: OpenedTrack) -> None:
        self._open.discard(opened)
        self.closed_bytes += opened.memory.nbytes

    @contextlib.contextmanager
    def _counted(self, token: Token) -> Iterator[None]:
        """Counts a track of a token while it is open. Raises TOO_MANY_TRACKS."""
        if token.max_tracks is not None and self._open_by_token[token.id] >= token.max_tracks:
            raise ResourceExhausted(
                "TOO_MANY_TRACKS",
                f"the token has {token.max_tracks} tracks open, and may have no more; close one, or ask for more",
            )
        self._open_by_token[token.id] += 1
        try:
            yield
        finally:
            self._open_by_token[token.id] -= 1

    async def _open_counted(self, message: pb.OpenTrack, token: str) -> OpenedTrack:
        caller = current().caller
        namespace, formats = caller.writing(message.namespace), parse_formats(message.formats)
        track_id = names.image_id(message.track_id) if message.track_id else names.issue_track_id()
        logs.bind(namespace, track_id)
        known = await asyncio.to_thread(self.tracks.peek, namespace, track_id) if message.track_id else None
        description = await self._describe(message, namespace, token) if known is None else None
        owner = secrets.token_hex(8)
        epoch, meta = await asyncio.to_thread(self.tracks.open, namespace, track_id, owner)
        memory = self._memory.account(caller.tenant)
        with contextlib.ExitStack() as failing:
            failing.callback(memory.close)
            objects: dict[str, TrackedObject] = {}
            if meta is not None:
                description, objects = await self._restore(namespace, track_id, meta, memory)
            if description is None:
                raise NotFound("TRACK_NOT_FOUND", f"there is no track {track_id!r} any more", field="open.track_id")
            predictor = await self._predictors.get(description.tracker, description.hand_over)
            failing.pop_all()
        is_live = not description.clip_id
        track = Track(
            predictor,
            description.width,
            description.height,
            description.options,
            None if is_live else description.frames,
            objects,
        )
        live = LiveFrames(description.kept_frames, description.frames) if is_live else None
        return OpenedTrack(
            TrackName(namespace, track_id, epoch, owner),
            description,
            track,
            self._frames(description, live, namespace, token, predictor.config.decoder, memory.another()),
            live,
            formats,
            self.settings,
            self.scheduler,
            self.tracks,
            memory,
        )

    async def _describe(self, message: pb.OpenTrack, namespace: str, token: str) -> Description:
        """Checks what a new track is opened with."""
        options, codec = parse_options(message.options), parse_codec(message.embeddings)
        kept = parse_kept_frames(message.kept_frames)
        clip = await self.find_clip(namespace, message.clip_id) if message.clip_id else None
        if clip is None:
            check_size(message.width_px, message.height_px, "open")
        model = await self._encoder.model(message.model, token)
        if not model.tracker and not message.hand_over:
            raise no_memory(model.name)
        return Description(
            model=model.name,
            fingerprint=model.fingerprint,
            tracker=model.decoder if message.hand_over else model.tracker,
            width=message.width_px if clip is None else clip.width,
            height=message.height_px if clip is None else clip.height,
            clip_id=message.clip_id,
            upload="" if clip is None else clip.upload,
            options=options,
            codec=codec,
            hand_over=message.hand_over,
            kept_frames=kept,
            frames=0 if clip is None else clip.frames,
        )

    async def find_clip(self, namespace: str, clip_id: str) -> Clip:
        """Finds a stored clip, and keeps it from expiring.

        Raises:
            NotFound: CLIP_NOT_FOUND.
        """
        meta = await asyncio.to_thread(self.clips.meta, namespace, names.image_id(clip_id))
        if meta is None:
            raise NotFound("CLIP_NOT_FOUND", f"no clip {clip_id!r} is stored; upload it first", field="clip_id")
        clip = Clip.unpack(meta)
        await asyncio.to_thread(self.clips.keep, namespace, clip_id, clip.upload, clip.nbytes)
        return clip

    async def _restore(
        self, namespace: str, track_id: str, meta: bytes, memory: Account
    ) -> tuple[Description, dict[str, TrackedObject]]:
        """Reads a stored track, when there is memory for what the store has of it and what is made of that."""
        try:
            description, _ = stored_track.read_description(meta)
            await memory.wait(_COPIES * description.stored_bytes, _PATIENCE_S)
            return description, await asyncio.to_thread(self._objects, namespace, track_id, meta)
        except CorruptValue as error:
            raise Internal(
                "BAD_TRACK", f"what is stored of the track {track_id!r} cannot be read; open a new one"
            ) from error

    def _objects(self, namespace: str, track_id: str, meta: bytes) -> dict[str, TrackedObject]:
        return stored_track.unpack_objects(meta, self.tracks.read(namespace, track_id, stored_track.record_names(meta)))

    def _frames(
        self,
        description: Description,
        live: LiveFrames | None,
        namespace: str,
        token: str,
        config: DecoderConfig,
        memory: Account,
    ) -> FrameEmbeddings:
        def read(index: int) -> bytes | None:
            return self.clips.frame(namespace, description.clip_id, description.upload, index)

        async def embed(file: bytes) -> Embedding:
            return await self._encoder.embed(
                file, namespace=namespace, model=description.model, codec=description.codec, token=token
            )

        nbytes = config.embedding_values * (4 if description.codec == "fp32" else 2)
        expected = Expected(namespace, description.fingerprint, description.width, description.height, nbytes)
        return FrameEmbeddings(live or ClipFrames(read, description.clip_id), embed, self._store, expected, memory)
