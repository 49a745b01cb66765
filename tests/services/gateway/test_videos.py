"""Clips, and tracks over /v1/track: a real tracker behind the gateway."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from maskwire import Client
from maskwire.v1 import tracker_pb2 as pb
from pycocotools import mask as coco
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from testing.reference.video import write_clip
from testing.servers import Stack, running_gateway
from testing.tracking import HEIGHT, WIDTH, running_tracker

FRAMES = 4
CLICK, OTHER = (120, 90), (30, 160)
HEADER = {"frames": FRAMES, "width_px": WIDTH, "height_px": HEIGHT}


@dataclass
class Behind:
    """A gateway and the tracker behind it, and the frames of a clip."""

    gateway: str
    tracker: str
    stack: Stack
    files: list[Path]

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.gateway, timeout=60)

    def upload(self, **parameters: Any) -> httpx.Response:
        frames = [("frame", (path.name, path.read_bytes(), "image/jpeg")) for path in self.files]
        return self.http.post("/v1/clips", params={**HEADER, **parameters}, files=frames)


@pytest.fixture(scope="module")
def behind(stack: Stack, photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    clip = write_clip(tmp_path_factory.mktemp("clips") / "clip", photo, FRAMES, WIDTH, HEIGHT)
    with (
        running_tracker(stack.redis_url, stack.encoder) as (tracker, _),
        running_gateway(stack, "--tracker", tracker) as (gateway, _),
    ):
        yield Behind(gateway, tracker, stack, sorted(clip.glob("*.jpg")))


class Socket:
    """A WebSocket to /v1/track that speaks text frames, or binary ones."""

    def __init__(self, connection: ClientConnection, binary: bool) -> None:
        self.connection = connection
        self.binary = binary

    def send(self, **fields: Any) -> None:
        """Sends a request as JSON in the gateway's short forms, or as protobuf."""
        if self.binary:
            self.connection.send(json_format.ParseDict(fields, pb.TrackRequest()).SerializeToString())
        else:
            self.connection.send(json.dumps(fields))

    def read(self) -> pb.TrackResponse:
        frame = self.connection.recv(60)
        assert isinstance(frame, bytes) == self.binary
        if isinstance(frame, bytes):
            return pb.TrackResponse.FromString(frame)
        return json_format.Parse(frame, pb.TrackResponse())

    def ask(self, **fields: Any) -> pb.TrackResponse:
        self.send(request_id="asked", **fields)
        answer = self.read()
        assert answer.request_id == "asked"
        return answer

    def refused(self, **fields: Any) -> tuple[str, str]:
        """Returns the reason of an error and its field."""
        answer = self.ask(**fields)
        assert answer.HasField("error"), answer
        details = json.loads(json_format.MessageToJson(answer.error))["details"]
        violations = [each for detail in details for each in detail.get("fieldViolations", [])]
        return details[0]["reason"], violations[0]["field"] if violations else ""


@contextlib.contextmanager
def opened(gateway: str, binary: bool = False, **options: Any) -> Iterator[Socket]:
    url = f"{gateway.replace('http', 'ws')}/v1/track"
    with connect(url, subprotocols=["maskwire.v1"], **options) as connection:  # type: ignore[list-item]
        assert connection.subprotocol == "maskwire.v1"
        yield Socket(connection, binary)


@pytest.fixture(scope="module")
def clip(behind: Behind) -> str:
    answer = behind.upload(fps=25, clip_id="clip")
    assert answer.status_code == 200, answer.text
    info = answer.json()
    assert {name: info[name] for name in HEADER} == HEADER
    assert (info["clip_id"], info["fps"]) == ("clip", 25)
    assert int(info["stored_bytes"]) == sum(path.stat().st_size for path in behind.files)
    return str(info["clip_id"])


@pytest.fixture(scope="module")
def expected(behind: Behind) -> list[dict[str, str]]:
    """What the Python client finds on each frame, by object."""
    with (
        Client(behind.stack.encoder, tracker=behind.tracker) as client,
        client.track(behind.files[0].parent, hand_over=True) as track,
    ):
        track.click(*CLICK, object="cup")
        track.click(*OTHER, object="table")
        track.click(*CLICK, object="table", positive=False)
        list(track.follow(count=2))
        track.box(60, 30, 200, 150, frame=2, object="cup")
        list(track.follow(start=2))
        return [{name: rle["counts"] for name, rle in track.masks.rles(index).items()} for index in range(track.frames)]


def counts(answer: pb.TrackResponse) -> dict[str, str]:
    assert answer.HasField("masks"), answer
    return {each.object_id: each.mask.rle.counts for each in answer.masks.objects}


def is_seen(rle: str) -> bool:
    return bool(coco.area({"size": [HEIGHT, WIDTH], "counts": rle.encode()}))


