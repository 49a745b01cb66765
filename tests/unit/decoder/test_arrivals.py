"""Calls that wait for images cost little, come from all tenants, and find the image as soon as it is there."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core import call_context
from maskwire_core.errors import NotFound, ResourceExhausted, Unavailable
from maskwire_core.storage.store import Store, Wanted
from maskwire_core.tenancy.tenant import EVERYBODY
from maskwire_decoder.arrivals import Arrivals

from testing.plain_decoder import MASK_SIZE, PlainDecoder, put_image

VALUES = np.zeros((MASK_SIZE, MASK_SIZE), np.float32)
MOST = 200


class Shelf(Store):
    """Counts how often images are looked for."""

    def __init__(self) -> None:
        self.stored: set[Wanted] = set()
        self.looks = 0
        self.fails = False

    def are_stored(self, images: Any) -> list[bool]:
        if self.fails:
            raise Unavailable("STORE_UNAVAILABLE", "the store does not answer; try again")
        self.looks += len(images)
        return [image in self.stored for image in images]


def image(name: str) -> Wanted:
    return "default", name, ""


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_many_calls_for_one_image_look_once() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        arrivals = Arrivals(shelf, MOST)
        calls = [asyncio.create_task(arrivals.wait(image("a"), 5, "us")) for _ in range(MOST // 2)]
        await asyncio.sleep(0.3)
        assert arrivals.waiting == MOST // 2
        assert 1 <= shelf.looks <= 10
        shelf.stored.add(image("a"))
        assert all(await asyncio.gather(*calls))
        assert arrivals.waiting == 0
        looks = shelf.looks
        await asyncio.sleep(0.1)
        assert shelf.looks == looks  # nobody waits, nothing is looked for

    run(scenario())


def test_a_tenant_leaves_room_for_others() -> None:
    async def scenario() -> None:
        arrivals = Arrivals(Shelf(), MOST)
        calls = [asyncio.create_task(arrivals.wait(image(str(n)), 60, "crowd")) for n in range(MOST)]
        await asyncio.sleep(0.1)
        refused = [call.exception() for call in calls if call.done()]
        assert len(refused) == MOST // 3  # one tenant alone gets two thirds
        (error,) = {type(each) for each in refused}
        assert error is ResourceExhausted
        assert isinstance(refused[0], ResourceExhausted)
        assert (refused[0].reason, refused[0].field, refused[0].retry_after_s) == ("TOO_MANY_WAITING", "wait_ms", 1)
        assert not await arrivals.wait(image("other"), 0.05, "modest")
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert arrivals.waiting == 0

    run(scenario())


def test_time_passes_and_stores_fail() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        arrivals = Arrivals(shelf, MOST)
        assert not await arrivals.wait(image("a"), 0.05, "us")
        assert not await arrivals.wait(image("a"), -1, "us")
        shelf.fails = True
        with pytest.raises(Unavailable):
            await arrivals.wait(image("a"), 5, "us")
        shelf.fails = False
        shelf.stored.add(image("a"))
        assert await arrivals.wait(image("a"), 5, "us")

    run(scenario())


@pytest.mark.parametrize("by_key", [False, True])
def test_a_request_finds_the_image_when_it_comes(decoder: PlainDecoder, store: Store, by_key: bool) -> None:
    prompt = types_pb2.Prompt(points=[types_pb2.Point(x_px=3, y_px=3)])
    key = put_image(store, "late", VALUES, 120, 80) if by_key else ""
    if key:
        store.delete_embedding("default", key)
        store.delete_alias("default", "late")

    async def scenario() -> None:
        call_context.begin("").caller = EVERYBODY
        request = pb.SegmentRequest(image_id="late", content_key=key, prompts=[prompt], wait_ms=10_000)
        calls = [asyncio.create_task(decoder.segment(request)) for _ in range(5)]
        await asyncio.sleep(0.1)
        put_image(store, "late", VALUES, 120, 80)
        answers = await asyncio.gather(*calls)
        assert {answer.image.image_id for answer in answers} == {"late"}

    run(scenario())


def test_who_waits_in_vain_is_told_what_is_missing(decoder: PlainDecoder) -> None:
    async def scenario() -> None:
        call_context.begin("").caller = EVERYBODY
        request = pb.SegmentRequest(image_id="never", prompts=[types_pb2.Prompt()], wait_ms=50)
        with pytest.raises(NotFound) as caught:
            await decoder.segment(request)
        assert caught.value.reason == "IMAGE_NOT_FOUND"

    run(scenario())
