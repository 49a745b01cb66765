"""A decoder forgets what callers delete: embeddings, logits of steps, saved logits."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core import call_context
from maskwire_core.errors import NotFound
from maskwire_core.storage.deletions import Deleted, erase
from maskwire_core.storage.embedding import Embedding
from maskwire_core.storage.logits import saved_prompts
from maskwire_core.storage.store import Store
from maskwire_core.tenancy.tenant import EVERYBODY
from maskwire_decoder import deletions
from numpy.typing import NDArray

from testing.plain_decoder import HEIGHT, WIDTH, PlainDecoder, put_image

CLICK = types_pb2.Point(x_px=30, y_px=40)
STEPS = [types_pb2.Prompt(steps=[types_pb2.Step(add_point=CLICK), types_pb2.Step(add_point=CLICK)])]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def call() -> Any:
        call_context.begin("").caller = EVERYBODY
        return await work

    return asyncio.run(call())


def key_of(store: Store) -> str:
    key = store.get_alias("default", "cup")
    assert key is not None
    return key


def by_key(store: Store, **fields: Any) -> pb.SegmentRequest:
    return pb.SegmentRequest(image_id="cup", content_key=key_of(store), prompts=STEPS, **fields)


def logits_bytes(decoder: PlainDecoder) -> float:
    (gauge,) = [each for each in decoder.segmenter.live_metrics() if each.name == "maskwire_logits_cache_bytes"]
    return gauge.value()


async def look(decoder: PlainDecoder) -> None:
    await decoder.images.deletions.look()


def test_what_was_deleted_is_answered_by_no_decoder(
    decoder: PlainDecoder, store: Store, image: NDArray[np.float32]
) -> None:
    request = by_key(store, save_logits=True)
    others = [decoder, PlainDecoder(store)]

    async def scenario() -> None:
        for each in others:
            await each.segment(request)
        assert saved_prompts(store, "default", request.content_key)
        erase(store, "default", request.content_key)
        for each in others:
            await look(each)
            assert logits_bytes(each) == 0
            with pytest.raises(NotFound) as caught:
                await each.segment(request)
            assert caught.value.reason == "EMBEDDING_EXPIRED"
        assert saved_prompts(store, "default", request.content_key) == []
        # the same bytes again work at once, whether the decoder has heard of the deletion or not
        for heard in (True, False):
            put_image(store, "cup", image, WIDTH, HEIGHT)
            for each in others:
                await each.segment(request)
            if not heard:
                for each in others:
                    await look(each)
                    await each.segment(request)
            erase(store, "default", request.content_key)
            put_image(store, "cup", image, WIDTH, HEIGHT)
            for each in others:
                if heard:
                    await look(each)
                await each.segment(request)

    run(scenario())


@pytest.mark.usefixtures("image")
def test_an_open_stream_loses_the_image_too(decoder: PlainDecoder, store: Store) -> None:
    requests: asyncio.Queue[pb.SegmentStreamRequest | None] = asyncio.Queue()

    async def sent() -> Any:
        while (request := await requests.get()) is not None:
            yield request

    async def scenario() -> None:
        answers = decoder.stream(sent())
        prompts = pb.StreamPrompts(prompts=STEPS)
        await requests.put(pb.SegmentStreamRequest(set_image=pb.SetImage(image_id="cup")))
        await requests.put(pb.SegmentStreamRequest(segment=prompts))
        assert (await anext(answers)).HasField("image_ready")
        assert (await anext(answers)).HasField("result")
        erase(store, "default", key_of(store))
        await look(decoder)
        await requests.put(pb.SegmentStreamRequest(segment=prompts))
        answer = await anext(answers)
        assert "gone; embed it again" in answer.error.message
        await requests.put(None)
        assert [each async for each in answers] == []

    run(scenario())


@pytest.mark.usefixtures("image")
def test_what_was_being_read_when_it_was_deleted_is_not_kept(
    decoder: PlainDecoder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, read = by_key(store), store.get_embedding
    loop: asyncio.AbstractEventLoop

    def slow(namespace: str, key: str) -> Embedding | None:
        found = read(namespace, key)
        erase(store, namespace, key)
        asyncio.run_coroutine_threadsafe(look(decoder), loop).result(5)
        return found

    async def scenario() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(store, "get_embedding", slow)
        with pytest.raises(NotFound):
            await decoder.segment(request)

    run(scenario())


@pytest.mark.usefixtures("image")
def test_automatic_masks_end_when_their_image_is_deleted(decoder: PlainDecoder, store: Store) -> None:
    async def scenario() -> None:
        answers = decoder.generate(
            pb.GenerateMasksRequest(image_id="cup", grid=pb.PointGrid(points_per_side=8), points_per_batch=4)
        )
        await anext(answers)
        erase(store, "default", key_of(store))
        await look(decoder)
        with pytest.raises(NotFound):
            await anext(answers)

    run(scenario())


@pytest.mark.usefixtures("image")
def test_a_decoder_that_missed_deletions_drops_everything(
    decoder: PlainDecoder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = by_key(store)

    async def scenario() -> None:
        await decoder.segment(request)
        assert (await decoder.segment(request)).timings.in_memory
        await look(decoder)
        monkeypatch.setattr(deletions, "deleted_since", lambda *_: Deleted([], "0-0", all_known=False, more=False))
        await look(decoder)
        assert not (await decoder.segment(request)).timings.in_memory

    run(scenario())
