"""Streams by the generated stubs: while the mouse moves, when a reader is slow, and with wrong requests."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, types_pb2

from testing.processes import resident_bytes, wait_until
from testing.servers import Stack
from testing.wire import described, frames


class Wire:
    """A stream by the generated stubs, whose reader can be slow."""

    def __init__(self, address: str, read_every_s: float = 0) -> None:
        self._channel = grpc.insecure_channel(address)
        self._requests: queue.Queue[decoder_pb2.SegmentStreamRequest | None] = queue.Queue()
        stub = decoder_pb2_grpc.DecoderServiceStub(self._channel)
        self._call: Any = stub.SegmentStream(iter(self._requests.get, None))
        self.replies: dict[str, tuple[float, decoder_pb2.SegmentStreamResponse]] = {}
        self.order: list[str] = []
        self._acknowledges = bool(read_every_s)
        self._pause_s = read_every_s
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        seen = 0
        for reply in self._call:
            self.replies[reply.request_id] = (time.monotonic(), reply)
            self.order.append(reply.request_id)
            if self._acknowledges and reply.WhichOneof("outcome") in ("result", "object"):
                seen += 1
                self._requests.put(decoder_pb2.SegmentStreamRequest(masks_seen=seen))
                time.sleep(self._pause_s)

    def send(self, request_id: str, **fields: Any) -> None:
        if self._acknowledges and "masks_seen" not in fields and "set_image" in fields:
            fields["masks_seen"] = 0
        self._requests.put(decoder_pb2.SegmentStreamRequest(request_id=request_id, **fields))

    def click(self, request_id: str, x: float, y: float, label: int = 1, **fields: Any) -> None:
        point = types_pb2.Point(x_px=x, y_px=y, label=label)
        self.send(request_id, edit=decoder_pb2.EditObject(object_id="cup", add_point=point), **fields)

    def wait(self, request_id: str) -> decoder_pb2.SegmentStreamResponse:
        wait_until(lambda: request_id in self.replies, 30)
        return self.replies[request_id][1]

    def close(self) -> None:
        self._requests.put(None)
        self._reader.join(30)
        assert not self._reader.is_alive()
        self._channel.close()


@pytest.fixture
def wire(stack: Stack, photo: Path, encoder: Any) -> Iterator[Callable[..., Wire]]:
    """Opens streams on the photograph."""
    encoder.EncodeImage(frames(photo.read_bytes(), 1 << 20, image_id="hovered"))
    opened: list[Wire] = []

    def open_stream(**options: Any) -> Wire:
        opened.append(Wire(stack.decoder, **options))
        opened[-1].send("image", set_image=decoder_pb2.SetImage(image_id="hovered"))
        opened[-1].wait("image")
        return opened[-1]

    yield open_stream
    for each in opened:
        each.close()


@pytest.mark.flaky(reruns=2)  # its bounds are times
def test_a_click_after_200_hovers_comes_within_two_decodes(wire: Callable[..., Wire], stack: Stack) -> None:
    (pid,) = (pid for name, pid in stack.pids.items() if name.startswith("decoder"))
    stream = wire()
    stream.click("first", 260, 130)
    stream.wait("first")
    resident = []
    for sweep in range(3):
        before = stream.wait(f"click{sweep - 1}" if sweep else "first").counters
        for index in range(200):
            stream.click(f"hover{sweep}-{index}", 100 + index, 100, speculative=True)
            time.sleep(0.01)
        stream.click(f"click{sweep}", 300, 330, 0)
        answer = stream.wait(f"click{sweep}")
        hovers = [stream.wait(f"hover{sweep}-{index}") for index in range(200)]
        masks = [index for index, reply in enumerate(hovers) if reply.HasField("object")]
        dropped = [reply for reply in hovers if reply.HasField("superseded")]
        assert len(masks) + len(dropped) == 200
        assert len(dropped) > 20
        # What was dropped was not decoded, except what ran when the click came.
        abandoned = sum(reply.superseded.started for reply in dropped)
        assert abandoned <= 1
        assert answer.counters.decodes - before.decodes == len(masks) + abandoned + 1
        assert answer.counters.superseded - before.superseded == len(dropped)
        # From when the click came: what ran then, and the click itself.
        assert answer.counters.decodes - hovers[-1].counters.decodes <= 2
        assert stream.order.index(f"click{sweep}") > stream.order.index(f"hover{sweep}-199")
        # The reply to a dropped hover tells how many decodes there had been when the next one came, whose mask takes
        # what ran then and its own.
        for index in masks:
            if index and hovers[index - 1].HasField("superseded"):
                assert hovers[index].counters.decodes - hovers[index - 1].counters.decodes <= 2
        places = [stream.order.index(f"hover{sweep}-{index}") for index in masks]
        assert places == sorted(places)
        assert answer.object.undo_steps == sweep + 2
        resident.append(resident_bytes(pid))
    assert resident[-1] - resident[0] < 30e6


def test_a_slow_reader_gets_the_newest_mask(wire: Callable[..., Wire]) -> None:
    stream = wire(read_every_s=0.3)
    for index in range(150):
        stream.click(str(index), 100 + index, 100, speculative=True)
        time.sleep(0.01)
    sent_until = time.monotonic()
    stream.wait("149")
    masks = [int(name) for name in stream.order if name != "image" and stream.replies[name][1].HasField("object")]
    assert masks[-1] == 149  # the last one is not lost
    assert stream.replies["149"][0] - sent_until < 3
    # Not one after another, as a backlog would be: it reads about three a second, while the mouse moves on by thirty.
    assert len(masks) < 20
    assert stream.replies["149"][1].counters.decodes == len(masks)


def test_what_cannot_be_speculative_is_refused(wire: Callable[..., Wire]) -> None:
    stream = wire()
    stream.send("undo", edit=decoder_pb2.EditObject(object_id="cup", undo={}), speculative=True)
    many = decoder_pb2.StreamPrompts(prompts=[types_pb2.Prompt()] * 2)
    stream.send("many", segment=many, speculative=True)
    for name in ("undo", "many"):
        assert described(stream.wait(name).error) == ("NOT_SPECULATIVE", "speculative")
    one = decoder_pb2.StreamPrompts(prompts=[types_pb2.Prompt(points=[types_pb2.Point(x_px=9, y_px=9)])])
    stream.send("one", segment=one, speculative=True)
    stream.send("seen", segment=one)
    assert stream.wait("seen").result.results[0].masks[0].rle.counts
    assert stream.wait("one").WhichOneof("outcome") in ("result", "superseded")


@pytest.mark.parametrize(
    ("edit", "reason", "field"),
    [
        ({"object_id": "", "add_point": {"x_px": 1, "y_px": 1}}, "BAD_OBJECT_ID", "edit.object_id"),
        ({"object_id": "x" * 257, "add_point": {"x_px": 1, "y_px": 1}}, "BAD_OBJECT_ID", "edit.object_id"),
        ({"object_id": "new", "undo": {}}, "NO_OBJECT", "edit.object_id"),
        ({"object_id": "new"}, "EMPTY_REQUEST", "edit"),
        ({"object_id": "cup", "redo": {}}, "NOTHING_TO_REDO", "edit.redo"),
        ({"object_id": "cup", "remove_point": 7}, "NO_SUCH_POINT", "edit.remove_point"),
        ({"object_id": "cup", "add_point": {"x_px": float("nan")}}, "OUT_OF_IMAGE", "edit.add_point.x_px"),
        ({"object_id": "cup", "add_point": {"label": 3}}, "BAD_LABEL", "edit.add_point.label"),
        ({"object_id": "cup", "set_box": {"x_max_px": 700, "y_max_px": 9}}, "OUT_OF_IMAGE", "edit.set_box.x_max_px"),
        ({"object_id": "cup", "set_box": {}}, "EMPTY_BOX", "edit.set_box"),
    ],
)
def test_a_wrong_change_changes_nothing(
    wire: Callable[..., Wire], edit: dict[str, Any], reason: str, field: str
) -> None:
    stream = wire()
    stream.click("before", 260, 130)
    stream.send("wrong", edit=decoder_pb2.EditObject(**edit))
    stream.click("after", 300, 330, 0)
    assert described(stream.wait("wrong").error) == (reason, field)
    assert stream.wait("after").object.undo_steps == 2
    assert len(stream.wait("after").object.prompt.points) == 2