@pytest.mark.parametrize("binary", [False, True])
def test_a_track_is_the_python_clients_track(
    behind: Behind, clip: str, expected: list[dict[str, str]], binary: bool
) -> None:
    def points(*given: tuple[int, int], labels: list[int]) -> dict[str, Any]:
        if not binary:
            return {"points": given, "labels": labels}
        long = [{"x_px": x, "y_px": y, "label": label} for (x, y), label in zip(given, labels, strict=True)]
        return {"points": long}

    box = [60, 30, 200, 150]
    boxed = dict(zip(("x_min_px", "y_min_px", "x_max_px", "y_max_px"), box, strict=True)) if binary else box
    found: list[dict[str, str]] = [{} for _ in range(FRAMES)]
    with opened(behind.gateway, binary) as socket:

        def follow(masks_seen: str | None = None, **fields: Any) -> None:
            socket.send(request_id="f", follow=fields)
            seen = 0
            while (answer := socket.read()).HasField("masks"):
                assert answer.request_id == "f"
                found[answer.masks.frame] |= counts(answer)
                seen += 1
            assert answer.HasField("followed"), answer

        track = socket.ask(open={"clip_id": clip, "hand_over": True})
        assert (track.opened.frames, track.opened.hand_over) == (FRAMES, True)
        socket.ask(prompt={"object_id": "cup", "points": points(CLICK, labels=[1])})
        socket.ask(prompt={"object_id": "table", "points": points(OTHER, labels=[1])})
        socket.ask(prompt={"object_id": "table", "points": points(OTHER, CLICK, labels=[1, 0])})
        follow(most=1)
        found[2] |= counts(socket.ask(prompt={"object_id": "cup", "frame": 2, "points": {"box": boxed}}))
        follow(start=2)
        assert [{name: rle for name, rle in frame.items() if is_seen(rle)} for frame in found] == expected
        track_id = track.opened.track_id
        stored = behind.http.get(f"/v1/tracks/{track_id}").json()
        assert (stored["object_ids"], stored["followed_to"]) == (["cup", "table"], FRAMES - 1)
        # Another socket goes on with it, and this one has lost it.
        with opened(behind.gateway, not binary) as other:
            again = other.ask(open={"track_id": track_id})
            assert list(again.opened.object_ids) == ["cup", "table"]
            assert again.opened.epoch == track.opened.epoch + 1
            socket.send(prompt={"object_id": "cup", "remove": {}})
            lost = socket.read()
            assert (lost.request_id, lost.error.code) == ("", 9)
            with pytest.raises(ConnectionClosed) as closed:
                socket.read()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1000
    assert behind.http.delete(f"/v1/tracks/{track_id}").json() == {}
    gone = behind.http.get(f"/v1/tracks/{track_id}")
    assert (gone.status_code, gone.json()["reason"], gone.json()["field"]) == (404, "TRACK_NOT_FOUND", "track_id")


def test_no_more_is_found_than_is_read_and_stop_ends_it(behind: Behind) -> None:
    """Of a caller that says what it has seen, eight masks are on the way; a prompt waits for the end."""
    frames = [("frame", behind.files[index % FRAMES].read_bytes()) for index in range(12)]
    stored = behind.http.post("/v1/clips", params={**HEADER, "frames": 12}, files=frames).json()
    with opened(behind.gateway) as socket:
        track = socket.ask(masks_seen="0", open={"clip_id": stored["clip_id"], "hand_over": True}).opened
        socket.ask(masks_seen="0", prompt={"object_id": "cup", "points": {"points": [CLICK]}})
        socket.send(request_id="f", masks_seen="1", follow={})
        got = [socket.read().masks.frame for _ in range(8)]
        assert got == list(range(8))
        with pytest.raises(TimeoutError):
            socket.connection.recv(0.7)
        socket.send(masks_seen="3")
        assert [socket.read().masks.frame for _ in range(2)] == [8, 9]
        socket.send(stop={})
        ended = socket.read()
        assert (ended.request_id, ended.followed.followed_to) == ("f", 9)
    behind.http.delete(f"/v1/tracks/{track.track_id}")
    assert behind.http.delete(f"/v1/clips/{stored['clip_id']}").json() == {}
    with opened(behind.gateway) as socket:
        assert socket.refused(open={"clip_id": stored["clip_id"], "hand_over": True}) == (
            "CLIP_NOT_FOUND",
            "open.clip_id",
        )


def test_errors_are_answers_in_the_callers_words(behind: Behind, clip: str) -> None:
    with opened(behind.gateway) as socket:
        assert socket.refused(follow={}) == ("NOT_OPEN", "request")
        assert socket.refused(open={"clip_id": clip}) == ("NO_MEMORY", "open.model")
        assert socket.refused(open={"clipId": "none", "handOver": True}) == ("CLIP_NOT_FOUND", "open.clipId")
        assert socket.ask(open={"clip_id": clip, "hand_over": True}).HasField("opened")
        for wrong, expected in (
            ({"open": {}}, ("ALREADY_OPEN", "open")),
            ({"follow": {}}, ("NOTHING_TO_FOLLOW", "follow")),
            ({"folow": {}}, ("BAD_FRAME", "folow")),
            ({"prompt": {"object_id": "a", "points": {"pionts": []}}}, ("BAD_FRAME", "prompt.points.pionts")),
            (
                {"prompt": {"objectId": "a", "points": {"points": [[1, 1], [900, 1]]}}},
                ("OUT_OF_IMAGE", "prompt.points.points[1][0]"),
            ),
            (
                {"prompt": {"object_id": "a", "points": {"points": [[1, 1]], "labels": [7]}}},
                ("BAD_LABEL", "prompt.points.labels[0]"),
            ),
            ({"prompt": {"object_id": "a", "frame": 99, "points": {}}}, ("NO_SUCH_FRAME", "prompt.frame")),
        ):
            assert socket.refused(**wrong) == expected
        assert counts(socket.ask(prompt={"object_id": "cup", "points": {"points": [CLICK]}}))["cup"]


