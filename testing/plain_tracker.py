"""A tracker in this process, with a model that is arithmetic: its masks depend on all that a frame recalls."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

import numpy as np
from maskwire.v1 import encoder_pb2, types_pb2
from maskwire.v1 import tracker_pb2 as pb
from maskwire_core import call_context
from maskwire_core.config import TrackerSettings
from maskwire_core.storage.embedding import Embedding, Header
from maskwire_core.storage.store import Store
from maskwire_core.tenancy.tenant import EVERYBODY, Caller
from maskwire_tracker.encoding import FrameEncoder
from maskwire_tracker.predictor import Frame
from maskwire_tracker.predictors import Predictors
from maskwire_tracker.remembered import Points, Remembered, to_bf16
from maskwire_tracker.selection import Recalled
from maskwire_tracker.service import TrackerService
from maskwire_tracker.session import TrackSession
from maskwire_tracker.tracker import Tracker

from testing.store_twin import TwinConnections
from testing.tracker_config import small_config

WIDTH, HEIGHT, SIDE = 160, 140, 8
CONFIG = small_config(256, SIDE)
EMBEDDING_BYTES = 4 * CONFIG.decoder.embedding_values


class Arithmetic:
    """Stands for a `TrackerPredictor`."""

    config = CONFIG

    def prepare(self, index: int, tensors: Any) -> Frame:
        return Frame(index, {"value": np.asarray(tensors["image_embed"], np.float32)})

    def decode(
        self, frame: Frame, recalled: Recalled | None, points: Points | None = None, before: Any = None
    ) -> Remembered:
        value = float(frame.inputs["value"].sum())
        if recalled is not None:
            weights = np.arange(1, 1 + len(recalled.memories))
            value += float((recalled.memories[:, 0, 0] * weights).sum()) + float(recalled.pointers.sum())
        if points is not None:
            value += float(points.places.sum())
        logits = np.sin(value + np.arange(SIDE * SIDE)).reshape(SIDE, SIDE).astype(np.float32)
        return Remembered(np.array([np.cos(value)], np.float32), 1.0, logits)

    def memorize(self, frame: Frame, seen: Remembered, prompted: bool) -> Any:
        assert seen.logits is not None
        return to_bf16(np.array([[seen.logits[0, 0] + frame.inputs["value"].sum()]], np.float32))


class Loaded:
    """Stands for `Predictors`."""

    async def get(self, digest: str, hand_over: bool = False) -> Arithmetic:
        assert digest == "exported"
        return Arithmetic()


class Encoder:
    """Stands for a `FrameEncoder`: embeds what the file's bytes add up to."""

    def __init__(self) -> None:
        self.embedded: list[bytes] = []

    async def model(self, name: str, token: str) -> encoder_pb2.ModelInfo:
        return encoder_pb2.ModelInfo(name="arithmetic", fingerprint="f", tracker="" if name == "demo" else "exported")

    async def embed(self, file: bytes, *, namespace: str, model: str, codec: str, token: str) -> Embedding:
        assert (namespace, model, token) == ("default", "arithmetic", "secret")
        self.embedded.append(file)
        await asyncio.sleep(0)
        return embedding_of(file, codec)


def embedding_of(file: bytes, codec: str) -> Embedding:
    header = Header("default", hashlib.sha256(file).hexdigest(), "arithmetic", "f", "d", HEIGHT, WIDTH, codec, 0)
    return Embedding(header, {"image_embed": np.array([sum(file)], np.float32)})


FILES = [bytes([n, n * 7 % 251]) for n in range(1, 25)]


class Talk:
    """A stream, from the caller's side."""

    def __init__(self, session: TrackSession) -> None:
        self._requests: asyncio.Queue[pb.TrackRequest | None] = asyncio.Queue()
        self._answers = session.answer(self._sent())

    async def _sent(self) -> AsyncIterator[pb.TrackRequest]:
        while (request := await self._requests.get()) is not None:
            yield request

    def send(self, request_id: str = "", **fields: Any) -> None:
        self._requests.put_nowait(pb.TrackRequest(request_id=request_id, **fields))

    def end(self) -> None:
        self._requests.put_nowait(None)

    async def receive(self) -> pb.TrackResponse:
        return await asyncio.wait_for(anext(self._answers), 10)

    async def ask(self, **fields: Any) -> pb.TrackResponse:
        self.send("asked", **fields)
        return await self.receive()

    async def opened(self, **fields: Any) -> pb.TrackInfo:
        answer = await self.ask(open=pb.OpenTrack(**fields))
        assert answer.WhichOneof("outcome") == "opened", answer
        return answer.opened

    async def click(self, object_id: str, frame: int, x: float = 50, y: float = 50) -> pb.FrameMasks:
        answer = await self.ask(prompt=prompt(object_id, frame, x, y))
        assert answer.WhichOneof("outcome") == "masks", answer
        return answer.masks

    async def follow(self, **fields: Any) -> list[pb.FrameMasks]:
        self.send("follow", follow=pb.Follow(**fields))
        found = []
        while (answer := await self.receive()).WhichOneof("outcome") == "masks":
            found.append(answer.masks)
        assert answer.WhichOneof("outcome") == "followed", answer
        return found

    async def leave(self) -> None:
        await self._answers.aclose()


