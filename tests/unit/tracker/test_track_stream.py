"""A Track stream: what is embedded and followed, and what is answered."""

import asyncio
from typing import Any

import pytest
from maskwire.v1 import tracker_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core.errors import ServiceError
from maskwire_core.storage.embedding import pack
from maskwire_core.storage.store import Store

from testing.plain_tracker import (
    EMBEDDING_BYTES,
    FILES,
    HEIGHT,
    WIDTH,
    Place,
    embedding_of,
    held,
    live_frame,
    prompt,
    run,
    unread_clip,
)
from testing.wire import described


def test_frames_are_embedded_once_a_little_ahead_and_not_kept(store: Store) -> None:
    async def scenario(place: Place) -> None:
        talk = await unread_clip(place)
        assert sorted(place.encoder.embedded) == FILES[: 7 + 4]
        assert held(place.tracker) > 4 * EMBEDDING_BYTES
        talk.send(stop={})
        followed = (await talk.receive()).followed
        prepared_bytes = 4
        assert held(place.tracker) == followed.stored_bytes + prepared_bytes
        await talk.leave()
        assert held(place.tracker) == 0
        assert place.keys("maskwire:embedding:*") == place.keys("maskwire:alias:*") == 0

    run(store, scenario)


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
