"""A SegmentStream: requests in, answers out, the newest prompt first."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from maskwire.v1 import decoder_pb2 as pb
from maskwire_core.errors import InvalidArgument, ServiceError
from maskwire_core.rpc.error_status import status_of
from maskwire_core.telemetry import tracing
from maskwire_core.telemetry.metrics import STREAM_ANSWERS
from maskwire_core.tenancy import tenant

from maskwire_decoder.images import Image
from maskwire_decoder.segmenter import Segmenter, stages
from maskwire_decoder.sessions.scene import Scene

_MAX_WAITING = 256  # requests that are read ahead, and answers that wait to be sent
_MAX_UNSEEN = 2  # masks on the way to a caller that says what it has seen, while a speculative one waits
_MASKS = ("result", "object")


@dataclass(eq=False)
class _Request:
    """A request that waits; for set_image with its embedding being fetched, and the answer's timings."""

    message: pb.SegmentStreamRequest
    arrived: float
    fetch: asyncio.Task[Image] | None = None
    timings: pb.SegmentTimings = field(default_factory=pb.SegmentTimings)


class Session:
    """Answers one stream.

    One task reads, one works, and whoever iterates over `answer` sends. Requests are worked off in order, one at a
    time, each after the mask before has left: a slow reader holds up its own session, and nothing piles up. Speculative
    requests share a slot; which of them is decoded shows only when it is this session's turn on a worker thread.

    Args:
        segmenter: Images and worker threads.
        max_bytes: Of logits that are kept for the objects.
        draining: Set when the caller is to go on elsewhere.
    """

    def __init__(self, segmenter: Segmenter, max_bytes: int, draining: asyncio.Event) -> None:
        self._segmenter = segmenter
        self._max_bytes = max_bytes
        self._draining = draining
        self._scene: Scene | None = None
        self._trace = tracing.here()
        self._counters = pb.StreamCounters()
        self._changes = _Changes()
        self._waiting: deque[_Request] = deque()
        self._outbox: deque[pb.SegmentStreamResponse] = deque()
        self._unsent_masks = 0
        self._masks_sent = 0
        self._masks_seen: int | None = None
        self._input_ended = False
        self._work_ended = False
        self._slot = threading.Lock()
        self._newest: _Request | None = None  # the slot
        self._taken: _Request | None = None  # what was in it when the turn came, until it is answered
        self._turn: asyncio.Task[tuple[pb.SegmentStreamResponse | None, float]] | None = None

    async def answer(self, requests: AsyncIterator[pb.SegmentStreamRequest]) -> AsyncIterator[pb.SegmentStreamResponse]:
        """Answers requests until they end."""
        tasks = [asyncio.create_task(task) for task in (self._read(requests), self._work(), self._announce_drain())]
        try:
            while True:
                await self._changes.until(lambda: bool(self._outbox) or self._work_ended)
                if not self._outbox:
                    break
                response = self._outbox.popleft()
                yield response
                self._unsent_masks -= response.WhichOneof("outcome") in _MASKS
                self._changes.tell()
            await asyncio.gather(*tasks[:2])  # an error of theirs is the stream's
        finally:
            for task in tasks:
                task.cancel()
            for request in self._waiting:
                if request.fetch is not None:
                    request.fetch.cancel()

    # Reading

    async def _read(self, requests: AsyncIterator[pb.SegmentStreamRequest]) -> None:
        try:
            async for message in requests:
                if message.HasField("masks_seen"):
                    self._masks_seen = message.masks_seen
                if message.WhichOneof("request") is not None or not message.HasField("masks_seen"):
                    self._charge_and_accept(_Request(message, time.perf_counter()))
                self._changes.tell()
                await self._changes.until(lambda: len(self._waiting) + len(self._outbox) < _MAX_WAITING)
        finally:
            self._input_ended = True
            self._changes.tell()

    def _charge_and_accept(self, request: _Request) -> None:
        try:
            tenant.current().charge(requests=1, received_bytes=request.message.ByteSize())
        except ServiceError as error:  # told to the caller, whose stream lives on
            response = _response(request)
            response.error.CopyFrom(status_of(error))
            self._send(response)
        else:
            self._accept(request)

    def _accept(self, request: _Request) -> None:
        if _may_be_dropped(request.message):
            with self._slot:
                replaced, self._newest = self._newest, request
            self._supersede(replaced, started=False)
            return
        with self._slot:
            waiting, started = self._newest, self._taken
            self._newest = self._taken = None
        self._supersede(waiting, started=False)
        self._supersede(started, started=True)
        if self._turn is not None:
            self._turn.cancel()
        if request.message.WhichOneof("request") == "set_image":
            request.fetch = asyncio.create_task(self._segmenter.find(request.message.set_image, request.timings))
            request.fetch.add_done_callback(_noticed)
        self._waiting.append(request)

    def _supersede(self, request: _Request | None, *, started: bool) -> None:
        if request is not None:
            self._counters.superseded += 1
            self._counters.decodes += started
            response = _response(request)
            response.superseded.started = started
            self._send(response)

    # Working

    async def _work(self) -> None:
        try:
            while True:
                await self._changes.until(self._may_work)
                if self._waiting:
                    await self._answer_next(self._waiting.popleft())
                elif self._newest is not None:
                    await self._answer_newest(self._newest)
                else:
                    return
        finally:
            self._work_ended = True
            self._changes.tell()

    def _may_work(self) -> bool:
        if self._unsent_masks:
            return False
        if self._newest is not None and not self._waiting:
            unseen = 0 if self._masks_seen is None else self._masks_sent - self._masks_seen
            return unseen < _MAX_UNSEEN or self._input_ended
        return bool(self._waiting) or self._input_ended

    async def _answer_next(self, request: _Request) -> None:
        response = _response(request)
        try:
            await self._fill_in(request, response)
        except Exception as error:  # told to the caller, whose stream lives on
            response.error.CopyFrom(status_of(error))
        self._send(response)

    async def _fill_in(self, request: _Request, response: pb.SegmentStreamResponse) -> None:
        message = request.message
        if message.speculative:
            raise InvalidArgument(
                "NOT_SPECULATIVE", "only a single prompt, add_point and set_box can be speculative", field="speculative"
            )
        match message.WhichOneof("request"):
            case "set_image":
                assert request.fetch is not None
                self._scene = None  # a failed change must not leave the prompts that follow on the old image
                image = await request.fetch
                self._scene = Scene(self._segmenter, self, message.set_image, image, self._max_bytes, self._counters)
                response.image_ready.image.CopyFrom(self._scene.describe(image))
                response.image_ready.timings.CopyFrom(request.timings)
            case "segment":
                await self._set_scene("segment").segment(message.segment, response.result)
            case "edit":
                await self._set_scene("edit").edit(message.edit, response.object)
            case "restore":
                self._set_scene("restore").restore(message.restore, response.object)
            case _:
                raise InvalidArgument("EMPTY_REQUEST", "send set_image, segment, edit or restore", field="request")
        _stop_the_clock(request, response, self._trace)

    async def _answer_newest(self, request: _Request) -> None:
        """Answers what is in the slot when this session's turn comes; `request` is in it now."""
        try:
            scene, timings = self._set_scene(str(request.message.WhichOneof("request"))), pb.SegmentTimings()
            image = await scene.prepare(request.message, timings)
            if self._waiting:
                return
            self._turn = asyncio.create_task(
                self._segmenter.turns.run(self, False, self._preview, scene, image, timings)
            )
            try:
                await asyncio.wait({self._turn})
            finally:
                turn, self._turn = self._turn, None
                turn.cancel()
            if turn.cancelled():  # something came that goes before, and has superseded what was in the slot
                return
            response, _ = turn.result()
        except Exception as error:
            with self._slot:
                if self._newest is not request:
                    return
                self._newest = None
            response = _response(request)
            response.error.CopyFrom(status_of(error))
            self._send(response)
            return
        with self._slot:
            taken, self._taken = self._taken, None
            if taken is not None and response is None and self._newest is None:
                self._newest, taken = taken, None  # to be prepared first
        if response is None:
            self._supersede(taken, started=False)
        elif taken is not None:
            self._counters.decodes += response.HasField("result") or response.HasField("object")
            self._send(response)

    def _preview(self, scene: Scene, image: Image, timings: pb.SegmentTimings) -> pb.SegmentStreamResponse | None:
        """Takes what is in the slot, and decodes it unless it must be prepared. Runs on a worker thread."""
        with self._slot:
            request, self._newest = self._newest, None
            self._taken = request
        if request is None:
            return None
        timings.queue_ms = _ms_since(request.arrived)
        response = _response(request)
        try:
            if not scene.preview(image, request.message, response, timings, lambda: self._taken is request):
                return None
            _stop_the_clock(request, response, self._trace)
        except Exception as error:
            response.error.CopyFrom(status_of(error))
        return response

    def _set_scene(self, field: str) -> Scene:
        if self._scene is None:
            raise InvalidArgument("NO_IMAGE", "no image is set; send set_image first", field=field)
        return self._scene

    # Sending

    def _send(self, response: pb.SegmentStreamResponse) -> None:
        masks = response.WhichOneof("outcome") in _MASKS
        self._unsent_masks += masks
        self._masks_sent += masks
        STREAM_ANSWERS.labels(str(response.WhichOneof("outcome"))).inc()
        response.counters.CopyFrom(self._counters)
        self._outbox.append(response)
        self._changes.tell()

    async def _announce_drain(self) -> None:
        await self._draining.wait()
        response = pb.SegmentStreamResponse()
        response.reconnect.SetInParent()
        self._send(response)


