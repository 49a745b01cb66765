"""The tracker over real sockets, with a real encoder and a real store."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from maskwire.cli.local_store import store_program
from maskwire.v1 import encoder_pb2, encoder_pb2_grpc, tracker_pb2_grpc, types_pb2
from maskwire.v1 import tracker_pb2 as pb
from maskwire_core.config import TrackerSettings
from maskwire_core.masks.rle import rle
from maskwire_core.storage.exports import get_tracker
from maskwire_core.storage.store import Store
from maskwire_tracker.options import TrackOptions
from maskwire_tracker.predictor import TrackerPredictor
from maskwire_tracker.track import Track
from pycocotools import mask as coco

from testing.reference.video import write_clip
from testing.servers import running_server, store_server
from testing.tracking import HEIGHT, WIDTH, add_model, conversation, running_tracker, runs, upload
from testing.wire import described, failing, frames

FRAMES = 8
MODEL = "seeded"


@dataclass
class Servers:
    """A store, an encoder with a model that has a memory and one that has none, and a tracker."""

    redis_url: str
    encoder: str
    tracker: str
    files: list[bytes]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, photo: Path) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("tracker")
    add_model(folder, MODEL)
    clip = write_clip(folder / "clip", photo, FRAMES, WIDTH, HEIGHT)
    options = ("--model", f"{MODEL},demo", "--models", str(folder), "--device", "cpu", "--backend", "torch")
    with (
        store_server(store_program()) as url,
        running_server("maskwire_encoder", url, *options) as (encoder, _),
        running_tracker(url, encoder) as (tracker, _),
    ):
        yield Servers(url, encoder, tracker, [path.read_bytes() for path in sorted(clip.glob("*.jpg"))])


@pytest.fixture(scope="module")
def stub(servers: Servers) -> Iterator[Any]:
    with grpc.insecure_channel(servers.tracker) as channel:
        yield tracker_pb2_grpc.TrackerServiceStub(channel)


@pytest.fixture(scope="module")
def clip(servers: Servers, stub: Any) -> str:
    return str(upload(stub, "clip", servers.files).clip_id)


Found = list[tuple[int, dict[str, tuple[str, float]]]]


@pytest.fixture(scope="module")
def expected(servers: Servers) -> Found:
    """What one process finds when it follows two objects through the clip."""
    return followed(servers, FRAMES)


@pytest.fixture(scope="module")
def expected_live(servers: Servers) -> Found:
    """Likewise when it does not know how many frames there will be: sam2's pointers have other distances in clips of
    less than 16 frames."""
    return followed(servers, None)


def followed(servers: Servers, count: int | None) -> Found:
    store = Store(servers.redis_url)
    with grpc.insecure_channel(servers.encoder) as channel, contextlib.closing(store):
        encoder = encoder_pb2_grpc.EncoderServiceStub(channel)
        how = {"resize": encoder_pb2.RESIZE_VIDEO_FRAME, "stored_as": types_pb2.DATA_TYPE_FP32, "model": MODEL}
        digest = next(each.tracker for each in encoder.ListModels(encoder_pb2.ListModelsRequest()).models)
        bundle = get_tracker(store, digest)
        assert bundle is not None
        predictor = TrackerPredictor(bundle, TrackerSettings().run_threads)  # others would sum in another order
        track = Track(predictor, WIDTH, HEIGHT, TrackOptions(), count)
        found: Found = []
        for index, file in enumerate(servers.files):
            key = encoder.EncodeImage(frames(file, 1 << 20, namespace="reference", **how)).image.content_key
            embedding = store.get_embedding("reference", key)
            assert embedding is not None
            frame = predictor.prepare(index, embedding.tensors)
            if index == 0:
                track.add_points(frame, "one", [(100, 75)], [1])
                track.add_points(frame, "two", [(60, 125)], [1])
                track.settle(frame)
                track.start()
            seen = track.follow(frame)
            masks = {
                name: (rle(np.asarray(each.logits), WIDTH, HEIGHT)["counts"].decode(), np.float32(each.object_score))
                for name, each in seen.items()
            }
            found.append((index, masks))
    return found


def test_a_clip_is_followed_as_in_one_process(servers: Servers, clip: str, stub: Any, expected: Any) -> None:
    with conversation(servers.tracker, clip_id=clip, model=MODEL) as (talk, opened):
        assert (opened.frames, opened.width_px, opened.height_px, opened.epoch) == (FRAMES, WIDTH, HEIGHT, 1)
        assert talk.click("one", 0, 100, 75).objects[0].prompted
        talk.click("two", 0, 60, 125)
        masks = talk.follow()
        assert runs(masks) == expected
        assert masks[1].timings.total_ms > masks[1].timings.track_ms > 0
        info = stub.GetTrack(pb.GetTrackRequest(track_id=opened.track_id))
        assert (list(info.object_ids), info.followed_to) == (["one", "two"], FRAMES - 1)
        assert runs(talk.follow(start=3, most=1)) == expected[3:5]
        assert talk.ask(prompt=pb.TrackPrompt(object_id="two", remove={})).changed.object_ids == ["one"]
        assert [list(found) for _, found in runs(talk.follow(start=6))] == [["one"]] * 2
        assert [each.frame for each in talk.follow(start=2, reverse=True)] == [2, 1, 0]


def test_live_frames_are_followed_as_in_one_process_and_pass_by_the_store(
    servers: Servers, expected_live: Found
) -> None:
    written = values_written(servers)
    with conversation(servers.tracker, width_px=WIDTH, height_px=HEIGHT, model=MODEL) as (talk, _):
        frame = [
            pb.TrackFrame(part=pb.FramePart(chunk=file, last=True), captured_at_us=10 + n)
            for n, file in enumerate(servers.files)
        ]
        talk.send(frame=frame[0])
        talk.click("one", 0, 100, 75)
        talk.click("two", 0, 60, 125)
        talk.send("live", follow=pb.Follow(live=True))
        found = [talk.receive().masks]
        for each in frame[1:]:
            talk.send(frame=each)
            found.append(talk.receive().masks)
        assert runs(found) == expected_live
        assert [each.captured_at_us for each in found] == list(range(10, 10 + FRAMES))
        talk.send(stop={})
        answer = talk.receive()
        assert (answer.request_id, answer.followed.frames) == ("live", FRAMES)
    assert values_written(servers) == written


def values_written(servers: Servers) -> int:
    """How often the store was sent an embedding, a name or a lease. Tracks are hashes, which scripts write."""
    with Store(servers.redis_url).connections.commands() as client:
        return int(client.info("commandstats")["cmdstat_set"]["calls"])


def test_frames_that_may_be_skipped_give_way_to_newer_ones(servers: Servers) -> None:
    with conversation(servers.tracker, width_px=WIDTH, height_px=HEIGHT, model=MODEL) as (talk, _):
        talk.send(frame=pb.TrackFrame(part=pb.FramePart(chunk=servers.files[0], last=True)))
        talk.click("one", 0, 100, 75)
        talk.send("live", follow=pb.Follow(live=True), masks_seen=0)
        assert talk.receive().masks.frame == 0
        for number in range(40):  # many more than can be followed meanwhile
            file = servers.files[number % FRAMES]
            skippable = pb.TrackFrame(part=pb.FramePart(chunk=file, last=True), may_be_skipped=True)
            talk.send(f"frame {number}", frame=skippable)
        talk.send(stop={})
        answers = []
        while (answer := talk.receive()).WhichOneof("outcome") != "followed":
            answers.append(answer)
        skipped = [each.request_id for each in answers if each.WhichOneof("outcome") == "skipped"]
        masks = [each.masks.frame for each in answers if each.WhichOneof("outcome") == "masks"]
        assert skipped
        assert masks == list(range(1, len(masks) + 1))
        assert answer.followed.frames >= len(masks) + 1
        assert len(skipped) + answer.followed.frames <= 41


def test_another_tracker_goes_on_after_one_was_killed(servers: Servers, clip: str, expected: Any) -> None:
    with contextlib.ExitStack() as stack:
        address, process = stack.enter_context(running_tracker(servers.redis_url, servers.encoder))
        talk, opened = stack.enter_context(conversation(address, clip_id=clip, model=MODEL))
        talk.click("one", 0, 100, 75)
        talk.click("two", 0, 60, 125)
        talk.send(follow=pb.Follow(), masks_seen=0)
        found = [talk.receive().masks for _ in range(5)]
        process.kill()
        with conversation(servers.tracker, track_id=opened.track_id) as (other, again):
            assert (again.epoch, again.model, again.clip_id) == (2, MODEL, clip)
            assert list(again.object_ids) == ["one", "two"]
            assert again.followed_to >= 1
            rest = other.follow(start=again.followed_to + 1)
        assert runs(found) == expected[:5]
        assert runs(rest) == expected[again.followed_to + 1 :]


def test_a_stream_whose_track_was_opened_again_ends(servers: Servers, clip: str) -> None:
    with conversation(servers.tracker, clip_id=clip, model=MODEL) as (talk, opened):
        talk.click("one", 0, 100, 75)
        with conversation(servers.tracker, track_id=opened.track_id) as (other, again):
            assert list(again.object_ids) == ["one"]
            points = pb.TrackPoints(points=[types_pb2.Point(x_px=1, y_px=1)])
            talk.send(prompt=pb.TrackPrompt(object_id="two", frame=0, points=points))
            assert failing(talk.receive) == ("FAILED_PRECONDITION", "TAKEN_OVER", "track_id")
            assert other.click("three", 0, 60, 125).objects[0].object_id == "three"
        with conversation(servers.tracker, track_id=opened.track_id) as (_, last):
            assert (list(last.object_ids), last.epoch) == (["one", "three"], 3)


def test_a_deleted_track_is_gone(servers: Servers, clip: str, stub: Any) -> None:
    with conversation(servers.tracker, track_id="mine", clip_id=clip, model=MODEL) as (talk, _):
        talk.click("one", 0, 100, 75)
        stub.DeleteTrack(pb.DeleteTrackRequest(track_id="mine"))
        talk.send(prompt=pb.TrackPrompt(object_id="one", remove={}))
        assert failing(talk.receive)[:2] == ("FAILED_PRECONDITION", "TAKEN_OVER")
    assert failing(lambda: stub.GetTrack(pb.GetTrackRequest(track_id="mine"))) == (
        "NOT_FOUND", "TRACK_NOT_FOUND", "track_id",
    )  # fmt: skip
    stub.DeleteTrack(pb.DeleteTrackRequest(track_id="mine"))


POINTS = pb.TrackPoints(points=[types_pb2.Point(x_px=1, y_px=1)])


@pytest.mark.parametrize(
    ("request_fields", "expected_details"),
    [
        ({"open": pb.OpenTrack()}, ("ALREADY_OPEN", "open")),
        ({"frame": pb.TrackFrame(part=pb.FramePart(chunk=b"x", last=True))}, ("HAS_CLIP", "frame")),
        ({"follow": pb.Follow()}, ("NOTHING_TO_FOLLOW", "follow")),
        ({"follow": pb.Follow(live=True)}, ("NOT_LIVE", "follow.live")),
        ({"prompt": pb.TrackPrompt(object_id="one", frame=FRAMES, points=POINTS)}, ("NO_SUCH_FRAME", "prompt.frame")),
        ({"prompt": pb.TrackPrompt(frame=0, points=POINTS)}, ("BAD_OBJECT_ID", "prompt.object_id")),
        ({"prompt": pb.TrackPrompt(object_id="one")}, ("EMPTY_REQUEST", "prompt")),
        ({"prompt": pb.TrackPrompt(object_id="one", points={})}, ("NO_PROMPTS", "prompt.points")),
        ({"prompt": pb.TrackPrompt(object_id="one", remove={})}, ("OBJECT_NOT_FOUND", "prompt.object_id")),
        (
            {"prompt": pb.TrackPrompt(object_id="one", points=pb.TrackPoints(points=[types_pb2.Point(x_px=241)]))},
            ("OUT_OF_IMAGE", "prompt.points.points[0].x_px"),
        ),
        (
            {"prompt": pb.TrackPrompt(object_id="one", mask=types_pb2.Rle(size=[1, 1], counts="1"))},
            ("BAD_MASK_SIZE", "prompt.mask"),
        ),
    ],
)
def test_a_wrong_request_is_answered_with_its_error(
    talking: Any, request_fields: dict[str, Any], expected_details: tuple[str, str]
) -> None:
    answer = talking.ask(**request_fields)
    assert described(answer.error) == expected_details


@pytest.fixture(scope="module")
def talking(servers: Servers, clip: str) -> Iterator[Any]:
    with conversation(servers.tracker, clip_id=clip, model=MODEL) as (talk, _):
        yield talk


@pytest.mark.parametrize(
    ("opened", "expected_details"),
    [
        ({"clip_id": "clip", "model": "demo"}, ("FAILED_PRECONDITION", "NO_MEMORY", "open.model")),
        ({"clip_id": "clip", "model": "other"}, ("NOT_FOUND", "MODEL_NOT_FOUND", "open.model")),
        ({"clip_id": "none"}, ("NOT_FOUND", "CLIP_NOT_FOUND", "clip_id")),
        ({"width_px": 10}, ("INVALID_ARGUMENT", "BAD_SIZE", "open.height_px")),
        ({"clip_id": "clip", "embeddings": 7}, ("INVALID_ARGUMENT", "BAD_DATA_TYPE", "open.embeddings")),
        ({"clip_id": "clip", "formats": [5]}, ("INVALID_ARGUMENT", "UNKNOWN_VALUE", "open.formats[0]")),
        ({"clip_id": "clip", "kept_frames": 65}, ("INVALID_ARGUMENT", "BAD_KEPT_FRAMES", "open.kept_frames")),
        (
            {"clip_id": "clip", "options": {"max_cond_frames_in_attn": 1}},
            ("INVALID_ARGUMENT", "BAD_OPTIONS", "open.options"),
        ),
        ({"clip_id": "clip", "namespace": "a b"}, ("INVALID_ARGUMENT", "BAD_NAMESPACE", "namespace")),
    ],
)
def test_a_track_that_cannot_be_opened(
    servers: Servers, clip: str, stub: Any, opened: dict[str, Any], expected_details: tuple[str, str, str]
) -> None:
    request = pb.TrackRequest(open=pb.OpenTrack(**opened))
    assert failing(lambda: list(stub.Track(iter([request])))) == expected_details


def test_clips_are_checked_replaced_and_deleted(servers: Servers, stub: Any) -> None:
    files = servers.files
    info = upload(stub, "", files[:2])
    assert info.clip_id.startswith("clip_")
    assert (info.frames, info.fps, info.stored_bytes) == (2, 25, sum(map(len, files[:2])))

    def refused(call: Callable[[], Any]) -> tuple[str, str, str]:
        return failing(call)

    assert refused(lambda: upload(stub, "c", files[:2], frames=3)) == (
        "INVALID_ARGUMENT", "FRAMES_MISSING", "header.frames",
    )  # fmt: skip
    assert refused(lambda: upload(stub, "c", files[:2], frames=1))[1] == "TOO_MANY_FRAMES"
    assert refused(lambda: upload(stub, "c", [b""]))[1] == "EMPTY_IMAGE"
    upload(stub, "c", files[:3])
    with conversation(servers.tracker, clip_id="c", model=MODEL) as (talk, opened):
        upload(stub, "c", files[:2])
        assert opened.frames == 3
        points = pb.TrackPrompt(object_id="one", frame=0, points=POINTS)
        assert described(talk.ask(prompt=points).error) == ("CLIP_NOT_FOUND", "open.clip_id")
    with Store(servers.redis_url).connections.commands() as client:
        assert client.hlen("maskwire:clip:{default/c}") == 3  # two frames, and what describes them
        assert client.hlen("maskwire:clips:{default}") >= 2
    stub.DeleteClip(pb.DeleteClipRequest(clip_id="c"))
    request = pb.TrackRequest(open=pb.OpenTrack(clip_id="c"))
    assert failing(lambda: list(stub.Track(iter([request]))))[1] == "CLIP_NOT_FOUND"


def test_a_model_without_memory_hands_masks_over_if_it_is_told_to(servers: Servers, clip: str) -> None:
    with conversation(servers.tracker, clip_id=clip, model="demo", hand_over=True) as (talk, opened):
        assert opened.hand_over
        clicked = talk.click("cup", 0, 120, 90)
        masks = talk.follow()
    assert [each.frame for each in masks] == list(range(FRAMES))
    assert all(each.handed_over for each in [clicked, *masks])
    areas = [decoded(each.objects[0].mask.rle) for each in masks]
    overlaps = [(a & b).sum() / (a | b).sum() for a, b in pairwise(areas)]
    assert min(overlaps) > 0.5  # the clip moves by a few pixels from frame to frame


def decoded(mask: types_pb2.Rle) -> Any:
    return coco.decode({"size": list(mask.size), "counts": mask.counts.encode()}).astype(bool)


def test_frames_of_another_size_are_told(servers: Servers, stub: Any) -> None:
    upload(stub, "small", servers.files[:1], width_px=100, height_px=100)
    with conversation(servers.tracker, clip_id="small", model=MODEL) as (talk, _):
        points = pb.TrackPrompt(object_id="one", frame=0, points=POINTS)
        assert described(talk.ask(prompt=points).error) == ("FRAME_SIZE", "frame")
