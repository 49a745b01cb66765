"""Streams by the generated stubs: while the mouse moves, when a reader is slow, and with wrong requests."""

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, types_pb2

from testing.processes import resident_bytes, wait_until, wait_until_still
from testing.servers import Stack
from testing.time_bounds import assert_within
from testing.wire import described, failing, frames


def asked(steps: list[types_pb2.Step]) -> decoder_pb2.StreamPrompts:
    """One object."""
    return decoder_pb2.StreamPrompts(prompts=[types_pb2.Prompt(prompt_id="cup", steps=steps)])


class Wire:
    """A stream by the generated stubs, whose reader can be slow."""

    def __init__(self, address: str, read_every_s: float = 0) -> None:
        self._channel = grpc.insecure_channel(address)
        self._requests: queue.Queue[decoder_pb2.SegmentStreamRequest | None] = queue.Queue()
        stub = decoder_pb2_grpc.DecoderServiceStub(self._channel)
        self._call: Any = stub.SegmentStream(iter(self._requests.get, None))
        self.replies: dict[str, tuple[float, decoder_pb2.SegmentStreamResponse]] = {}
        self.order: list[str] = []
        self.steps: list[types_pb2.Step] = []
        self._acknowledges = bool(read_every_s)
        self._pause_s = read_every_s
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        seen = 0
        for reply in self._call:
            self.replies[reply.request_id] = (time.monotonic(), reply)
            self.order.append(reply.request_id)
            if self._acknowledges and reply.HasField("result"):
                seen += 1
                self._requests.put(decoder_pb2.SegmentStreamRequest(masks_seen=seen))
                time.sleep(self._pause_s)

    def send(self, request_id: str, **fields: Any) -> None:
        if self._acknowledges and "masks_seen" not in fields and "set_image" in fields:
            fields["masks_seen"] = 0
        self._requests.put(decoder_pb2.SegmentStreamRequest(request_id=request_id, **fields))

    def click(self, request_id: str, x: float, y: float, label: int = 1, **fields: Any) -> None:
        """Adds a click to the steps of the object, unless it is speculative, and sends them."""
        steps = [*self.steps, types_pb2.Step(add_point=types_pb2.Point(x_px=x, y_px=y, label=label))]
        if not fields.get("speculative"):
            self.steps = steps
        self.send(request_id, segment=asked(steps), **fields)

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


def test_a_click_after_200_hovers_comes_within_two_decodes(wire: Callable[..., Wire], stack: Stack) -> None:
    pid = stack.pids["decoder"]
    stream = wire()
    shift = random.random()  # clicks that nobody made before: the decoder remembers those of other tests
    stream.click("first", 260 + shift, 130)
    stream.wait("first")
    resident = []
    for sweep in range(3):
        before = stream.wait(f"click{sweep - 1}" if sweep else "first").counters
        for index in range(200):
            stream.click(f"hover{sweep}-{index}", 100 + index, 100, speculative=True)
            time.sleep(0.002)  # faster than any processor decodes
        stream.click(f"click{sweep}", 300, 330, 0)
        answer = stream.wait(f"click{sweep}")
        hovers = [stream.wait(f"hover{sweep}-{index}") for index in range(200)]
        masks = [index for index, reply in enumerate(hovers) if reply.HasField("result")]
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
        assert answer.result.results[0].prompt_id == "cup"
        resident.append(resident_bytes(pid))
    assert resident[-1] - resident[0] < 30e6


def test_a_hover_right_after_a_click_is_answered(wire: Callable[..., Wire]) -> None:
    """Also if the worker thread that was to decode the hover before the click starts only now."""
    stream = wire()
    for index in range(150):
        stream.click(f"before{index}", 100 + index, 100, speculative=True)
        time.sleep(index % 5 * 0.001)
        stream.send(f"click{index}", segment=asked([types_pb2.Step(add_point=types_pb2.Point(x_px=9, y_px=index))]))
        stream.click(f"after{index}", 100 + index, 200, speculative=True)
        for name in (f"before{index}", f"click{index}", f"after{index}"):
            stream.wait(name)


def test_a_click_does_not_wait_for_the_steps_that_a_hover_needs(wire: Callable[..., Wire]) -> None:
    stream = wire()
    steps = [types_pb2.Step(add_point=types_pb2.Point(x_px=7 + index, y_px=77)) for index in range(200)]
    stream.send("hover", segment=asked(steps), speculative=True)
    time.sleep(0.1)
    stream.send("click", segment=asked([types_pb2.Step(add_point=types_pb2.Point(x_px=7, y_px=78))]))
    assert stream.wait("click").counters.decodes < 50
    assert stream.wait("hover").HasField("superseded")