class _Changes:
    """Lets tasks wait until something is true of what they share."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def tell(self) -> None:
        """Something has changed."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future


def _noticed(fetch: asyncio.Task[Image]) -> None:
    """Its error is told when its turn comes; where the stream ends before, nobody is left to be told."""
    if not fetch.cancelled():
        fetch.exception()


def _response(request: _Request) -> pb.SegmentStreamResponse:
    return pb.SegmentStreamResponse(request_id=request.message.request_id)


def _may_be_dropped(message: pb.SegmentStreamRequest) -> bool:
    if not message.speculative:
        return False
    if message.WhichOneof("request") == "segment":
        return len(message.segment.prompts) <= 1
    return message.edit.WhichOneof("change") in ("add_point", "set_box")


def _stop_the_clock(request: _Request, response: pb.SegmentStreamResponse, trace: Any) -> None:
    match response.WhichOneof("outcome"):
        case "image_ready":
            timings = response.image_ready.timings
        case "object":
            timings = response.object.result.timings
        case _:
            timings = response.result.timings
    timings.total_ms = _ms_since(request.arrived)
    kind = str(request.message.WhichOneof("request"))
    ran = [] if kind == "set_image" else stages(timings, len(request.message.segment.prompts))
    tracing.ended(ran, trace, kind, timings.total_ms / 1e3)


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
