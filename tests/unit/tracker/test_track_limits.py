"""Limits of clips and tracks: memory, what a namespace may store, and what is counted."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from maskwire.v1 import tracker_pb2 as pb
from maskwire_core import call_context
from maskwire_core.errors import ServiceError
from maskwire_core.storage.store import Store
from maskwire_core.telemetry.metrics import REGISTRY
from maskwire_core.tenancy.tenant import EVERYBODY, Caller
from maskwire_core.tenancy.tokens import RIGHTS, issue
from maskwire_tracker.service import TrackerService
from maskwire_tracker.tracker import Tracker

from testing.plain_tracker import EMBEDDING_BYTES, FILES, HEIGHT, WIDTH, Place, followed_clip, prompt, run, unread_clip
from testing.wire import described


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


@pytest.mark.parametrize("is_read", [True, False])
def test_the_state_of_a_track_is_gone_with_its_stream(store: Store, is_read: bool) -> None:
    """And not only when Python looks for garbage, since its memory counts no more."""

    async def scenario(place: Place) -> None:
        await place.clip(FILES)
        gc.collect()
        gc.disable()
        try:
            talk = place.talk()
            await talk.opened(clip_id="clip")
            await talk.click("one", 0)
            if is_read:
                await talk.follow()
            else:
                talk.send(follow=pb.Follow())
                await talk.receive()
            (state,) = map(weakref.ref, place.tracker._open)
            await talk.leave()
            async with asyncio.timeout(5):  # a thread may still work on a frame that nobody wants any more
                while state() is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            assert place.tracker.closed_bytes > 0
        finally:
            gc.enable()

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


def test_where_memory_is_short_fewer_frames_are_embedded_ahead(store: Store) -> None:
    async def scenario(place: Place) -> None:
        talk = await unread_clip(place)
        assert sorted(place.encoder.embedded) == FILES[: 7 + 2]
        await talk.leave()

    run(store, scenario, tracks_bytes=5 * EMBEDDING_BYTES)  # of which one tenant may have two thirds
