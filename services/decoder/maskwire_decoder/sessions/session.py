"""Answers a SegmentStream: requests in, answers out, the newest prompt first."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.empty_pb2 import Empty
from maskwire.v1 import decoder_pb2 as pb
from maskwire_core import names
from maskwire_core.call_context import current
from maskwire_core.errors import InvalidArgument, ServiceError
from maskwire_core.masks.answer_room import AnswerRoom
from maskwire_core.rpc.error_status import status_of
from maskwire_core.scheduling.changes import Changes
from maskwire_core.telemetry import tracing
from maskwire_core.telemetry.metrics import STREAM_ANSWERS

from maskwire_decoder.images import Image
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
from maskwire_decoder.segmenter import FoundImage, ImageReference, Query, Segmenter, demand_for
from maskwire_decoder.sessions.outbox import Outbox
from maskwire_decoder.sessions.speculative_slot import SpeculativeSlot
from maskwire_decoder.stages import Answer, Timings

_MAX_WAITING = 256  # requests that are read ahead, and answers that wait to be sent
_MAX_WAITING_BYTES = 1 << 20  # of requests that are read ahead; one larger request is read all the same
_LOOK_S = 0.1  # from one look for memory to the next, if nothing changes here
_MAX_FETCHES = 2  # images that are fetched at the same time, while they wait for their turn
_MAX_UNSEEN = 2  # masks on the way to a caller that says what it has seen, while a speculative request waits


@dataclass(eq=False)
class _Request:
    """A request that waits."""

    message: pb.SegmentStreamRequest  # what was sent
    arrived: float  # when it came, by `time.perf_counter`
    nbytes: int  # size of the message on the wire
    memory: int  # bytes of memory that it takes
    fetch: asyncio.Task[pb.ImageReady] | None = None  # for set_image; its result does not hold the embedding


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
        self._changes = Changes()
        self._waiting: deque[_Request] = deque()
        self._outbox = Outbox()
        self._memory = current().memory.another()  # what is read ahead, and answers without masks
        self._answer_memory = current().memory  # the answer with masks, of which there is one at a time
        self._reader: asyncio.Task[None] | None = None
        self._slot: SpeculativeSlot[_Request] = SpeculativeSlot()
        self._turn: asyncio.Task[None] | None = None
        self._fetches = asyncio.Semaphore(_MAX_FETCHES)

    async def answer(self, requests: AsyncIterator[pb.SegmentStreamRequest]) -> AsyncIterator[pb.SegmentStreamResponse]:
        """Yields the answers to requests, until the requests end."""
        tasks = [asyncio.create_task(task) for task in (self._read(requests), self._work(), self._announce_drain())]
        self._reader, worker, _ = tasks
        for task in tasks:
            task.add_done_callback(lambda _: self._notify())
        try:
            while True:
                await self._changes.until(lambda: bool(self._outbox) or worker.done())
                if not self._outbox:
                    break
                response = self._outbox.pop()
                yield response
                self._outbox.sent(response)
                if response.HasField("result"):
                    self._forget_masks()
                self._notify()
            await asyncio.gather(*tasks[:2])  # an error of these tasks is the stream's
        finally:
            self._memory.close()
            for task in tasks:
                task.cancel()
            for request in self._waiting:
                if request.fetch is not None:
                    request.fetch.cancel()

    def _notify(self) -> None:
        """Makes the tasks that wait check their conditions again. Gives back memory of what is not kept any more."""
        surplus = self._memory.nbytes - self._kept_bytes()
        if surplus > 0:
            self._memory.give_back(surplus)
        self._changes.notify()

    def _kept_bytes(self) -> int:
        """Memory of the requests that wait and of the answers without masks that are not sent."""
        requests = [*self._waiting, *self._slot.requests]
        return sum(request.memory for request in requests) + self._outbox.unsent_bytes

    # Requests

    async def _read(self, requests: AsyncIterator[pb.SegmentStreamRequest]) -> None:
        async for message in requests:
            request = _Request(message, time.perf_counter(), message.ByteSize(), current().arriving.nbytes)
            says_seen = message.HasField("masks_seen")
            is_free = says_seen and self._outbox.acknowledge(message.masks_seen)
            is_request = message.WhichOneof("request") is not None or not says_seen
            try:
                current().caller.charge(requests=is_request or not is_free, received_bytes=request.nbytes)
                names.request_id(message.request_id)
            except ServiceError as error:
                self._send_error(request, error)
            else:
                if is_request:
                    self._accept(request)
            self._notify()
            await self._changes.until(self._may_read)
            await self._take_memory()

    async def _take_memory(self) -> None:
        """Takes memory for what is kept. While there is none, nothing is read, and less may be kept meanwhile."""
        while (wanted := self._kept_bytes() - self._memory.nbytes) > 0 and not self._memory.try_take(wanted):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._changes.next()

    def _may_read(self) -> bool:
        # Answers that are not masks are as large as the names of their requests; of masks, one waits.
        waiting_bytes = sum(request.nbytes for request in self._waiting) + self._outbox.names_bytes
        return len(self._waiting) + len(self._outbox) < _MAX_WAITING and waiting_bytes < _MAX_WAITING_BYTES

    def _accept(self, request: _Request) -> None:
        kind = request.message.WhichOneof("request")
        if request.message.speculative and kind == "segment" and len(request.message.segment.prompts) <= 1:
            self._supersede(self._slot.put(request), started=False)
            return
        waiting, started = self._slot.end_turn()
        self._supersede(waiting, started=False)
        self._supersede(started, started=True)
        if self._turn is not None:
            self._turn.cancel()
        if kind == "set_image":
            request.fetch = asyncio.create_task(self._fetch(request))
            # Its error is reported when its turn comes, or to nobody where the stream ends before: asyncio need not.
            request.fetch.add_done_callback(lambda fetch: fetch.cancelled() or fetch.exception())
        self._waiting.append(request)

    def _supersede(self, request: _Request | None, *, started: bool) -> None:
        if request is not None:
            self._superseded += 1
            self._decodes += started
            self._send(request.message.request_id, superseded=pb.Superseded(started=started))

    # Answers

    async def _work(self) -> None:
        while True:
            await self._changes.until(self._may_work)
            if self._waiting:
                await self._answer_next(self._waiting.popleft())
            elif (newest := self._slot.newest) is not None:
                self._turn = asyncio.create_task(self._answer_newest(newest))
                await asyncio.gather(self._turn, return_exceptions=True)  # what goes before it cancels it
            else:
                return

    def _may_work(self) -> bool:
        if self._outbox.has_mask:
            return False
        input_ended = self._reader is not None and self._reader.done()
        if self._slot.newest is not None and not self._waiting:
            return self._outbox.unseen < _MAX_UNSEEN or input_ended
        return bool(self._waiting) or input_ended

    async def _answer_next(self, request: _Request) -> None:
        self._notify()  # there is room to read another request
        message = request.message
        try:
            if message.speculative:
                raise InvalidArgument(
                    "NOT_SPECULATIVE", "only a request with a single prompt can be speculative", field="speculative"
                )
            match message.WhichOneof("request"):
                case "set_image":
                    await self._set_image(request)
                case "segment":
                    found, query = await self._parse(request)
                    answer = await self._segmenter.segment(self, found.image, query)
                    self._send_masks(request, answer, found)
                case _:
                    raise InvalidArgument("EMPTY_REQUEST", "send set_image or segment", field="request")
        except Exception as error:  # reported to the caller, whose stream lives on
            self._forget_masks()
            self._send_error(request, error)

    async def _set_image(self, request: _Request) -> None:
        assert request.fetch is not None
        self._image = None  # a failed change must not leave the prompts that follow on the old image
        ready = await request.fetch
        reference = parse_reference(request.message.set_image)
        self._image = replace(reference, content_key=ready.image.content_key)
        ready.timings.total_ms = total_ms = _ms_since(request.arrived)
        tracing.ended([], self._trace, "set_image", total_ms / 1e3)
        self._send(request.message.request_id, image_ready=ready)

    async def _fetch(self, request: _Request) -> pb.ImageReady:
        async with self._fetches:  # in the order of the requests
            found = await self._segmenter.find(parse_reference(request.message.set_image))
        return pb.ImageReady(image=image_message(found), timings=timings_message(found.timings, 0, found.in_memory))

    async def _parse(self, request: _Request) -> tuple[FoundImage, Query]:
        if self._image is None:
            raise InvalidArgument("NO_IMAGE", "no image is set; send set_image first", field="segment")
        found = await self._segmenter.find(self._image)
        return found, await parse_query_aside(request.message.segment, found.image, self._segmenter, self)

    async def _answer_newest(self, request: _Request) -> None:
        """Answers what is in the slot when this stream's turn comes; `request` is in it now."""
        try:
            found, query = await self._parse(request)
            prepared = await self._segmenter.prepare(self, found.image, query)
            self._decodes += prepared.spent.decodes
            demand = demand_for(found.image, self, bulk=True)
            answer, _ = await self._segmenter.scheduler.run(
                demand, self._preview, found.image, prepared, self._slot.turns_ended
            )
        except Exception as error:
            failed = self._slot.fail(request)
            self._forget_masks()
            if failed is not None:
                self._send_error(failed, error)
            return
        if answer is None:  # what was taken must be prepared first
            self._supersede(self._slot.put_back(), started=False)
        elif (answered := self._slot.finish()) is not None:
            self._send_masks(answered, answer, found)

    def _preview(self, image: Image, prepared: Plan, turns_ended: int) -> Answer | None:
        """Takes what is in the slot, and decodes it unless it must be prepared. Runs on a worker thread, perhaps after
        the turn has ended."""
        request = self._slot.take(turns_ended)
        if request is None:
            return None
        waited = Answer(timings=Timings(_ms_since(request.arrived)))
        query = parse_query(request.message.segment, image, self._segmenter.limits)
        answer = self._segmenter.preview(
            image, query, prepared, AnswerRoom(self._answer_memory), lambda: self._slot.is_taken(request)
        )
        return None if answer is None else waited + answer

    # Sending

    def _send_masks(self, request: _Request, answer: Answer, found: FoundImage) -> None:
        total_ms = _ms_since(request.arrived)
        tracing.ended(trace_stages(answer, found, total_ms), self._trace, "segment", total_ms / 1e3)
        self._decodes += answer.decodes
        self._send(request.message.request_id, result=answer_message(answer, found, total_ms))

    def _forget_masks(self) -> None:
        """Gives back the memory of masks that were sent, or will not be."""
        self._answer_memory.give_back(self._answer_memory.nbytes)

    def _send_error(self, request: _Request, error: Exception) -> None:
        self._send(request.message.request_id, error=status_of(error))

    def _send(self, request_id: str, **outcome: Any) -> None:
        counters = pb.StreamCounters(decodes=self._decodes, superseded=self._superseded)
        told = request_id[: names.MAX_REQUEST_ID]
        response = pb.SegmentStreamResponse(request_id=told, counters=counters, **outcome)
        STREAM_ANSWERS.labels(str(response.WhichOneof("outcome"))).inc()
        self._outbox.put(response)
        self._notify()

    async def _announce_drain(self) -> None:
        await self._draining.wait()
        self._send("", reconnect=Empty())


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
