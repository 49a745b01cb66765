"""Tracks of frames that come one by one: which are followed, skipped and kept."""

from maskwire.v1 import tracker_pb2 as pb
from maskwire_core.storage.store import Store

from testing.plain_tracker import FILES, HEIGHT, WIDTH, Place, comparable, live_frame, live_stream, prompt, run
from testing.wire import described


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
        talk = await live_stream(place, track_id="camera")
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
        talk = await live_stream(place)
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
        talk = await live_stream(place, kept_frames=2)
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
