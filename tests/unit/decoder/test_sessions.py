"""Streams: the newest wins, a click is never dropped, slow readers hold up only themselves, and errors end nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import grpc
import numpy as np
import pytest
from maskwire.errors import from_status
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core import call_context
from maskwire_core.errors import Unavailable
from maskwire_core.masks.answer_room import COPIES
from maskwire_core.rpc.message_fields import memory_of
from maskwire_core.scheduling.byte_budget import ByteBudget
from maskwire_core.scheduling.fair_queue import Requester
from maskwire_core.scheduling.scheduler import Demand
from maskwire_core.storage.store import Store
from maskwire_core.tenancy.tenant import EVERYBODY
from numpy.typing import NDArray

from testing.plain_decoder import HEIGHT, WIDTH, PlainDecoder, logits_in, logits_of_clicks, put_image
from testing.waiting import until


class Stream:
    """A stream in this process."""

    def __init__(self, decoder: PlainDecoder) -> None:
        self._requests: asyncio.Queue[pb.SegmentStreamRequest | None] = asyncio.Queue()
        self._answers = decoder.stream(self._sent())
        self.seen: list[pb.SegmentStreamResponse] = []

    async def _sent(self) -> AsyncIterator[pb.SegmentStreamRequest]:
        arriving = call_context.current().arriving
        while (request := await self._requests.get()) is not None:
            arriving.give_back(arriving.nbytes)
            arriving.take(memory_of(request))
            yield request

    def send(self, request_id: str = "", **fields: Any) -> None:
        self._requests.put_nowait(pb.SegmentStreamRequest(request_id=request_id, **fields))

    def click(self, request_id: str, *clicks: tuple[float, float, int], **fields: Any) -> None:
        added = [
            types_pb2.Step(add_point=types_pb2.Point(x_px=x, y_px=y, label=label), refine=False)
            for x, y, label in clicks
        ]
        output = types_pb2.OutputOptions(formats=[types_pb2.MASK_FORMAT_LOGITS], logits_type=types_pb2.DATA_TYPE_FP32)
        self.send(
            request_id,
            segment=pb.StreamPrompts(prompts=[types_pb2.Prompt(prompt_id="o", steps=added)], output=output),
            **fields,
        )

    async def next(self) -> pb.SegmentStreamResponse:
        """Reads one answer."""
        answer = await asyncio.wait_for(anext(self._answers), 10)
        self.seen.append(answer)
        return answer

    async def answer(self, request_id: str) -> pb.SegmentStreamResponse:
        """Reads up to the answer to a request."""
        for answer in self.seen:
            if answer.request_id == request_id:
                return answer
        while (answer := await self.next()).request_id != request_id:
            pass
        return answer

    @property
    def unread(self) -> int:
        """Requests that the decoder has not read."""
        return self._requests.qsize()

    def end(self) -> None:
        self._requests.put_nowait(None)

    async def rest(self) -> list[pb.SegmentStreamResponse]:
        """Ends the requests, and reads what is left."""
        self.end()
        return [answer async for answer in self._answers]


def run(work: Callable[[Stream], Awaitable[Any]], decoder: PlainDecoder, image_id: str = "cup") -> Any:
    """Runs a scenario on a stream whose image is set."""

    async def scenario() -> Any:
        call_context.begin("").caller = EVERYBODY
        stream = Stream(decoder)
        if image_id:
            stream.send("image", set_image=pb.SetImage(image_id=image_id))
            assert (await stream.answer("image")).image_ready.image.width_px == WIDTH
        return await work(stream)

    return asyncio.run(scenario())


@contextlib.asynccontextmanager
async def busy(decoder: PlainDecoder) -> AsyncIterator[None]:
    """Keeps all worker threads of a decoder until the body ends."""
    scheduler, loop, free = decoder.segmenter.scheduler, asyncio.get_running_loop(), asyncio.Event()
    started: asyncio.Queue[None] = asyncio.Queue()

    def wait() -> None:
        loop.call_soon_threadsafe(started.put_nowait, None)
        asyncio.run_coroutine_threadsafe(free.wait(), loop).result(10)

    demands = [Demand(Requester("other", number)) for number in range(scheduler.at_once)]
    works = [asyncio.create_task(scheduler.run(demand, wait)) for demand in demands]
    for _ in works:
        await started.get()
    try:
        yield
    finally:
        free.set()
        await asyncio.gather(*works)


def check(answer: pb.SegmentStreamResponse, image: NDArray[np.float32], *clicks: tuple[float, float, int]) -> None:
    (result,) = answer.result.results
    assert result.prompt_id == "o"
    wanted = logits_of_clicks(image, clicks, 2 if len(clicks) == 1 else 0)
    np.testing.assert_allclose(logits_in(result.masks[0]), wanted, atol=1e-4)


def test_requests_are_answered_in_order_by_name(decoder: PlainDecoder, image: NDArray[np.float32]) -> None:
    async def scenario(stream: Stream) -> None:
        stream.click("one", (10, 10, 1))
        stream.click("two", (10, 10, 1), (90, 20, 0))
        check(await stream.answer("one"), image, (10, 10, 1))
        check(await stream.answer("two"), image, (10, 10, 1), (90, 20, 0))
        assert [answer.request_id for answer in stream.seen] == ["image", "one", "two"]
        assert stream.seen[-1].counters.decodes == 2
        assert await stream.rest() == []

    run(scenario, decoder)


def test_of_hovers_that_wait_only_the_newest_is_decoded(decoder: PlainDecoder, image: NDArray[np.float32]) -> None:
    async def scenario(stream: Stream) -> None:
        async with busy(decoder):
            for number in range(20):
                stream.click(f"h{number}", (number, 10, 1), speculative=True)
            for number in range(19):
                answer = await stream.answer(f"h{number}")
                assert answer.HasField("superseded")
                assert not answer.superseded.started
        check(await stream.answer("h19"), image, (19, 10, 1))
        assert (stream.seen[-1].counters.decodes, stream.seen[-1].counters.superseded) == (1, 19)

    run(scenario, decoder)


def test_a_click_ends_the_hovers_before_it_and_is_never_dropped(
    decoder: PlainDecoder, image: NDArray[np.float32]
) -> None:
    async def scenario(stream: Stream) -> None:
        async with busy(decoder):
            for number in range(3):
                stream.click(f"h{number}", (number, 10, 1), speculative=True)
                stream.click(f"c{number}", (50 + number, 10, 1))
            stream.click("last", (9, 9, 1), speculative=True)
            for number in range(3):
                assert (await stream.answer(f"h{number}")).HasField("superseded")
        for number in range(3):
            check(await stream.answer(f"c{number}"), image, (50 + number, 10, 1))
        check(await stream.answer("last"), image, (9, 9, 1))

    run(scenario, decoder)


def test_a_hover_keeps_nothing(decoder: PlainDecoder, image: NDArray[np.float32]) -> None:
    async def scenario(stream: Stream) -> None:
        for name in ("first", "second"):
            stream.click(name, (30, 30, 1), speculative=True)
            check(await stream.answer(name), image, (30, 30, 1))
        assert stream.seen[-1].counters.decodes == 2
        for name, count in (("click", 3), ("again", 3)):  # a click is remembered
            stream.click(name, (30, 30, 1))
            assert (await stream.answer(name)).counters.decodes == count

    run(scenario, decoder)


def test_a_caller_that_says_what_it_has_seen_gets_no_more_than_two_masks_ahead(
    decoder: PlainDecoder, image: NDArray[np.float32]
) -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(masks_seen=0)
        for number in range(2):
            stream.click(f"h{number}", (number, 10, 1), speculative=True)
            assert (await stream.answer(f"h{number}")).HasField("result")
        stream.click("held", (50, 10, 1), speculative=True)
        stream.click("newer", (60, 10, 1), speculative=True)
        assert (await stream.answer("held")).HasField("superseded")
        waiting = asyncio.create_task(stream.answer("newer"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        stream.send(masks_seen=1)
        check(await waiting, image, (60, 10, 1))
        stream.click("click", (70, 10, 1))  # is not held back
        check(await stream.answer("click"), image, (70, 10, 1))

    run(scenario, decoder)


def test_a_reader_that_does_not_read_stops_its_own_stream_only(
    decoder: PlainDecoder, image: NDArray[np.float32]
) -> None:
    async def scenario(stream: Stream) -> None:
        for number in range(10):
            stream.click(f"c{number}", (number, 40, 1))
        await stream.answer("c0")
        await asyncio.sleep(0.2)
        assert decoder.segmenter.scheduler.tally.done <= 3  # what was read, and what waits to be
        other = Stream(decoder)
        other.send("image", set_image=pb.SetImage(image_id="cup"))
        other.click("click", (9, 9, 1))
        check(await other.answer("click"), image, (9, 9, 1))
        for number in range(10):
            check(await stream.answer(f"c{number}"), image, (number, 40, 1))

    run(scenario, decoder)


@pytest.mark.usefixtures("image")
def test_what_is_wrong_is_told_and_the_stream_lives_on(decoder: PlainDecoder) -> None:
    async def scenario(stream: Stream) -> None:
        stream.click("outside", (1000, 1, 1))
        stream.click("hover", (1000, 1, 1), speculative=True)
        await stream.answer("hover")
        stream.send("empty")
        stream.send("no image", set_image=pb.SetImage(image_id="unknown"))
        stream.click("on nothing", (1, 1, 1))
        stream.send("image again", set_image=pb.SetImage(image_id="cup"))
        stream.click("good", (1, 1, 1))
        await stream.answer("good")
        messages = {each.request_id: each.error.message for each in stream.seen if each.HasField("error")}
        assert set(messages) == {"outside", "hover", "empty", "no image", "on nothing"}
        assert "outside of the image" in messages["outside"]
        assert "set_image" in messages["on nothing"]  # a failed change leaves no old image
        assert stream.seen[-1].HasField("result")

    run(scenario, decoder)


def test_a_stream_keeps_its_image_when_the_name_is_given_to_another(
    decoder: PlainDecoder, store: Store, image: NDArray[np.float32]
) -> None:
    async def scenario(stream: Stream) -> None:
        put_image(store, "cup", image + 1, WIDTH, HEIGHT)
        stream.click("old", (5, 5, 1))
        check(await stream.answer("old"), image, (5, 5, 1))
        stream.send("again", set_image=pb.SetImage(image_id="cup"))
        stream.click("new", (5, 5, 1))
        check(await stream.answer("new"), image + 1, (5, 5, 1))

    run(scenario, decoder)


@pytest.mark.usefixtures("image")
def test_who_drains_says_so_and_takes_no_new_streams(decoder: PlainDecoder) -> None:
    async def scenario(stream: Stream) -> None:
        waiting = asyncio.create_task(stream.next())
        await asyncio.sleep(0.01)
        decoder.service.drain()
        assert (await waiting).HasField("reconnect")
        stream.click("still", (1, 1, 1))
        assert (await stream.answer("still")).HasField("result")
        with pytest.raises(Unavailable) as caught:
            await Stream(decoder).next()
        assert caught.value.reason == "DRAINING"

    run(scenario, decoder)


@pytest.mark.usefixtures("image")
def test_what_was_asked_before_the_end_is_answered(decoder: PlainDecoder) -> None:
    async def scenario(stream: Stream) -> list[pb.SegmentStreamResponse]:
        for number in range(5):
            stream.click(f"c{number}", (number, 10, 1))
        stream.click("hover", (9, 10, 1), speculative=True)
        return await stream.rest()

    answers = run(scenario, decoder)
    assert [each.request_id for each in answers if each.HasField("result")] == [*(f"c{n}" for n in range(5)), "hover"]


@pytest.mark.usefixtures("image")
def test_a_caller_that_leaves_ends_its_work(decoder: PlainDecoder) -> None:
    async def scenario() -> None:
        call_context.begin("").caller = EVERYBODY
        async with busy(decoder):
            task: asyncio.Task[Any] = asyncio.create_task(_leave(decoder))
            await until(lambda: decoder.segmenter.scheduler.waiting == 1)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await until(lambda: decoder.segmenter.scheduler.waiting == 0)

    asyncio.run(scenario())


def _leave(decoder: PlainDecoder) -> Coroutine[Any, Any, None]:
    async def scenario() -> None:
        stream = Stream(decoder)
        stream.send("image", set_image=pb.SetImage(image_id="cup"))
        await stream.answer("image")  # an answer that came just now would be returned in place of a cancellation
        stream.click("click", (1, 1, 1))
        await stream.answer("click")

    return scenario()


@pytest.mark.usefixtures("image")
def test_what_is_read_ahead_takes_memory_and_reading_waits_for_it(decoder: PlainDecoder) -> None:
    budget = ByteBudget(300_000)
    large = types_pb2.Prompt(prompt_id="x" * 10_000)

    async def scenario(stream: Stream) -> None:
        call_context.current().memory = budget.account("tenant")
        stream.send("image", set_image=pb.SetImage(image_id="cup"))
        assert (await stream.answer("image")).HasField("image_ready")
        async with busy(decoder):
            for number in range(40):
                stream.send(str(number), segment=pb.StreamPrompts(prompts=[large]))
            waiting = asyncio.create_task(stream.next())
            await until(lambda: budget.held > 180_000)
            await asyncio.sleep(0.1)
            assert stream.unread > 15
            answer = COPIES * len(large.prompt_id)  # what is known of it
            assert budget.held - answer <= budget.total * 2 / 3
        await waiting
        assert (await stream.answer("39")).HasField("result")
        await stream.rest()
        assert budget.held == 0

    run(scenario, decoder, image_id="")


@pytest.mark.usefixtures("image")
def test_masks_take_memory_until_they_are_sent(decoder: PlainDecoder) -> None:
    budget = ByteBudget(1 << 20)
    logits = types_pb2.OutputOptions(formats=[types_pb2.MASK_FORMAT_LOGITS], logits_type=types_pb2.DATA_TYPE_FP32)
    click = types_pb2.Prompt(points=[types_pb2.Point(x_px=30, y_px=20, label=1)])

    async def scenario(stream: Stream) -> None:
        call_context.current().memory = budget.account("tenant")
        stream.send("image", set_image=pb.SetImage(image_id="cup"))
        stream.send("mask", segment=pb.StreamPrompts(prompts=[click], output=logits))
        size = len((await stream.answer("mask")).result.results[0].masks[0].logits.data)
        assert budget.held >= 2 * size
        stream.send("mask again", segment=pb.StreamPrompts(prompts=[click], output=logits))
        await stream.answer("mask again")
        assert budget.held < 3 * size
        with budget.account("tenant") as others:
            others.take(budget.total * 2 // 3 - 4 * size)
            stream.send("too much", segment=pb.StreamPrompts(prompts=[click] * 3, output=logits))
            error = (await stream.answer("too much")).error
            assert error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        stream.send("last", segment=pb.StreamPrompts(prompts=[click], output=logits))
        assert (await stream.answer("last")).HasField("result")
        await stream.rest()
        assert budget.held == 0

    run(scenario, decoder, image_id="")


@pytest.mark.usefixtures("image")
def test_long_request_ids_are_refused(decoder: PlainDecoder) -> None:
    async def scenario(stream: Stream) -> pb.SegmentStreamResponse:
        stream.click("x" * 100_000, (3, 3, 1))
        stream.click("x" * 128, (3, 3, 1))
        refused = await stream.next()
        assert (await stream.next()).HasField("result")
        return refused

    refused = run(scenario, decoder)
    assert refused.request_id == "x" * 128
    assert from_status(refused.error).reason == "BAD_REQUEST_ID"