def test_what_is_not_a_clip_is_refused(behind: Behind) -> None:
    def refused(response: httpx.Response) -> tuple[int, str, str]:
        answer = response.json()
        return response.status_code, answer["reason"], answer["field"]

    assert refused(behind.upload(frames=FRAMES + 1)) == (400, "FRAMES_MISSING", "frames")
    assert refused(behind.upload(frames=1)) == (400, "TOO_MANY_FRAMES", "frame")
    assert refused(behind.upload(width_px=0)) == (400, "BAD_SIZE", "width_px")
    assert refused(behind.upload(framse=2)) == (400, "BAD_PARAMETER", "framse")
    assert refused(behind.upload(fps="fast")) == (400, "BAD_PARAMETER", "fps")
    http = behind.http
    named = http.post("/v1/clips", params=HEADER, files=[("picture", b"x")])
    assert refused(named) == (400, "BAD_PARAMETER", "picture")
    assert refused(http.post("/v1/clips", params=HEADER, content=b"x"))[:2] == (415, "UNSUPPORTED_MEDIA_TYPE")
    form = {"content-type": "multipart/form-data; boundary=xyz"}
    for content in (b"nonsense", b'--xyz\r\ncontent-disposition: form-data; name="frame"\r\n\r\nhalf'):
        assert refused(http.post("/v1/clips", params=HEADER, content=content, headers=form))[:2] == (400, "BAD_FORM")
    assert refused(http.get("/v1/track"))[:2] == (426, "NO_SOCKET")


def test_the_description_has_what_is_answered(behind: Behind) -> None:
    http = behind.http
    document = http.get("/openapi.json").json()
    assert {"TrackRequest", "TrackResponse", "ClipInfo", "TrackInfo"} <= document["components"]["schemas"].keys()
    assert "labels" in document["components"]["schemas"]["TrackPoints"]["properties"]
    seen = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation["tags"] == ["Videos"]:
                answer = http.request(method, path.replace("{track_id}", "nobody").replace("{clip_id}", "nobody"))
                assert str(answer.status_code) in operation["responses"], (path, answer.status_code)
                seen += 1
    assert seen == 4


def test_a_clip_takes_little_memory_of_the_gateway(behind: Behind) -> None:
    """Frames are passed on as they come: a clip is ten times as large as all the memory that bodies may take."""
    large = b"\xff" * 3_000_000  # no picture; the tracker looks at it when it is followed
    parameters = {**HEADER, "frames": 10, "clip_id": "large"}
    with running_gateway(behind.stack, "--tracker", behind.tracker, "--body-memory-bytes", "3000000") as (gateway, _):
        answer = httpx.post(f"{gateway}/v1/clips", params=parameters, files=[("frame", large)] * 10, timeout=60)
        assert answer.status_code == 200, answer.text
        assert answer.json()["stored_bytes"] == "30000000"
        assert httpx.delete(f"{gateway}/v1/clips/large").status_code == 200


def test_who_may_open_one(behind: Behind) -> None:
    with pytest.raises(InvalidStatus) as refused, opened(behind.gateway, origin="https://other.example"):
        pass
    assert refused.value.response.status_code == 403
    with opened(behind.gateway, origin=behind.gateway):
        pass


def test_a_tracker_that_is_lost_closes_the_socket(behind: Behind, clip: str) -> None:
    """The track is opened again on another socket, and goes on."""
    stack = behind.stack
    with contextlib.ExitStack() as running:
        tracker, process = running.enter_context(running_tracker(stack.redis_url, stack.encoder))
        gateway, _ = running.enter_context(running_gateway(stack, "--tracker", tracker))
        with opened(gateway) as socket:
            track_id = socket.ask(open={"clip_id": clip, "hand_over": True}).opened.track_id
            clicked = counts(socket.ask(prompt={"object_id": "cup", "points": {"points": [CLICK]}}))
            os.kill(process.pid, signal.SIGKILL)
            lost = socket.read()
            assert (lost.request_id, lost.error.code) == ("", 14)
            with pytest.raises(ConnectionClosed) as closed:
                socket.read()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        port = int(tracker.split(":")[1])
        running.enter_context(running_tracker(stack.redis_url, stack.encoder, port=port))
        with opened(gateway) as socket:
            assert list(socket.ask(open={"track_id": track_id}).opened.object_ids) == ["cup"]
            socket.send(follow={"most": 0})
            assert counts(socket.read()) == clicked
