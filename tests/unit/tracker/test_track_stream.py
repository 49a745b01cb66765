"""A Track stream, with a model that is arithmetic: whose masks depend on all that a frame recalls."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

import numpy as np
import pytest
from maskwire.v1 import encoder_pb2, types_pb2
from maskwire.v1 import tracker_pb2 as pb
from maskwire_core import call_context
from maskwire_core.config import TrackerSettings
from maskwire_core.errors import FailedPrecondition, ServiceError
from maskwire_core.storage.embedding import Embedding, Header, pack
from maskwire_core.storage.store import Store
from maskwire_core.telemetry.metrics import REGISTRY
from maskwire_core.tenancy.tenant import EVERYBODY, Caller
from maskwire_core.tenancy.tokens import RIGHTS, issue
from maskwire_tracker import patience
from maskwire_tracker import tracker as tracker_module
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
from testing.wire import described

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
            size = {"width_px": WIDTH, "height_px": HEIGHT}
            yield pb.UploadClipRequest(header=pb.ClipHeader(clip_id=clip_id, frames=len(files), **size))
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


def test_frames_are_embedded_once_a_little_ahead_and_not_kept(store: Store) -> None:
    async def scenario(place: Place) -> None:
        await place.clip(FILES)
        talk = place.talk()
        await talk.opened(clip_id="clip")
        await talk.click("one", 0)
        talk.send("follow", follow=pb.Follow(), masks_seen=0)
        for n in range(7):  # with that of the click, as many masks as whoever reads nothing gets
            assert (await talk.receive()).masks.frame == n
        await asyncio.sleep(0.05)
        assert sorted(place.encoder.embedded) == FILES[: 7 + 4]
        assert held(place.tracker) > 4 * EMBEDDING_BYTES
        talk.send(stop={})
        followed = (await talk.receive()).followed
        assert held(place.tracker) == followed.stored_bytes
        await talk.leave()
        assert held(place.tracker) == 0
        assert place.keys("maskwire:embedding:*") == place.keys("maskwire:alias:*") == 0

    run(store, scenario)


def test_where_memory_is_short_fewer_frames_are_embedded_ahead(store: Store) -> None:
    async def scenario(place: Place) -> None:
        await place.clip(FILES)
        talk = place.talk()
        await talk.opened(clip_id="clip")
        await talk.click("one", 0)
        talk.send("follow", follow=pb.Follow(), masks_seen=0)
        for n in range(7):
            assert (await talk.receive()).masks.frame == n
        await asyncio.sleep(0.05)
        assert sorted(place.encoder.embedded) == FILES[: 7 + 2]
        await talk.leave()

    run(store, scenario, tracks_bytes=5 * EMBEDDING_BYTES)  # of which one tenant may have two thirds


def test_frames_that_were_embedded_before_are_read_from_the_store(store: Store) -> None:
    async def scenario(place: Place) -> None:
        embedding = embedding_of(FILES[0], "fp32")
        key = embedding.header.content_key
        store.put_embedding("default", key, pack(embedding.header, embedding.tensors), 100)
        talk = place.talk()
        await talk.opened(width_px=WIDTH, height_px=HEIGHT)
        for sent in (pb.TrackFrame(content_key=key), live_frame(0), pb.TrackFrame(content_key="0" * 64)):
            talk.send(frame=sent)
        named, came = [(await talk.click(name, frame)).objects[0] for name, frame in (("one", 0), ("two", 1))]
        assert named.mask == came.mask
        assert described((await talk.ask(prompt=prompt("one", 2))).error) == ("EMBEDDING_EXPIRED", "frame")
        await talk.leave()

    run(store, scenario)


def test_another_tracker_gives_the_masks_that_the_first_would_have_given(store: Store) -> None:
    async def scenario(place: Place) -> None:
        expected = comparable(await followed_clip(place))
        talk = place.talk()
        opened = await talk.opened(track_id="mine", clip_id="clip")
        await talk.click("one", 0)
        await talk.click("two", 2, 10, 10)
        talk.send("follow", follow=pb.Follow(start=0))
        found = [(await talk.receive()).masks for _ in range(9)]
        # The first tracker is not told that it has lost the track; the second goes on.
        other = place.talk(place.another())
        again = await other.opened(track_id="mine")
        assert (opened.epoch, again.epoch, again.clip_id) == (1, 2, "clip")
        assert 6 <= again.followed_to <= 9
        rest = await other.follow(start=again.followed_to + 1)
        assert comparable(found) == expected[:9]
        assert comparable(rest) == expected[again.followed_to + 1 :]
        with pytest.raises(FailedPrecondition, match="opened by another stream"):
            await talk.follow()
        for each in (talk, other):
            await each.leave()

    run(store, scenario)


def test_a_stored_track_is_restored_when_there_is_memory_for_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "_PATIENCE_S", 0.01)

    async def scenario(place: Place) -> None:
        await place.clip(FILES)
        talk = place.talk()
        await talk.opened(track_id="mine", clip_id="clip")
        await talk.click("one", 0)
        await talk.follow(start=0)
        await talk.leave()
        other = place.another()
        with other._memory.account(EVERYBODY.tenant) as beside:
            while beside.try_take(1000):  # what one tenant may have
                pass
            talk = place.talk(other)
            talk.send(open=pb.OpenTrack(track_id="mine"))
            monkeypatch.setattr(other.tracks, "read", lambda *_: pytest.fail("it was read before"))
            with pytest.raises(ServiceError) as refused:
                await talk.receive()
            monkeypatch.undo()
            assert refused.value.reason == "TOO_MUCH_IN_PROGRESS"
            await talk.leave()
        assert held(other) == 0
        talk = place.talk(other)
        assert (await talk.opened(track_id="mine")).stored_bytes == held(other) > 1000
        await talk.leave()

    run(store, scenario)


def test_a_deleted_track_is_nobodys_even_when_there_is_another_of_its_name(store: Store) -> None:
    async def scenario(place: Place) -> None:
        await place.clip(FILES[:4])
        talk, other = place.talk(), place.talk()
        await talk.opened(track_id="mine", clip_id="clip")
        await talk.click("one", 0)
        call_context.begin("").caller = EVERYBODY
        service = TrackerService(place.tracker)
        await service.DeleteTrack(pb.DeleteTrackRequest(track_id="mine"), cast(Any, None))
        with pytest.raises(ServiceError, match="no track"):
            await service.GetTrack(pb.GetTrackRequest(track_id="mine"), cast(Any, None))
        assert not (await other.opened(track_id="mine", clip_id="clip")).object_ids
        talk.send(prompt=pb.TrackPrompt(object_id="one", remove={}))
        with pytest.raises(FailedPrecondition, match="deleted"):
            await talk.receive()
        found = await service.GetTrack(pb.GetTrackRequest(track_id="mine"), cast(Any, None))
        assert (found.epoch, list(found.object_ids)) == (1, [])
        for each in (talk, other):
            await each.leave()

    run(store, scenario)


def test_what_was_taken_back_stays_so(store: Store) -> None:
    async def scenario(place: Place) -> None:
        await place.clip(FILES[:4])
        talk = place.talk()
        await talk.opened(track_id="mine", clip_id="clip")
        await talk.click("one", 0)
        await talk.click("two", 0, 10, 10)
        await talk.click("one", 2)
        first = comparable(await talk.follow())
        changed = (await talk.ask(prompt=pb.TrackPrompt(object_id="two", remove={}))).changed
        assert list(changed.object_ids) == ["one"]
        assert (await talk.ask(prompt=pb.TrackPrompt(object_id="one", frame=2, clear={}))).HasField("changed")
        await talk.leave()
        other = place.talk()
        opened = await other.opened(track_id="mine")
        assert (list(opened.object_ids), opened.epoch) == (["one"], 2)
        again = comparable(await other.follow())
        assert [len(objects) for _, objects in again] == [1] * 4
        assert again[0][1][0] == first[0][1][0]
        assert again[1][1][0] != first[1][1][0]  # which recalled the prompt on frame 2, too
        await other.leave()

    run(store, scenario)


def test_live_frames_are_followed_as_those_of_a_clip(store: Store) -> None:
    async def scenario(place: Place) -> None:
        await place.clip(FILES)
        clip = place.talk()
        await clip.opened(clip_id="clip")
        await clip.click("one", 0)
        expected = comparable(await clip.follow())
        live = place.talk()
        opened = await live.opened(track_id="camera", width_px=WIDTH, height_px=HEIGHT)
        live.send(frame=live_frame(0))
        await live.click("one", 0)
        live.send("live", follow=pb.Follow(live=True))
        found = [(await live.receive()).masks]
        for n in range(1, 12):
            live.send(frame=live_frame(n, captured_at_us=n))
            found.append((await live.receive()).masks)
        live.send(stop={})
        assert (await live.receive()).followed.frames == 12
        await live.leave()
        # Another tracker goes on, given the frames from the one that it asks for.
        other = place.talk(place.another())
        opened = await other.opened(track_id="camera")
        assert opened.frames == 12
        other.send(frame=live_frame(opened.frames))
        other.send("live", follow=pb.Follow(live=True, start=opened.frames))
        found.append((await other.receive()).masks)
        for n in range(opened.frames + 1, len(FILES)):
            other.send(frame=live_frame(n))
            found.append((await other.receive()).masks)
        assert comparable(found) == expected
        assert [each.captured_at_us for each in found[:12]] == list(range(12))
        await other.leave()
        await clip.leave()

    run(store, scenario)


def test_frames_wait_to_be_followed_although_newer_ones_came(store: Store) -> None:
    """A tracker that takes over is sent frames again before it is asked to follow, more than may be prompted."""

    async def scenario(place: Place) -> None:
        await place.clip(FILES)
        clip = place.talk()
        await clip.opened(clip_id="clip")
        await clip.click("one", 0)
        expected = comparable(await clip.follow())
        found = []
        for followed in (0, 6, 12):  # frames before, of which the last may not be in the store
            live = place.talk(place.another())
            opened = await live.opened(track_id="camera", width_px=WIDTH, height_px=HEIGHT, kept_frames=2)
            count = opened.frames
            assert max(0, followed - 2) <= count <= followed
            del found[count:]
            for n in range(count, count + 6):
                live.send(frame=live_frame(n))
                if n == 0:
                    await live.click("one", 0)
            live.send("live", follow=pb.Follow(live=True, start=count))
            found += [(await live.receive()).masks for _ in range(6)]
            live.send(stop={})
            assert (await live.receive()).followed.frames == count + 6
            live.send(frame=live_frame(0))  # is not followed, and is to come again
            await live.leave()
        assert comparable(found) == expected[: len(found)]
        await clip.leave()

    run(store, scenario)


def test_a_live_track_takes_the_same_memory_however_long_it_gets(store: Store) -> None:
    async def scenario(place: Place) -> None:
        talk = place.talk()
        await talk.opened(track_id="camera", width_px=WIDTH, height_px=HEIGHT)
        talk.send(frame=live_frame(0))
        await talk.click("one", 0)
        talk.send("live", follow=pb.Follow(live=True))
        await talk.receive()
        sizes = []
        for n in range(1, 120):
            talk.send(frame=live_frame(n % len(FILES)))
            await talk.receive()
            if n % 40 == 39:
                talk.send(stop={})
                sizes.append((await talk.receive()).followed.stored_bytes)
                talk.send("live", follow=pb.Follow(live=True, start=n))
                await talk.receive()
        assert sizes[0] == sizes[1] == sizes[2] > 0
        await talk.leave()

    run(store, scenario)


def test_newer_frames_replace_those_that_may_be_skipped(store: Store) -> None:
    async def scenario(place: Place) -> None:
        talk = place.talk()
        await talk.opened(width_px=WIDTH, height_px=HEIGHT)
        talk.send(frame=live_frame(0))
        await talk.click("one", 0)
        talk.send("live", follow=pb.Follow(live=True))
        await talk.receive()
        for n in range(1, 9):
            talk.send(f"frame {n}", frame=live_frame(n, may_be_skipped=True))
        talk.send(stop={})
        answers = []
        while (answer := await talk.receive()).WhichOneof("outcome") != "followed":
            answers.append(answer)
        skipped = [each.request_id for each in answers if each.HasField("skipped")]
        masks = [each.masks.frame for each in answers if each.HasField("masks")]
        assert len(skipped) + answer.followed.frames == 1 + 8
        assert skipped
        assert "frame 8" not in skipped
        assert masks == list(range(1, 1 + len(masks)))
        await talk.leave()

    run(store, scenario)


def test_prompts_come_between_two_live_frames_and_old_frames_are_gone(store: Store) -> None:
    async def scenario(place: Place) -> None:
        talk = place.talk()
        await talk.opened(width_px=WIDTH, height_px=HEIGHT, kept_frames=2)
        talk.send(frame=live_frame(0))
        await talk.click("one", 0)
        talk.send("live", follow=pb.Follow(live=True))
        await talk.receive()
        for n in range(1, 4):
            talk.send(frame=live_frame(n))
            assert len((await talk.receive()).masks.objects) == 1
        assert described((await talk.ask(prompt=prompt("late", 1))).error) == ("FRAME_GONE", "frame")
        assert (await talk.click("late", 3)).objects[0].prompted
        talk.send(frame=live_frame(4))
        assert [each.object_id for each in (await talk.receive()).masks.objects] == ["one", "late"]
        assert described((await talk.ask(follow=pb.Follow())).error) == ("ALREADY_FOLLOWING", "follow")
        await talk.leave()

    run(store, scenario)


def test_who_reads_nothing_gets_eight_masks(store: Store) -> None:
    async def scenario(place: Place) -> None:
        await place.clip(FILES)
        talk = place.talk()
        await talk.opened(clip_id="clip")
        talk.send("click", prompt=prompt("one", 0), masks_seen=0)
        await talk.receive()
        talk.send("follow", follow=pb.Follow())
        for n in range(7):  # the click's answer is one
            assert (await talk.receive()).masks.frame == n
        waiting = asyncio.ensure_future(talk.receive())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        talk.send(masks_seen=8)
        assert (await waiting).masks.frame == 7
        await talk.leave()

    run(store, scenario)


def test_stop_ends_a_follow(store: Store) -> None:
    async def scenario(place: Place) -> None:
        await place.clip(FILES)
        talk = place.talk()
        await talk.opened(clip_id="clip")
        await talk.click("one", 0)
        talk.send("follow", follow=pb.Follow())
        first = await talk.receive()
        talk.send(stop={})
        answers = [first]
        while (answer := await talk.receive()).WhichOneof("outcome") != "followed":
            answers.append(answer)
        assert len(answers) < len(FILES)
        assert answer.followed.followed_to == answers[-1].masks.frame
        await talk.leave()

    run(store, scenario)


def test_a_track_of_a_clip_forgets_what_is_far_when_it_is_too_large(store: Store) -> None:
    async def scenario(place: Place) -> None:
        place.settings = place.settings.model_copy(update={"track_bytes": 10_000})
        place.tracker = place.another()
        found = await followed_clip(place)
        assert len(found) == len(FILES)
        place.settings = place.settings.model_copy(update={"track_bytes": 500})
        talk = place.talk(place.another())
        await talk.opened(clip_id="clip")
        await talk.click("one", 0)
        assert described((await talk.ask(prompt=prompt("two", 1))).error)[0] == "TRACK_TOO_LARGE"
        await talk.leave()

    run(store, scenario)


def test_what_the_store_did_not_take_is_written_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_PATIENCE_S", 0)

    async def scenario(place: Place) -> None:
        assert isinstance(store.connections, TwinConnections)
        expected = comparable(await followed_clip(place))
        talk = place.talk()
        await talk.opened(track_id="mine", clip_id="clip")
        await talk.click("one", 0)
        store.connections.server.connected = False
        assert described((await talk.ask(prompt=prompt("two", 0, 10, 10))).error)[0] == "STORE_UNAVAILABLE"
        store.connections.server.connected = True
        await talk.click("two", 2, 10, 10)
        assert (await talk.ask(prompt=pb.TrackPrompt(object_id="two", frame=0, clear={}))).HasField("changed")
        await talk.leave()
        other = place.talk()
        assert list((await other.opened(track_id="mine")).object_ids) == ["one", "two"]
        assert comparable(await other.follow(start=0)) == expected
        await other.leave()

    run(store, scenario)


def test_a_store_that_is_away_for_a_moment_is_waited_for(store: Store) -> None:
    async def scenario(place: Place) -> None:
        connections = store.connections
        assert isinstance(connections, TwinConnections)
        expected = comparable(await followed_clip(place))
        talk = place.talk()
        await talk.opened(clip_id="clip")
        connections.server.connected = False
        talk.send("waiting", prompt=prompt("one", 0))
        await place.tracker.self_test()  # is no failure of the tracker
        await asyncio.sleep(0.2)
        connections.server.connected = True
        assert (await talk.receive()).HasField("masks")
        await talk.click("two", 2, 10, 10)
        assert [each[0] for each in comparable(await talk.follow())] == [each[0] for each in expected]
        await talk.leave()

    run(store, scenario)


def test_a_frame_that_is_too_large_takes_no_index(store: Store) -> None:
    async def scenario(place: Place) -> None:
        talk = place.talk()
        await talk.opened(width_px=WIDTH, height_px=HEIGHT)
        for last in (False, False, True):
            part = pb.FramePart(chunk=b"x" * 60, last=last)
            talk.send("large", frame=pb.TrackFrame(part=part))
        answer = await talk.receive()
        assert (answer.request_id, *described(answer.error)) == ("large", "FRAME_TOO_LARGE", "frame.part")
        talk.send(frame=live_frame(0))
        assert (await talk.click("one", 0)).frame == 0
        assert described((await talk.ask(prompt=prompt("one", 1))).error)[0] == "NO_SUCH_FRAME"
        await talk.leave()

    run(store, scenario, max_frame_bytes=100)


def test_a_draining_tracker_says_so(store: Store) -> None:
    async def scenario(place: Place) -> None:
        await place.clip(FILES)
        talk = place.talk()
        await talk.opened(clip_id="clip")
        place.draining.set()
        assert (await talk.receive()).HasField("reconnect")
        await talk.click("one", 0)
        talk.end()
        with pytest.raises(StopAsyncIteration):
            await talk.receive()

    run(store, scenario)


def test_errors_of_requests_leave_the_stream_open(store: Store) -> None:
    async def scenario(place: Place) -> None:
        await place.clip(FILES[:3])
        talk = place.talk()
        await talk.opened(clip_id="clip")
        box = types_pb2.Box(x_min_px=1, y_min_px=1, x_max_px=9, y_max_px=9)
        point = types_pb2.Point(x_px=1, y_px=1)
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"open": pb.OpenTrack()}, "ALREADY_OPEN"),
            ({"frame": live_frame(0)}, "HAS_CLIP"),
            ({"follow": pb.Follow()}, "NOTHING_TO_FOLLOW"),
            ({"follow": pb.Follow(live=True)}, "NOT_LIVE"),
            ({"prompt": prompt("one", 3)}, "NO_SUCH_FRAME"),
            ({"prompt": prompt("", 0)}, "BAD_OBJECT_ID"),
            ({"prompt": prompt("one", 0, 500)}, "OUT_OF_IMAGE"),
            ({"prompt": pb.TrackPrompt(object_id="one")}, "EMPTY_REQUEST"),
            ({"prompt": pb.TrackPrompt(object_id="one", points={})}, "NO_PROMPTS"),
            ({"prompt": pb.TrackPrompt(object_id="one", remove={})}, "OBJECT_NOT_FOUND"),
            (
                {"prompt": pb.TrackPrompt(object_id="one", points=pb.TrackPoints(box=box, keep_points=True))},
                "BOX_AND_KEPT_POINTS",
            ),
            (
                {"prompt": pb.TrackPrompt(object_id="one", points=pb.TrackPoints(points=[point] * 300))},
                "TOO_MANY_POINTS",
            ),
            ({}, "EMPTY_REQUEST"),
        ]
        for fields, reason in wrong:
            answer = await talk.ask(**fields)
            assert described(answer.error)[0] == reason, fields
        assert await talk.click("one", 0)
        assert described((await talk.ask(follow=pb.Follow(start=3))).error)[0] == "NO_SUCH_FRAME"
        assert len(await talk.follow()) == 3
        await talk.leave()

    run(store, scenario)


@pytest.mark.parametrize(
    ("opened", "reason"),
    [
        ({"clip_id": "clip", "model": "demo"}, "NO_MEMORY"),
        ({"clip_id": "none"}, "CLIP_NOT_FOUND"),
        ({"width_px": 10}, "BAD_SIZE"),
        ({"clip_id": "clip", "embeddings": 7}, "BAD_DATA_TYPE"),
        ({"clip_id": "clip", "formats": [5]}, "UNKNOWN_VALUE"),
        ({"clip_id": "clip", "kept_frames": 65}, "BAD_KEPT_FRAMES"),
        ({"clip_id": "clip", "options": {"max_cond_frames_in_attn": 1}}, "BAD_OPTIONS"),
        ({"clip_id": "clip", "namespace": "a b"}, "BAD_NAMESPACE"),
    ],
)
def test_a_track_that_cannot_be_opened_leaves_nothing(store: Store, opened: dict[str, Any], reason: str) -> None:
    async def scenario(place: Place) -> None:
        await place.clip(FILES[:2])
        talk = place.talk()
        talk.send(open=pb.OpenTrack(**opened))
        with pytest.raises(ServiceError) as raised:
            await talk.receive()
        assert raised.value.reason == reason
        assert place.keys("maskwire:track:*") == 0
        await talk.leave()

    run(store, scenario)


def test_clips_are_counted_replaced_and_deleted(store: Store) -> None:
    async def scenario(place: Place) -> None:
        info = await place.clip(FILES[:3])
        assert (info.frames, info.stored_bytes) == (3, 6)
        talk = place.talk()
        await talk.opened(clip_id="clip")
        await place.clip(FILES[:2])
        call_context.begin("").caller = EVERYBODY
        answer = await talk.ask(prompt=prompt("one", 0))
        assert described(answer.error) == ("CLIP_NOT_FOUND", "open.clip_id")
        await talk.leave()
        with pytest.raises(ServiceError) as raised:
            await place.clip([b"x" * 600, b"x" * 600], "large")
        assert raised.value.reason == "CLIP_TOO_LARGE"
        assert place.keys("maskwire:clip:*") == 1
        call_context.begin("").caller = EVERYBODY
        await TrackerService(place.tracker).DeleteClip(pb.DeleteClipRequest(clip_id="clip"), cast(Any, None))
        assert place.keys("maskwire:clip:*") == place.keys("maskwire:clips:*") == 0

    run(store, scenario, clip_bytes=1100, clips_bytes=33 << 20)


def test_open_tracks_followed_frames_and_take_overs_are_counted(store: Store) -> None:
    async def scenario(place: Place) -> None:
        def gauges(tracker: Tracker) -> dict[str, float]:
            return {metric.name: metric.value() for metric in tracker.live_metrics()}

        def counted(name: str, **labels: str) -> float:
            return REGISTRY.get_sample_value(name, labels) or 0

        opened, followed = "maskwire_tracks_opened_total", "maskwire_frames_followed_total"
        before = [counted(opened, how="new"), counted(opened, how="taken over"), counted(followed)]
        await place.clip(FILES[:5])
        talk, another = place.talk(), place.another()
        track = await talk.opened(clip_id="clip")
        await talk.click("one", 0)
        assert len(await talk.follow()) == 5
        found = gauges(place.tracker)
        assert found["maskwire_tracks_open"] == 1
        assert found["maskwire_tracks_stored_bytes"] > 0
        assert found["maskwire_queue_waiting"] == found["maskwire_backlog_seconds"] == 0
        other = place.talk(another)
        await other.opened(track_id=track.track_id)
        await other.leave()
        await talk.leave()
        assert gauges(place.tracker)["maskwire_tracks_open"] == gauges(another)["maskwire_tracks_open"] == 0
        after = [counted(opened, how="new"), counted(opened, how="taken over"), counted(followed)]
        assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 5]

    run(store, scenario)


def test_a_clip_that_is_too_long_is_refused_by_its_header(store: Store) -> None:
    async def scenario(place: Place) -> None:
        call_context.begin("").caller = EVERYBODY

        async def messages() -> AsyncIterator[pb.UploadClipRequest]:
            yield pb.UploadClipRequest(header=pb.ClipHeader(frames=4, width_px=WIDTH, height_px=HEIGHT))
            raise AssertionError("a frame is wanted")

        with pytest.raises(ServiceError) as raised:
            await TrackerService(place.tracker).UploadClip(messages(), cast(Any, None))
        assert (raised.value.reason, raised.value.field) == ("CLIP_TOO_LONG", "header.frames")

    run(store, scenario, max_clip_frames=3)


def test_the_clips_of_a_namespace_have_so_many_bytes(store: Store) -> None:
    async def scenario(place: Place) -> None:
        await place.clip(FILES[:3])
        with pytest.raises(ServiceError) as raised:
            await place.clip(FILES[:3], "another")
        assert raised.value.reason == "CLIPS_FULL"
        assert place.keys("maskwire:clip:*") == 1

    run(store, scenario, clips_bytes=11)


def test_a_token_may_have_its_own_limits(store: Store) -> None:
    async def scenario(place: Place) -> None:
        _, token = issue(namespaces=["default"], rights=list(RIGHTS), max_tracks=2, clips_bytes=9)
        limited = Caller(token)
        await place.clip(FILES[:3], caller=limited)
        with pytest.raises(ServiceError) as raised:
            await place.clip(FILES[:3], "another", limited)
        assert raised.value.reason == "CLIPS_FULL"
        await place.clip(FILES[:3], "another")
        with pytest.raises(ServiceError) as raised:
            await place.talk(caller=limited).opened(clip_id="none")
        assert raised.value.reason == "CLIP_NOT_FOUND"
        first, second, third = (place.talk(caller=limited) for _ in range(3))
        for talk in (first, second):
            await talk.opened(clip_id="clip")
        with pytest.raises(ServiceError) as raised:
            await third.opened(clip_id="clip")
        assert raised.value.reason == "TOO_MANY_TRACKS"
        await place.talk().opened(clip_id="clip")
        await first.leave()
        await place.talk(caller=limited).opened(clip_id="clip")

    run(store, scenario)


def test_a_namespace_without_room_for_a_track_keeps_nothing_of_it(store: Store) -> None:
    async def scenario(place: Place) -> None:
        await place.clip(FILES[:3])
        talk = place.talk()
        first = await talk.opened(clip_id="clip")
        another = place.talk()
        another.send(open=pb.OpenTrack(clip_id="clip"))
        with pytest.raises(ServiceError) as raised:
            await another.receive()
        assert (raised.value.reason, place.keys("maskwire:track:*")) == ("TRACKS_FULL", 1)
        await another.leave()
        again = place.talk()
        assert (await again.opened(track_id=first.track_id)).epoch == 2
        await again.leave()
        await talk.leave()

    run(store, scenario, max_stored_tracks=1)


def test_a_track_that_grows_beyond_what_its_namespace_may_store_is_told(store: Store) -> None:
    async def scenario(place: Place) -> None:
        await place.clip(FILES)
        talk = place.talk()
        await talk.opened(clip_id="clip")
        for number in range(40):
            answer = await talk.ask(prompt=prompt(f"object {number}", 0))
            if answer.HasField("error"):
                break
        assert described(answer.error)[0] == "TRACKS_FULL"
        assert (await talk.ask(prompt=pb.TrackPrompt(object_id=f"object {number}", remove={}))).HasField("changed")
        await talk.leave()

    run(store, scenario, stored_tracks_bytes=6000)