def test_names_of_requests_whose_answers_are_not_read_fill_no_memory(stack: Stack) -> None:
    pid = stack.pids["decoder"]
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    enough, taken = threading.Event(), 0

    def requests() -> Iterator[decoder_pb2.SegmentStreamRequest]:
        nonlocal taken
        for _ in range(60):
            taken += 1
            segment = decoder_pb2.StreamPrompts(prompts=[types_pb2.Prompt()])
            yield decoder_pb2.SegmentStreamRequest(request_id="x" * (8 << 20), segment=segment, speculative=True)
        enough.wait(30)

    before = resident_bytes(pid)
    with grpc.insecure_channel(stack.decoder, options) as channel:
        call: Any = decoder_pb2_grpc.DecoderServiceStub(channel).SegmentStream(requests())
        wait_until_still(lambda: taken, 1)  # until the decoder takes no more of them
        assert resident_bytes(pid) - before < 200e6
        call.cancel()
        enough.set()


@pytest.mark.time_bound
def test_a_slow_reader_gets_the_newest_mask(wire: Callable[..., Wire]) -> None:
    stream = wire(read_every_s=0.3)
    for index in range(150):
        stream.click(str(index), 100 + index, 100, speculative=True)
        time.sleep(0.01)
    sent_until = time.monotonic()
    stream.wait("149")
    masks = [int(name) for name in stream.order if name != "image" and stream.replies[name][1].HasField("result")]
    assert masks[-1] == 149  # the last one is not lost
    # Not one after another, as a backlog would be: it reads about three a second, while the mouse moves on by thirty.
    assert len(masks) < 20
    assert stream.replies["149"][1].counters.decodes == len(masks)
    assert_within(stream.replies["149"][0] - sent_until, 3)


def test_what_cannot_be_speculative_is_refused(wire: Callable[..., Wire]) -> None:
    stream = wire()
    stream.send("again", set_image=decoder_pb2.SetImage(image_id="hovered"), speculative=True)
    many = decoder_pb2.StreamPrompts(prompts=[types_pb2.Prompt()] * 2)
    stream.send("many", segment=many, speculative=True)
    for name in ("again", "many"):
        assert described(stream.wait(name).error) == ("NOT_SPECULATIVE", "speculative")
    one = decoder_pb2.StreamPrompts(prompts=[types_pb2.Prompt(points=[types_pb2.Point(x_px=9, y_px=9)])])
    stream.send("one", segment=one, speculative=True)
    stream.send("seen", segment=one)
    assert stream.wait("seen").result.results[0].masks[0].rle.counts
    assert stream.wait("one").WhichOneof("outcome") in ("result", "superseded")


CLICK: Any = {"add_point": {"x_px": 260, "y_px": 130}}


@pytest.mark.parametrize(
    ("steps", "reason", "field"),
    [
        ([CLICK, {}], "EMPTY_STEP", "steps[1]"),
        ([CLICK, {"remove_point": 7}], "NO_SUCH_POINT", "steps[1].remove_point"),
        ([CLICK, {"add_point": {"x_px": float("nan")}}], "OUT_OF_IMAGE", "steps[1].add_point.x_px"),
        ([{"add_point": {"label": 3}}], "BAD_LABEL", "steps[0].add_point.label"),
        ([{"set_box": {"x_max_px": 700, "y_max_px": 9}}], "OUT_OF_IMAGE", "steps[0].set_box.x_max_px"),
        ([CLICK, {"set_box": {}}], "EMPTY_BOX", "steps[1].set_box"),
        ([CLICK] * 257, "TOO_MANY_POINTS", "steps[256].add_point"),
        ([CLICK, {"clear": {}}] * 501, "TOO_MANY_STEPS", "steps"),
        ([CLICK, {"clear": {}}], "NO_PROMPTS", "steps"),
    ],
)
def test_wrong_steps_are_refused_and_the_stream_lives_on(
    wire: Callable[..., Wire], decoder: Any, steps: list[Any], reason: str, field: str
) -> None:
    stream = wire()
    stream.click("before", 260, 130)
    wrong = asked([types_pb2.Step(**step) for step in steps])
    stream.send("wrong", segment=wrong)
    stream.click("after", 300, 330, 0)
    assert described(stream.wait("wrong").error) == (reason, f"prompts[0].{field}")
    assert stream.wait("after").result.results[0].masks[0].rle.counts
    unary = decoder_pb2.SegmentRequest(image_id="hovered", prompts=wrong.prompts)
    assert failing(lambda: decoder.Segment(unary)) == ("INVALID_ARGUMENT", reason, f"prompts[0].{field}")


def test_steps_are_not_mixed_with_other_prompts(wire: Callable[..., Wire]) -> None:
    stream = wire()
    mixed = types_pb2.Prompt(steps=[types_pb2.Step(**CLICK)], box={"x_max_px": 9, "y_max_px": 9})
    stream.send("mixed", segment=decoder_pb2.StreamPrompts(prompts=[mixed]))
    assert described(stream.wait("mixed").error) == ("STEPS_AND_PROMPTS", "prompts[0].steps")
    output = types_pb2.OutputOptions(multimask=True)
    prompts = [types_pb2.Prompt(), types_pb2.Prompt(steps=[types_pb2.Step(**CLICK)])]
    stream.send("output", segment=decoder_pb2.StreamPrompts(prompts=prompts, output=output))
    assert described(stream.wait("output").error) == ("STEPS_AND_PROMPTS", "output.multimask")
