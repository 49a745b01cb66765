"""/v1/stream: the session protocol over a WebSocket."""

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from google.protobuf import json_format
from maskwire import Client
from maskwire.transport.channels import Channels
from maskwire.transport.credentials import Credentials
from maskwire.v1 import decoder_pb2 as pb
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from testing.processes import resident_bytes, wait_until, wait_until_still
from testing.servers import Stack, running_gateway, running_server


class Socket:
    """A WebSocket that speaks text frames, or binary ones."""

    def __init__(self, connection: ClientConnection, binary: bool = False) -> None:
        self.connection = connection
        self.binary = binary
        self.steps: list[dict[str, Any]] = []  # of the cup

    def send(self, **fields: Any) -> None:
        request = json_format.ParseDict(fields, pb.SegmentStreamRequest())
        self.connection.send(request.SerializeToString() if self.binary else json_format.MessageToJson(request))

    def read(self, seconds: float = 60) -> pb.SegmentStreamResponse:
        frame = self.connection.recv(seconds)
        if isinstance(frame, bytes):
            assert self.binary
            return pb.SegmentStreamResponse.FromString(frame)
        assert not self.binary
        return json_format.Parse(frame, pb.SegmentStreamResponse())

    def ask(self, **fields: Any) -> pb.SegmentStreamResponse:
        self.send(**fields)
        answer = self.read()
        assert answer.request_id == fields.get("request_id", "")
        return answer

    def click(self, x: float, y: float, label: int = 1, **fields: Any) -> pb.SegmentStreamResponse:
        """Asks for the cup's mask with one more click, which stays if the answer is a mask and no preview."""
        steps = [*self.steps, {"add_point": {"x_px": x, "y_px": y, "label": label}}]
        answer = self.ask(**{"request_id": "click", **fields}, segment=cup(steps))
        if answer.HasField("result") and not fields.get("speculative"):
            self.steps = steps
        return answer

    def undo(self) -> pb.SegmentStreamResponse:
        self.steps.pop()
        return self.ask(request_id="undo", segment=cup(self.steps))


