"""Answers a SegmentStream: requests in, answers out, the newest prompt first."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from maskwire.v1 import decoder_pb2 as pb
from maskwire_core.call_context import current
from maskwire_core.errors import InvalidArgument, ServiceError
from maskwire_core.rpc.error_status import status_of
from maskwire_core.scheduling.scheduler import Demand
from maskwire_core.telemetry import tracing
from maskwire_core.telemetry.metrics import STREAM_ANSWERS

from maskwire_decoder.messages import (
    answer_message,
    image_message,
    parse_query,
    parse_query_aside,
    parse_reference,
    timings_message,
    trace_stages,
)
from maskwire_decoder.object_decoding import Plan
from maskwire_decoder.segmenter import FoundImage, ImageReference, Query, Segmenter, requester
from maskwire_decoder.stages import Answer, Timings

_MAX_WAITING = 256  # requests that are read ahead, and answers that wait to be sent
_MAX_WAITING_BYTES = 1 << 20  # of requests that are read ahead; one larger request is read all the same
_MAX_FETCHES = 2  # images that are fetched at the same time, while they wait for their turn
_MAX_UNSEEN = 2  # masks on the way to a caller that says what it has seen, while a speculative request waits


@dataclass(eq=False)
class _Request:
    """A request that waits."""

    message: pb.SegmentStreamRequest  # what was sent
    arrived: float  # when it came, by `time.perf_counter`
    nbytes: int  # size of the message on the wire
    fetch: asyncio.Task[pb.ImageReady] | None = None  # for set_image; its result does not hold the embedding


@dataclass(frozen=True)
class _Reply:
    """A response that is ready to be sent, and how many prompts were decoded for it."""

    response: pb.SegmentStreamResponse
    decodes: int = 0


class Session:
    """Answers one stream.

    One task reads, one works, and whoever iterates over `answer` sends. Requests are answered in order, one at a time,
    each after the previous mask has left: a slow reader holds up its own stream, and nothing piles up. Speculative
    requests share a slot; which of them is decoded is decided only when it is this stream's turn on a worker thread.

    Args:
        segmenter: Finds images and answers prompts.
        draining: Set when the caller should go on elsewhere.
    """

    def __init__(self, segmenter: Segmenter, draining: asyncio.Event) -> None:
        self._segmenter = segmenter
        self._draining = draining
        # The image, with the content key that its name stood for when it was set. The image itself is looked up for
        # each request, so that idle streams hold no embeddings.
        self._image: ImageReference | None = None
        self._trace = tracing.here()
        self._decodes = 0
        self._superseded = 0
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
        self._turn: asyncio.Task[_Reply | None] | None = None
        self._fetches = asyncio.Semaphore(_MAX_FETCHES)
        self._turns_ended = 0  # by requests that go before what was in the slot

    async def answer(self, requests: AsyncIterator[pb.SegmentStreamRequest]) -> AsyncIterator[pb.SegmentStreamResponse]:
        """Yields the answers to requests, until the requests end."""
        tasks = [asyncio.create_task(task) for task in (self._read(requests), self._work(), self._announce_drain())]
        try:
            while True:
                await self._changes.wait_for(lambda: bool(self._outbox) or self._work_ended)
                if not self._outbox:
                    break
                response = self._outbox.popleft()
                yield response
                self._unsent_masks -= response.HasField("result")
                self._changes.notify()
            await asyncio.gather(*tasks[:2])  # an error of these tasks is the stream's
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
                    self._accept(_Request(message, time.perf_counter(), message.ByteSize()))
                self._changes.notify()
                await self._changes.wait_for(self._may_read)
        finally:
            self._input_ended = True
            self._changes.notify()

    def _may_read(self) -> bool:
        # Answers that are not masks are as large as the names of their requests; of masks, one waits.
        waiting_bytes = sum(request.nbytes for request in self._waiting)
        waiting_bytes += sum(len(response.request_id) for response in self._outbox)
        return len(self._waiting) + len(self._outbox) < _MAX_WAITING and waiting_bytes < _MAX_WAITING_BYTES

    def _accept(self, request: _Request) -> None:
        try:
            current().caller.charge(requests=1, received_bytes=request.nbytes)
        except ServiceError as error:
            self._send_error(request, error)
            return
        if _may_be_dropped(request.message):
            with self._slot:
                replaced, self._newest = self._newest, request
            self._supersede(replaced, started=False)
            return
        with self._slot:
            waiting, started = self._newest, self._taken
            self._newest = self._taken = None
            self._turns_ended += 1
        self._supersede(waiting, started=False)
        self._supersede(started, started=True)
        if self._turn is not None:
            self._turn.cancel()
        if request.message.WhichOneof("request") == "set_image":
            request.fetch = asyncio.create_task(self._fetch(request))
            request.fetch.add_done_callback(_retrieve_error)
        self._waiting.append(request)

    def _supersede(self, request: _Request | None, *, started: bool) -> None:
        if request is not None:
            self._superseded += 1
            self._decodes += started
            response = _response(request)
            response.superseded.started = started
            self._send(response)

    # Working

    async def _work(self) -> None:
        try:
            while True:
                await self._changes.wait_for(self._may_work)
                if self._waiting:
                    await self._answer_next(self._waiting.popleft())
                elif self._newest is not None:
                    await self._answer_newest(self._newest)
                else:
                    return
        finally:
            self._work_ended = True
            self._changes.notify()

    def _may_work(self) -> bool:
        if self._unsent_masks:
            return False
        if self._newest is not None and not self._waiting:
            unseen = 0 if self._masks_seen is None else self._masks_sent - self._masks_seen
            return unseen < _MAX_UNSEEN or self._input_ended
        return bool(self._waiting) or self._input_ended

    async def _answer_next(self, request: _Request) -> None:
        self._changes.notify()  # there is room to read another request
        try:
            reply = await self._answer(request)
        except Exception as error:  # reported to the caller, whose stream lives on
            self._send_error(request, error)
        else:
            self._decodes += reply.decodes
            self._send(reply.response)

    async def _answer(self, request: _Request) -> _Reply:
        message = request.message
        if message.speculative:
            raise InvalidArgument(
                "NOT_SPECULATIVE", "only a request with a single prompt can be speculative", field="speculative"
            )
        match message.WhichOneof("request"):
            case "set_image":
                return await self._set_image(request)
            case "segment":
                return await self._segment(request)
            case _:
                raise InvalidArgument("EMPTY_REQUEST", "send set_image or segment", field="request")

    async def _set_image(self, request: _Request) -> _Reply:
        assert request.fetch is not None
        reference = parse_reference(request.message.set_image)
        self._image = None  # a failed change must not leave the prompts that follow on the old image
        ready = await request.fetch
        self._image = replace(reference, content_key=ready.image.content_key)
        ready.timings.total_ms = total_ms = _ms_since(request.arrived)
        response = _response(request)
        response.image_ready.CopyFrom(ready)
        tracing.ended([], self._trace, "set_image", total_ms / 1e3)
        return _Reply(response)

    async def _fetch(self, request: _Request) -> pb.ImageReady:
        reference = parse_reference(request.message.set_image)
        async with self._fetches:  # in the order of the requests
            found = await self._segmenter.find(reference)
        return pb.ImageReady(
            image=image_message(found.image, reference.image_id),
            timings=timings_message(found.timings, 0, found.in_memory),
        )

    async def _segment(self, request: _Request) -> _Reply:
        prompts, reference = request.message.segment, self._current_image()
        found = await self._segmenter.find(reference)
        query = await parse_query_aside(prompts, found.image, self._segmenter.limits)
        answer = await self._segmenter.segment(self, found.image, query)
        return self._reply(request, answer, found, reference)

    def _reply(self, request: _Request, answer: Answer, found: FoundImage, reference: ImageReference) -> _Reply:
        response, total_ms = _response(request), _ms_since(request.arrived)
        response.result.CopyFrom(answer_message(answer, found, reference.image_id, total_ms))
        tracing.ended(trace_stages(answer, found, total_ms), self._trace, "segment", total_ms / 1e3)
        return _Reply(response, answer.decodes)

    async def _answer_newest(self, request: _Request) -> None:
        """Answers what is in the slot when this stream's turn comes; `request` is in it now."""
        try:
            reference = self._current_image()
            found = await self._segmenter.find(reference)
            query = await parse_query_aside(request.message.segment, found.image, self._segmenter.limits)
            if self._waiting:
                return
            self._turn = asyncio.create_task(self._take_turn(found, reference, query))
            try:
                await asyncio.wait({self._turn})
            finally:
                turn, self._turn = self._turn, None
                turn.cancel()
            if turn.cancelled():  # a request that goes before has come, and has superseded what was in the slot
                return
            reply = turn.result()
        except Exception as error:
            with self._slot:
                if self._newest is not request:
                    return
                self._newest = None
            self._send_error(request, error)
            return
        with self._slot:
            taken, self._taken = self._taken, None
            if taken is not None and reply is None and self._newest is None:
                self._newest, taken = taken, None  # to be prepared first
        if reply is None:
            self._supersede(taken, started=False)
        elif taken is not None:
            self._decodes += reply.decodes
            self._send(reply.response)

    async def _take_turn(self, found: FoundImage, reference: ImageReference, query: Query) -> _Reply | None:
        turns_ended = self._turns_ended
        prepared = await self._segmenter.prepare(self, found.image, query)
        self._decodes += prepared.spent.decodes
        demand = Demand(requester(found.image, self), bulk=True)
        arguments = (found, reference, prepared, turns_ended)
        return (await self._segmenter.scheduler.run(demand, self._preview, *arguments)).result

    def _preview(self, found: FoundImage, reference: ImageReference, prepared: Plan, turns_ended: int) -> _Reply | None:
        """Takes what is in the slot, and decodes it unless it must be prepared. Runs on a worker thread, perhaps after
        the turn has ended: then what is in the slot is for another turn, and may be for another image."""
        with self._slot:
            if turns_ended != self._turns_ended:
                return None
            request, self._newest = self._newest, None
            self._taken = request
        if request is None:
            return None
        waited = Answer(timings=Timings(_ms_since(request.arrived)))
        try:
            query = parse_query(request.message.segment, found.image, self._segmenter.limits)
            answer = self._segmenter.preview(found.image, query, prepared, lambda: self._taken is request)
            return None if answer is None else self._reply(request, waited + answer, found, reference)
        except Exception as error:
            response = _response(request)
            response.error.CopyFrom(status_of(error))
            return _Reply(response)

    def _current_image(self) -> ImageReference:
        if self._image is None:
            raise InvalidArgument("NO_IMAGE", "no image is set; send set_image first", field="segment")
        return self._image

    # Sending

    def _send(self, response: pb.SegmentStreamResponse) -> None:
        is_mask = response.HasField("result")
        self._unsent_masks += is_mask
        self._masks_sent += is_mask
        STREAM_ANSWERS.labels(str(response.WhichOneof("outcome"))).inc()
        response.counters.decodes, response.counters.superseded = self._decodes, self._superseded
        self._outbox.append(response)
        self._changes.notify()

    def _send_error(self, request: _Request, error: Exception) -> None:
        response = _response(request)
        response.error.CopyFrom(status_of(error))
        self._send(response)

    async def _announce_drain(self) -> None:
        await self._draining.wait()
        response = pb.SegmentStreamResponse()
        response.reconnect.SetInParent()
        self._send(response)


class _Changes:
    """Lets tasks of one event loop wait until a condition on shared state holds. Unlike `asyncio.Condition`, it can be
    notified by code that does not await."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def notify(self) -> None:
        """Makes the waiting tasks check their conditions again."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Returns when the condition holds."""
        while not condition():
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future


def _retrieve_error(fetch: asyncio.Task[pb.ImageReady]) -> None:
    """Keeps asyncio from logging an error that is reported when the request's turn comes, or to nobody where the stream
    ends before."""
    if not fetch.cancelled():
        fetch.exception()


def _response(request: _Request) -> pb.SegmentStreamResponse:
    return pb.SegmentStreamResponse(request_id=request.message.request_id)


def _may_be_dropped(message: pb.SegmentStreamRequest) -> bool:
    return message.speculative and message.WhichOneof("request") == "segment" and len(message.segment.prompts) <= 1


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
