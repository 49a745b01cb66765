"""Sessions over servers in this process: history, previews, and what happens when a decoder dies, drains or forgets."""

import asyncio
import hashlib
import io
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from maskwire import AsyncClient, DeadlineExceeded, InvalidRequest, MaskwireError, ServerUnavailable
from maskwire.session import AsyncSession
from maskwire_core.masks.rle import rle
from maskwire_core.storage.store import Store
from numpy.typing import NDArray
from PIL import Image

from testing.local_channel import LocalServer, PlainEncoder, connect_locally, embedding
from testing.plain_decoder import HEIGHT, MASK_SIZE, WIDTH, Clicks, PlainDecoder, put_image, refined
from testing.store_twin import twin_store

A, B, C = (30.0, 40.0, 1), (80.0, 40.0, 1), (60.0, 20.0, 0)


class World:
    """A client, two decoders and an encoder on one store, and an image called `cup`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store: Store = twin_store()
        self.image = np.random.default_rng(3).normal(0, 0.5, (MASK_SIZE, MASK_SIZE)).astype(np.float32)
        put_image(self.store, "cup", self.image, WIDTH, HEIGHT)
        services = {"d1:1": PlainDecoder(self.store), "d2:1": PlainDecoder(self.store), "e:1": PlainEncoder(self.store)}
        self.servers = connect_locally(monkeypatch, services)
        self.client = AsyncClient("e:1", "d1:1,d2:1", retry_s=2, timeout_s=5)

    @property
    def decoders(self) -> list[LocalServer]:
        return [self.servers["d1:1"], self.servers["d2:1"]]

    def in_use(self) -> LocalServer:
        """The decoder that has the newest stream."""
        return next(each for each in self.decoders if "SegmentStream" in each.calls)

    def expected(self, clicks: Clicks, image: NDArray[np.float32] | None = None) -> str:
        """The counts of the mask after clicks, each refining the mask before it."""
        logits = refined(self.image if image is None else image, clicks)
        return bytes(rle(logits, WIDTH, HEIGHT)["counts"]).decode()


def counts(result: Any) -> str:
    return str(result.best.rle["counts"])


def run(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[World, AsyncSession], Awaitable[None]], **options: Any
) -> None:
    """Runs a scenario with a session on the image."""

    async def scenario() -> None:
        world = World(monkeypatch)
        async with world.client:
            await work(world, world.client.session("cup"))

    asyncio.run(scenario())


def test_clicks_refine_and_undo_takes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        for count in range(1, 4):
            clicks = [A, B, C][:count]
            x, y, label = clicks[-1]
            assert counts(await session.click(x, y, positive=bool(label))) == world.expected(clicks)
        assert counts(await session.undo()) == world.expected([A, B])
        assert counts(await session.undo()) == world.expected([A])
        assert counts(await session.redo()) == world.expected([A, B])
        assert counts(await session.click(C[0], C[1], positive=False)) == world.expected([A, B, C])
        with pytest.raises(InvalidRequest) as caught:
            await session.redo()  # what was undone is gone after another click
        assert caught.value.reason == "NOTHING_TO_REDO"
        assert await session.clear() is None
        assert counts(await session.undo()) == world.expected([A, B, C])

    run(monkeypatch, scenario)


def test_edits_that_were_not_awaited_build_on_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        futures = [session.click(*A[:2]), session.click(*B[:2]), session.undo(), session.click(*C[:2], positive=False)]
        answers = [counts(await future) for future in futures]
        assert answers == [world.expected(clicks) for clicks in ([A], [A, B], [A], [A, C])]

    run(monkeypatch, scenario)


def test_an_edit_that_fails_changes_nothing_and_those_after_it_count(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        first, wrong, after = session.click(*A[:2]), session.click(1000, 5), session.click(*B[:2])
        assert counts(await first) == world.expected([A])
        with pytest.raises(InvalidRequest) as caught:
            await wrong
        assert (caught.value.reason, caught.value.field) == ("OUT_OF_IMAGE", "x")
        assert counts(await after) == world.expected([A, B])

    run(monkeypatch, scenario)


def test_objects_have_histories_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        await session.click(*A[:2])
        assert session.new_object() == "object-2"
        assert counts(await session.click(*B[:2])) == world.expected([B])
        session.object_id = "object-1"
        assert counts(await session.click(*C[:2], positive=False)) == world.expected([A, C])
        assert session.objects == ["object-1", "object-2"]
        assert await session.remove_object("object-2") is None
        assert session.objects == ["object-1"]
        with pytest.raises(InvalidRequest, match="no object 'object-2'"):
            await session.remove_object("object-2")

    run(monkeypatch, scenario)


def test_a_preview_is_the_click_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        await session.click(*A[:2])
        for _ in range(2):
            assert counts(await session.hover(*B[:2])) == world.expected([A, B])
        assert counts(await session.click(*B[:2])) == world.expected([A, B])

    run(monkeypatch, scenario)


def test_of_previews_at_once_only_the_newest_has_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        await session.open()
        hovers = [session.hover(x, 40) for x in range(10, 60)]
        answers = await asyncio.gather(*hovers)
        assert counts(answers[-1]) == world.expected([(59, 40, 1)])
        assert sum(answer is not None for answer in answers) <= 2

    run(monkeypatch, scenario)


def test_after_a_wrong_click_only_the_newest_preview_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        await session.click(*A[:2])
        wrong, older, newer = session.click(1000, 5), session.hover(*C[:2]), session.hover(*B[:2])
        with pytest.raises(InvalidRequest):
            await wrong
        assert await older is None
        answer = await newer
        assert answer is not None
        assert counts(answer) == world.expected([A, B])
        shown = [
            [step.add_point.x_px for step in message.segment.prompts[0].steps]
            for message in world.in_use().sent
            if message.speculative
        ]
        assert [A[0], C[0]] not in shown

    run(monkeypatch, scenario)


def test_masks_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        masks = session.masks()
        await session.click(*A[:2])
        await session.click(*B[:2])
        await session.hover(*C[:2])
        await session.hover(*A[:2])  # takes the place of the preview that nobody has looked at
        await session.close()
        followed = [(counts(result), result.is_preview) async for result in masks]
        assert followed == [
            (world.expected([A]), False),
            (world.expected([A, B]), False),
            (world.expected([A, B, A]), True),
        ]

    run(monkeypatch, scenario)


def test_when_a_decoder_dies_another_gives_the_same_next_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        await session.click(*A[:2])
        await session.click(*B[:2])
        dead = world.in_use()
        dead.kill()
        assert counts(await session.click(*C[:2], positive=False)) == world.expected([A, B, C])
        (other,) = (each for each in world.decoders if each is not dead)
        assert "SegmentStream" in other.calls
        assert counts(await session.undo()) == world.expected([A, B])

    run(monkeypatch, scenario)


def test_a_session_stays_with_its_image_whatever_the_name_comes_to_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        await session.click(*A[:2])
        put_image(world.store, "cup", world.image + 0.5, WIDTH, HEIGHT)
        world.in_use().kill()
        assert counts(await session.click(*B[:2])) == world.expected([A, B])

    run(monkeypatch, scenario)


def test_clicks_in_flight_survive_and_each_is_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        masks = session.masks()
        await session.click(*A[:2])
        futures = [session.click(*B[:2]), session.hover(*A[:2]), session.click(*C[:2], positive=False)]
        await asyncio.sleep(0)
        world.in_use().kill()
        first, hover, last = await asyncio.gather(*futures)
        assert counts(first) == world.expected([A, B])
        assert hover is None  # an old preview is not asked for again
        assert counts(last) == world.expected([A, B, C])
        await session.close()
        assert [counts(result) async for result in masks] == [
            world.expected(clicks) for clicks in ([A], [A, B], [A, B, C])
        ]

    run(monkeypatch, scenario)


def test_of_previews_that_a_dead_decoder_had_only_the_newest_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        await session.click(*A[:2])
        dead = world.in_use()
        dead.stands_still = True
        previews = []
        for place in (C, B):
            previews.append(session.hover(*place[:2]))
            while sum(message.speculative for message in dead.sent) < len(previews):  # noqa: ASYNC110 - each is on its way
                await asyncio.sleep(0)
        dead.kill()
        older, newer = await asyncio.gather(*previews)
        assert older is None
        assert counts(newer) == world.expected([A, B])
        (other,) = (each for each in world.decoders if each is not dead)
        assert sum(message.speculative for message in other.sent) == 1

    run(monkeypatch, scenario)


def test_a_decoder_that_drains_is_left_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        await session.click(*A[:2])
        leaving = world.in_use()
        leaving.service.drain()
        assert counts(await session.click(*B[:2])) == world.expected([A, B])
        (other,) = (each for each in world.decoders if each is not leaving)
        assert other.sent[0].WhichOneof("request") == "set_image"

    run(monkeypatch, scenario)


def test_what_nobody_waits_for_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        await session.click(*A[:2])
        dead = world.in_use()
        given_up = session.hover(5, 5)
        given_up.cancel()
        await asyncio.sleep(0)
        dead.kill()
        assert counts(await session.click(*B[:2])) == world.expected([A, B])
        (other,) = (each for each in world.decoders if each is not dead)
        places = [
            step.add_point.x_px for message in other.sent for prompt in message.segment.prompts for step in prompt.steps
        ]
        assert 5 not in places

    run(monkeypatch, scenario)


def test_without_any_decoder_it_says_so_and_goes_on_when_one_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        await session.click(*A[:2])
        for server in world.decoders:
            server.kill()
        with pytest.raises(ServerUnavailable, match="maskwire up"):
            await session.click(*B[:2])
        world.servers["d1:1"] = LocalServer(PlainDecoder(world.store).service)
        assert counts(await session.click(*B[:2])) == world.expected([A, B])

    run(monkeypatch, scenario)


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def test_an_image_that_the_store_lost_is_embedded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, _: AsyncSession) -> None:
        session = world.client.session(picture(1), image_id="mine")
        before = await session.click(*A[:2])
        key = world.store.get_alias("default", "mine")
        assert key is not None
        world.store.delete_embedding("default", key)
        for address in ("d1:1", "d2:1"):  # decoders that have it in memory go on
            world.servers[address].kill()
            world.servers[address] = LocalServer(PlainDecoder(world.store).service)
        after = await session.click(*B[:2])
        assert (await session.undo()).best.rle == before.best.rle  # type: ignore[union-attr]
        assert counts(after) != counts(before)
        assert world.servers["e:1"].calls.count("EncodeImage") == 2

    run(monkeypatch, scenario)


def test_another_image_takes_all_objects_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        await session.click(*A[:2])
        other = world.image + 0.5
        put_image(world.store, "other", other, WIDTH, HEIGHT)
        info = await session.set_image("other")
        assert (info.image_id, session.objects) == ("other", [])
        assert counts(await session.click(*B[:2])) == world.expected([B], other)
        with pytest.raises(MaskwireError) as caught:
            await session.set_image("unknown")
        assert caught.value.reason == "IMAGE_NOT_FOUND"
        with pytest.raises(MaskwireError):
            await session.click(*A[:2])  # not on the image before

    run(monkeypatch, scenario)


def test_a_closed_session_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, session: AsyncSession) -> None:
        await session.click(*A[:2])
        await session.close()
        with pytest.raises(MaskwireError) as caught:
            session.click(*B[:2])
        assert caught.value.reason == "CLOSED"

    run(monkeypatch, scenario)


def test_an_answer_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, _: AsyncSession) -> None:
        client = AsyncClient("e:1", "d1:1", timeout_s=1.5, retry_s=0)
        session = client.session("cup")
        await session.open()

        async def never(*_: Any) -> Any:
            await asyncio.Event().wait()

        for server in world.decoders:
            monkeypatch.setattr(server.service._segmenter, "segment", never)
        with pytest.raises(DeadlineExceeded):
            await session.click(*A[:2])
        await client.close()

    run(monkeypatch, scenario)


def test_embeddings_follow_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture is embedded once, and other pixels are another image."""

    async def scenario(world: World, _: AsyncSession) -> None:
        one, two = picture(1), picture(2)
        for data in (one, two, one):
            result = await world.client.segment(data, points=[A[:2]])
            assert counts(result) == world.expected([A], embedding(hashlib.sha256(data).digest()))
        assert world.servers["e:1"].calls.count("EncodeImage") == 2

    run(monkeypatch, scenario)