def prompt(object_id: str, frame: int, x: float = 50, y: float = 50, **more: Any) -> pb.TrackPrompt:
    points = pb.TrackPoints(points=[types_pb2.Point(x_px=x, y_px=y)], **more)
    return pb.TrackPrompt(object_id=object_id, frame=frame, points=points)


def live_frame(n: int, **more: Any) -> pb.TrackFrame:
    return pb.TrackFrame(part=pb.FramePart(chunk=FILES[n], last=True), **more)


def comparable(masks: list[pb.FrameMasks]) -> list[tuple[int, list[tuple[str, str, float]]]]:
    return [
        (each.frame, [(found.object_id, found.mask.rle.counts, found.object_score) for found in each.objects])
        for each in masks
    ]


class Place:
    """A tracker with its store."""

    def __init__(self, store: Store, **settings: Any) -> None:
        self.store, self.encoder = store, Encoder()
        self.settings = TrackerSettings(workers=1, save_every=2, **settings)
        self.draining = asyncio.Event()
        self.tracker = self.another()

    def another(self) -> Tracker:
        """A tracker with the same store."""
        return Tracker(self.settings, self.store, cast(FrameEncoder, self.encoder), cast(Predictors, Loaded()))

    def talk(self, tracker: Tracker | None = None, caller: Caller = EVERYBODY) -> Talk:
        call_context.begin("").caller = caller
        return Talk(TrackSession(tracker or self.tracker, "secret", self.draining))

    async def clip(self, files: list[bytes], clip_id: str = "clip", caller: Caller = EVERYBODY) -> pb.ClipInfo:
        call_context.begin("").caller = caller

        async def messages() -> AsyncIterator[pb.UploadClipRequest]:
            header = pb.ClipHeader(clip_id=clip_id, frames=len(files), width_px=WIDTH, height_px=HEIGHT)
            yield pb.UploadClipRequest(header=header)
            for file in files:
                yield pb.UploadClipRequest(frame=pb.FramePart(chunk=file[:1]))
                yield pb.UploadClipRequest(frame=pb.FramePart(chunk=file[1:], last=True))

        return await TrackerService(self.tracker).UploadClip(messages(), cast(Any, None))

    def keys(self, pattern: str) -> int:
        assert isinstance(self.store.connections, TwinConnections)
        with self.store.connections.client() as client:
            return len(list(client.scan_iter(pattern)))


Scenario = Callable[[Place], Coroutine[Any, Any, None]]


def run(store: Store, scenario: Scenario, **settings: Any) -> None:
    async def within() -> None:
        await asyncio.wait_for(scenario(Place(store, **settings)), 30)

    asyncio.run(within())


async def unread_clip(place: Place) -> Talk:
    """A stream that follows a click in a clip, and whose caller says that it has seen no masks: there come no more."""
    await place.clip(FILES)
    talk = place.talk()
    await talk.opened(clip_id="clip")
    await talk.click("one", 0)
    talk.send("follow", follow=pb.Follow(), masks_seen=0)
    for n in range(7):  # with that of the click, as many masks as whoever reads nothing gets
        assert (await talk.receive()).masks.frame == n
    await asyncio.sleep(0.05)
    return talk


async def live_stream(place: Place, **fields: Any) -> Talk:
    """A stream of frames that follows a click live, as far as its first frame. Fields are those of OpenTrack."""
    talk = place.talk()
    await talk.opened(width_px=WIDTH, height_px=HEIGHT, **fields)
    talk.send(frame=live_frame(0))
    await talk.click("one", 0)
    talk.send("live", follow=pb.Follow(live=True))
    await talk.receive()
    return talk


async def followed_clip(place: Place) -> list[pb.FrameMasks]:
    await place.clip(FILES)
    talk = place.talk()
    await talk.opened(clip_id="clip")
    await talk.click("one", 0)
    await talk.click("two", 2, 10, 10)
    found = await talk.follow(start=0)
    await talk.leave()
    return found


def held(tracker: Tracker) -> float:
    """Bytes of the state of open tracks and of embeddings of their frames."""
    gauges = {metric.name: metric.value() for metric in tracker.live_metrics()}
    return gauges["maskwire_budget_held_bytes"]