def cup(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """StreamPrompts."""
    return {"prompts": [{"prompt_id": "cup", "steps": steps}]}


@contextlib.contextmanager
def opened(gateway: str, binary: bool = False, **options: Any) -> Iterator[Socket]:
    with connect(f"{gateway.replace('http', 'ws')}/v1/stream", subprotocols=["maskwire.v1"], **options) as connection:  # type: ignore[list-item]
        assert connection.subprotocol == "maskwire.v1"
        yield Socket(connection, binary)


@pytest.fixture(scope="module")
def client(stack: Stack, photo: Path) -> Iterator[Client]:
    with stack.client() as client:
        client.embed(photo, image_id="cup-ws")
        yield client


def rle(answer: pb.SegmentStreamResponse) -> str:
    return answer.result.results[0].masks[0].rle.counts


@pytest.mark.parametrize("binary", [False, True])
def test_a_session_is_the_clients_session(gateway: str, client: Client, binary: bool) -> None:
    with opened(gateway, binary) as socket, client.session(image_id="cup-ws") as session:
        ready = socket.ask(request_id="i", set_image={"image_id": "cup-ws"})
        assert (ready.image_ready.image.width_px, ready.image_ready.image.height_px) == (600, 400)
        assert rle(socket.click(260, 130)) == session.click(260, 130).rle["counts"]
        assert rle(socket.click(300, 330, 0)) == session.click(300, 330, positive=False).rle["counts"]
        undone = session.undo()
        assert undone is not None
        answer = socket.undo()
        assert rle(answer) == undone.rle["counts"]
        assert answer.result.results[0].prompt_id == "cup"
        hover = socket.click(90, 90, request_id="h", speculative=True)
        preview = session.hover(90, 90)
        assert preview is not None
        assert rle(hover) == preview.rle["counts"]
        plain = socket.ask(
            request_id="p", segment={"prompts": [{"box": dict(zip(BOX, (135, 40, 500, 345), strict=True))}]}
        )
        expected = client.segment("cup-ws", box=(135, 40, 500, 345))
        assert plain.result.results[0].masks[0].rle.counts == expected.rle["counts"]
        assert 1 <= plain.counters.decodes <= 4  # the decoder may have had the clicks' masks


BOX = ("x_min_px", "y_min_px", "x_max_px", "y_max_px")


def test_errors_are_answers_and_the_socket_lives_on(gateway: str, client: Client) -> None:
    with opened(gateway) as socket:

        def reason(answer: pb.SegmentStreamResponse) -> str:
            assert answer.HasField("error")
            details = json.loads(json_format.MessageToJson(answer.error))["details"]
            return str(details[0]["reason"])

        early = socket.ask(request_id="1", segment={})
        assert (reason(early), early.error.code) == ("NO_IMAGE", 3)
        assert reason(socket.ask(request_id="2", set_image={"image_id": "nobody"})) == "IMAGE_NOT_FOUND"
        assert reason(socket.ask(request_id="3", segment={})) == "NO_IMAGE"
        for frame in ("{", '{"segment": 3}', '{"unknown": {}}', "[" * 5000, f"[{'[],' * 600_000}[]]"):
            socket.connection.send(frame)
            assert reason(socket.read()) == "BAD_FRAME"
        socket.connection.send(f"[{'{},' * 1_000_000}{{}}]")  # 650 MiB as objects
        assert reason(socket.read()) == "TOO_MANY_VALUES"
        socket.ask(request_id="4", set_image={"image_id": "cup-ws"})
        assert reason(socket.click(700, 1)) == "OUT_OF_IMAGE"
        assert reason(socket.ask(request_id="5")) == "EMPTY_REQUEST"
        first = rle(socket.click(260, 130))
        # An image that is not there leaves none: prompts must not meet the one before.
        assert reason(socket.ask(request_id="6", set_image={"image_id": "nobody"})) == "IMAGE_NOT_FOUND"
        assert reason(socket.click(260, 130)) == "NO_IMAGE"
        assert socket.ask(request_id="7", set_image={"image_id": "cup-ws"}).HasField("image_ready")
        socket.steps.clear()
        assert rle(socket.click(260, 130)) == first
        socket.connection.send(b"\xff\xff")
        socket.binary = True
        assert reason(socket.read()) == "BAD_FRAME"
        assert socket.click(9, 9).HasField("result")


def test_an_image_that_is_not_there_fails_only_the_requests_for_it(gateway: str, client: Client) -> None:
    """Also if the stream to the decoder is not open yet, and the next image was set before the answer."""
    with opened(gateway) as socket:
        socket.send(request_id="1", set_image={"image_id": "nobody"})
        socket.send(request_id="2", segment={})
        socket.send(request_id="3", set_image={"image_id": "cup-ws"})
        socket.send(request_id="4", segment=cup([{"add_point": {"x_px": 260, "y_px": 130}}]))
        answers = [socket.read() for _ in range(4)]
    assert [(answer.request_id, answer.WhichOneof("outcome")) for answer in answers] == [
        ("1", "error"),
        ("2", "error"),
        ("3", "image_ready"),
        ("4", "result"),
    ]


def test_decoders_may_die_and_drain_behind_it(stack: Stack, client: Client) -> None:
    """One is killed and another drains; the caller sees masks alone, and they are what they would have been."""
    with contextlib.ExitStack() as running, client.session(image_id="cup-ws") as session:
        expected = [session.click(260, 130), session.click(300, 330, positive=False), session.click(420, 200)]
        decoders = [running.enter_context(running_server("maskwire_decoder", stack.redis_url)) for _ in range(3)]
        addresses = ",".join(address for address, _ in decoders)
        gateway, _ = running.enter_context(running_gateway(stack, "--retry-s", "20", decoder=addresses))
        socket = running.enter_context(opened(gateway))
        socket.ask(set_image={"image_id": "cup-ws"})
        assert rle(socket.click(260, 130)) == expected[0].rle["counts"]
        # The client keeps to the decoder that ranks first for the image, and goes on to the next.
        order = asyncio.run(_ranked(addresses, "cup-ws"))
        pids = dict(decoders)
        os.kill(pids[order[0]], signal.SIGKILL)
        assert rle(socket.click(300, 330, 0)) == expected[1].rle["counts"]
        os.kill(pids[order[1]], signal.SIGTERM)
        assert rle(socket.click(420, 200)) == expected[2].rle["counts"]
        assert rle(socket.undo()) == expected[1].rle["counts"]


async def _ranked(addresses: str, image_id: str) -> list[str]:
    channels = Channels("decoder", addresses, Credentials())
    return [channels.pick(image_id, attempt)[1] for attempt in range(3)]


def test_a_reader_that_does_not_read_gets_the_newest(gateway: str, client: Client) -> None:
    with opened(gateway, binary=True) as socket:
        socket.ask(request_id="i", set_image={"image_id": "cup-ws"})
        count = 150
        for index in range(count):
            socket.send(
                request_id=str(index),
                speculative=True,
                masks_seen="0",
                segment=cup([{"add_point": {"x_px": 100 + index, "y_px": 200}}]),
            )
            time.sleep(0.01)
        time.sleep(1)
        answers: dict[str, pb.SegmentStreamResponse] = {}
        while len(answers) < count - 1:  # all but the newest, which waits until a mask was seen
            answer = socket.read()
            answers[answer.request_id] = answer
        masks = [name for name, answer in answers.items() if answer.HasField("result")]
        assert len(masks) == 2
        assert str(count - 1) not in answers
        socket.send(masks_seen="2")
        newest = socket.read()
        assert newest.request_id == str(count - 1)
        assert newest.HasField("result")


@pytest.mark.parametrize("good", [True, False])
def test_what_waits_is_bounded_in_bytes(stack: Stack, good: bool) -> None:
    """Large frames whose answers must wait, or wrong ones whose answers nobody reads: the socket is read no further
    than TCP takes their answers."""
    with running_gateway(stack) as (address, pid), opened(address, binary=good) as socket:
        socket.send(request_id="i", set_image={"image_id": "nobody yet", "wait_ms": 60_000})
        before, sent, most = resident_bytes(pid), 0, 40 if good else 500_000

        def send() -> None:
            nonlocal sent
            mask = pb.SegmentStreamRequest()
            mask.segment.prompts.add().mask.data = bytes(12_000_000)
            frame = mask.SerializeToString() if good else json.dumps({"x" * 100: 1})
            with contextlib.suppress(ConnectionClosed):
                for _ in range(most):
                    socket.connection.send(frame)
                    sent += 1

        sender = threading.Thread(target=send)
        sender.start()
        wait_until_still(lambda: sent, 3)
        grown = resident_bytes(pid) - before
        os.kill(pid, signal.SIGKILL)
        sender.join()
        assert grown < 100e6
        # TCP's own buffers, some MiB in each direction, take answers to 100,000 wrong frames and more before it stops.
        assert 0 < sent < (8 if good else most)


def test_floods_of_tiny_frames_end_it(gateway: str) -> None:
    request = pb.SegmentStreamRequest(request_id="a" * 100, set_image=pb.SetImage(image_id="nothing"))
    message = request.SerializeToString()
    with connect(f"ws{gateway[4:]}/v1/stream") as connection:
        connection.send(message[at : at + 1] for at in range(len(message)))
        answer = connection.recv(60)
        assert isinstance(answer, bytes)
        assert pb.SegmentStreamResponse.FromString(answer).request_id == request.request_id
        with pytest.raises(ConnectionClosed) as closed:
            connection.send(b"x" for _ in range(100_000))
        # What is still being sent when the gateway closes may reset the connection before its last frame is read.
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1008
    with connect(f"ws{gateway[4:]}/v1/stream") as connection, contextlib.suppress(ConnectionClosed):
        for _ in range(100_000):
            connection.ping()
        raise AssertionError("it is still open")


def test_who_may_open_one(stack: Stack, gateway: str) -> None:
    def refused(address: str, **options: Any) -> int:
        with pytest.raises(InvalidStatus) as caught, connect(f"{address.replace('http', 'ws')}/v1/stream", **options):
            pass
        return int(caught.value.response.status_code)

    assert refused(gateway, origin="https://other.example") == 403
    with opened(gateway, origin=gateway):
        pass
    options = ("--origins", "https://labels.example", "--max-sockets", "2", "--header-timeout-s", "1")
    with running_gateway(stack, *options) as (address, _):
        with opened(address, additional_headers={"Authorization": "Bearer one"}, origin="https://labels.example"):
            url = f"{address.replace('http', 'ws')}/v1/stream"
            with connect(url, subprotocols=["maskwire.v1", "maskwire.bearer.one"]) as connection:  # type: ignore[list-item]
                assert connection.subprotocol == "maskwire.v1"
                assert refused(address, additional_headers={"Authorization": "Bearer one"}) == 429
                time.sleep(1.5)  # it stays, although no request of HTTP follows
                connection.send("{}")
                assert "EMPTY_REQUEST" in str(connection.recv(10))
        assert "maskwire_gateway_websockets 0.0" in httpx.get(f"{address}/metrics").text


def test_an_image_that_left_the_store(stack: Stack, gateway: str, client: Client) -> None:
    """The caller has the picture, and the gateway has not: it is told, and goes on when it has sent it again."""
    data = np.random.default_rng().integers(0, 256, (40, 50, 3), np.uint8)
    client.embed(data, image_id="lost")
    with opened(gateway) as socket:
        socket.ask(set_image={"image_id": "lost"})
        before = socket.click(20, 20)
        client.delete("lost", embedding=True)
        # Decoders learn within a second of what was deleted. The session lives on.
        wait_until(lambda: socket.click(5, 5).error.code == 5)
        assert socket.ask(set_image={"image_id": "lost"}).error.code == 5
        client.embed(data, image_id="lost")
        assert socket.ask(set_image={"image_id": "lost"}).HasField("image_ready")
        assert rle(socket.ask(segment=cup(socket.steps[:1]))) == rle(before)


def test_errors_are_in_the_callers_words(gateway: str, client: Client) -> None:
    with opened(gateway) as socket:
        socket.ask(request_id="i", set_image={"image_id": "cup-ws"})
        for frame, field, said in (
            ({"segment": {"prompts": [{"pionts": []}]}}, "segment.prompts[0].pionts", "did you mean 'points'?"),
            (
                {"segment": {"points": [[900, 1]]}},
                "segment.points[0][0]",
                "900 is outside of the image, which is 600 px wide",
            ),
            ({"segment": {"steps": [{"add_point": [1, 900]}]}}, "segment.steps[0].add_point[1]", "400 px high"),
            (
                {"segment": {"steps": [{"set_box": [5, 5, 5]}]}},
                "segment.steps[0].set_box",
                "expected [x_min, y_min, x_max, y_max]",
            ),
            ({"speculativ": True}, "speculativ", "did you mean 'speculative'?"),
            ({"segment": {"steps": [{"clear": {"x": 1}}]}}, "segment.steps[0].clear.x", "no field 'x'"),
        ):
            socket.connection.send(json.dumps({"request_id": field, **frame}))
            answer = socket.read()
            assert (answer.request_id, answer.error.code) == (field, 3)
            (violation,) = json.loads(json_format.MessageToJson(answer.error))["details"][1]["fieldViolations"]
            assert violation["field"] == field
            assert said in answer.error.message
        socket.connection.send(json.dumps({"request_id": "short", "segment": {"steps": [{"add_point": [260, 130]}]}}))
        assert rle(socket.read()) == client.segment("cup-ws", points=[(260, 130)]).rle["counts"]
