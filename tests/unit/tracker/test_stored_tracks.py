"""Tracks in the store: what another tracker goes on with, and what is written when."""

import asyncio
from typing import Any, cast

import pytest
from maskwire.v1 import tracker_pb2 as pb
from maskwire_core import call_context
from maskwire_core.errors import FailedPrecondition, ServiceError
from maskwire_core.storage.store import Store
from maskwire_core.tenancy.tenant import EVERYBODY
from maskwire_tracker import patience
from maskwire_tracker import tracker as tracker_module
from maskwire_tracker.service import TrackerService

from testing.plain_tracker import FILES, Place, comparable, followed_clip, held, prompt, run
from testing.store_twin import TwinConnections
from testing.wire import described


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
