"""Interactive sessions: objects, edits, images, and decoders that die."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maskwire import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    ImageNotFound,
    InvalidRequest,
    MaskwireError,
    Result,
    image_cache,
)
from maskwire.cli.free_ports import free_port
from maskwire.cli.health import health

from testing.clicks import CLICKS, LOGITS, click
from testing.processes import wait_until
from testing.servers import Stack, running_server, server
from testing.warm import Warm, running_module
from testing.wire import frames, picture


def test_objects_do_not_mix(stack: Stack, photo: Path) -> None:
    with stack.client() as client, client.session(photo, **LOGITS) as session:
        alone = [click(session, clicked) for clicked in CLICKS[:3]]
        assert session.new_object() == "object-2"
        box = session.box(135, 40, 500, 345)
        session.object_id = "object-1"
        fourth = click(session, CLICKS[3])
        session.object_id = session.new_object("cup")
        again = [click(session, clicked) for clicked in CLICKS[:4]]
        for first, second in zip([*alone, fourth], again, strict=True):
            np.testing.assert_array_equal(first.logits, second.logits)
        assert again[0].prompt_id == "cup"
        session.object_id = "object-2"
        session.click(300, 330, positive=False)
        undone = session.undo()
        assert undone is not None
        assert undone.rle == box.rle
        assert session.objects == ["object-1", "object-2", "cup"]
        session.remove_object("cup")
        assert session.objects == ["object-1", "object-2"]
        with pytest.raises(InvalidRequest, match="no object 'cup'"):
            session.remove_object("cup")
        assert undone.overlay().size == (600, 400)


def test_new_objects_have_names_of_their_own_before_they_are_answered(stack: Stack, photo: Path) -> None:
    async def scenario() -> None:
        async with AsyncClient(stack.encoder, stack.decoder) as client, client.session(photo) as session:
            clicks = [session.click(260, 130)]
            for _ in range(3):
                session.new_object()
                clicks.append(session.click(300, 330))
            await asyncio.gather(*clicks)
            assert session.objects == ["object-1", "object-2", "object-3", "object-4"]
        with pytest.raises(MaskwireError, match="closed"):
            session.masks()  # it would never end

    asyncio.run(scenario())


def test_removed_points_and_replaced_boxes_leave_no_trace(stack: Stack, photo: Path) -> None:
    with stack.client() as client, client.session(photo, multimask=False, **LOGITS) as session:
        session.click(260, 130)
        session.click(90, 90, positive=False)
        removed = session.remove_point(1)
        plain = client.segment(photo, points=[(260, 130)], multimask=False, **LOGITS)
        assert removed is not None
        np.testing.assert_array_equal(removed.logits, plain.logits)
        session.new_object()
        session.box(10, 10, 200, 200)
        moved = session.box(135, 40, 500, 345)
        np.testing.assert_array_equal(
            moved.logits, client.segment(photo, box=(135, 40, 500, 345), multimask=False, **LOGITS).logits
        )


def test_a_preview_is_the_click_and_changes_nothing(stack: Stack, photo: Path) -> None:
    with stack.client() as client, client.session(photo, **LOGITS) as session:
        for clicked in CLICKS[:3]:
            x, y, label = clicked
            preview = session.hover(x, y, positive=bool(label))
            assert preview is not None
            assert preview.is_preview
            np.testing.assert_array_equal(preview.logits, click(session, clicked).logits)
        over = session.hover_box(135, 40, 500, 345)
        assert over is not None
        np.testing.assert_array_equal(over.logits, session.box(135, 40, 500, 345).logits)


def test_a_request_that_fails_changes_nothing(stack: Stack, photo: Path) -> None:
    """Also those that were sent on top of it, before it was known to fail."""

    async def scenario() -> None:
        async with AsyncClient(stack.encoder, stack.decoder) as client, client.session(photo, **LOGITS) as session:
            right = [await session.click(260, 130), await session.click(300, 330, positive=False)]
            session.new_object()
            answers: list[asyncio.Future[Any]] = [
                session.click(260, 130),
                session.click(700, 130),
                session.redo(),
                session.click(300, 330, positive=False),
                session.hover(400, 150),
                session.remove_point(2),
                session.undo(),
                session.box(10, 10, 5, 5),
                session.undo(),
                session.undo(),
                session.redo(),
            ]
            (
                first,
                outside,
                no_redo,
                second,
                preview,
                no_point,
                undone,
                no_box,
                none,
                no_undo,
                again,
            ) = await asyncio.gather(*answers, return_exceptions=True)
            reasons = [(error.reason, error.field) for error in (outside, no_redo, no_point, no_box, no_undo)]
            assert reasons == [
                ("OUT_OF_IMAGE", "x"),
                ("NOTHING_TO_REDO", ""),
                ("NO_SUCH_POINT", "index"),
                ("EMPTY_BOX", "box"),
                ("NOTHING_TO_UNDO", ""),
            ]
            for result, expected in ((first, right[0]), (second, right[1]), (undone, right[0]), (again, right[0])):
                np.testing.assert_array_equal(result.logits, expected.logits)
            assert [(point.x_px, point.label) for point in preview._prompt.points] == [(260, 1), (300, 0), (400, 1)]
            assert none is None
            session.object_id = "object-1"
            np.testing.assert_array_equal((await session.click(400, 150)).logits, preview.logits)

    asyncio.run(scenario())


def test_edits_without_a_mask_need_no_server(stack: Stack, photo: Path) -> None:
    with contextlib.ExitStack() as cleanup:
        decoder, pid = cleanup.enter_context(running_server("maskwire_decoder", stack.redis_url))
        client = cleanup.enter_context(Client(stack.encoder, decoder, timeout_s=5, retry_s=1))
        session = cleanup.enter_context(client.session(photo))
        session.click(260, 130)
        session.new_object()
        session.click(300, 330)
        os.kill(pid, signal.SIGKILL)
        assert session.undo() is None
        session.object_id = "object-1"
        assert session.clear() is None
        with pytest.raises(InvalidRequest, match="counted from 0"):
            session.remove_point(0)
        session.remove_object()
        assert session.objects == ["object-2"]
        with pytest.raises(MaskwireError):
            session.click(1, 1)


def test_images_change_and_are_waited_for(stack: Stack, photo: Path, encoder: Any) -> None:
    data = picture(71, 320, 200)
    with stack.client() as client, client.session(photo) as session:
        session.click(260, 130)
        embedder = threading.Timer(0.3, lambda: encoder.EncodeImage(frames(data, image_id="on its way")))
        embedder.start()
        ready = session.set_image("on its way", wait_s=30)
        assert (ready.width_px, ready.height_px) == (320, 200)
        assert session.objects == []
        assert session.click(300, 100).mask.shape == (200, 320)
        with pytest.raises(InvalidRequest, match="outside of the image") as caught:
            session.click(321, 100)
        assert caught.value.field == "x"
        with pytest.raises(ImageNotFound):
            session.set_image("missing")
        with pytest.raises(InvalidRequest, match="no image is set"):
            session.click(1, 1)
        session.set_image(photo)
        assert session.click(321, 300).mask.shape == (400, 600)


def test_an_image_that_does_not_come_in_time_is_told(stack: Stack) -> None:
    with Client(stack.encoder, stack.decoder, timeout_s=1) as client:
        with pytest.raises(DeadlineExceeded, match="gave no answer within 1 s") as caught:
            client.session(image_id="never", wait_s=30).__enter__()
        assert caught.value.reason == "DEADLINE_EXCEEDED"


def test_a_session_embeds_its_own_picture_again(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the client has embedded so many others meanwhile that it keeps this one no longer."""
    monkeypatch.setattr(image_cache, "_MAX_IMAGES", 1)
    with stack.client(namespace="forgotten") as client:
        embedded = client.embed(picture(61))
        client.embed(picture(62))
        with stack.client(namespace="forgotten") as other:
            other.delete(embedded.image_id, embedding=True)
        with client.session(picture(61)) as session:
            assert session.click(30, 20).content_key == embedded.content_key


def test_an_image_that_was_lost_is_embedded_again(stack: Stack) -> None:
    noise = np.random.default_rng(81).integers(0, 256, (50, 70, 3), np.uint8)
    others = [np.random.default_rng(82 + index).integers(0, 256, (50, 70, 3), np.uint8) for index in range(3)]
    cache = ("--cache-bytes", "5000000")  # one image: any other drives it out
    with server("maskwire_decoder", stack.redis_url, *cache) as address, Client(stack.encoder, address) as client:
        for image in others:
            client.embed(image)
        with client.session(noise, image_id="fleeting", **LOGITS) as session:
            before = session.click(30, 20)
            for image in others:
                client.segment(image)
            with stack.client() as other:
                other.delete("fleeting", embedding=True)
                after = session.click(40, 40, positive=False)
                assert after.content_key == before.content_key
                assert other.get("fleeting").content_key == before.content_key
                other.embed(others[0], image_id="fleeting")
            undone = session.undo()
            assert undone is not None
            np.testing.assert_array_equal(undone.logits, before.logits)  # the session's image is what it was


class Decoders:
    """Two decoders, of which one can be ended."""

    def __init__(self, stack: Stack, cleanup: contextlib.ExitStack) -> None:
        self.processes: dict[str, Warm] = {}
        for _ in range(2):
            port = free_port()
            started = running_module("maskwire_decoder", "--port", str(port), "--redis-url", stack.redis_url)
            self.processes[f"127.0.0.1:{port}"] = cleanup.enter_context(started)
        for address, process in self.processes.items():
            wait_until(lambda address=address: health(address) == "SERVING", process=process)  # type: ignore[misc]
        self.addresses = ",".join(self.processes)

    def end(self, client: Client, image_id: str, number: signal.Signals) -> None:
        """Ends the one that the client's calls on an image go to first."""
        _, server = client._client._connection.servers.decoders.pick(image_id, 0)
        process = self.processes[server.split()[-1]]
        os.kill(process.pid, number)
        if number == signal.SIGKILL:
            process.wait()


def script(session: Any, between: Callable[[int], None] = lambda step: None) -> list[Result | None]:
    """Clicks, undo, redo and a second object; `between` is called after each step."""
    steps: list[Callable[[], Result | None]] = [
        *(lambda clicked=clicked: click(session, clicked) for clicked in CLICKS[:4]),  # type: ignore[misc]
        session.undo,
        session.undo,
        session.redo,
        lambda: (session.new_object(), session.box(135, 40, 500, 345))[1],
        lambda: session.click(300, 330, positive=False),
        session.undo,
        session.redo,
    ]
    results = []
    for index, step in enumerate(steps):
        results.append(step())
        between(index)
    session.object_id = "object-1"
    results += [session.redo(), click(session, CLICKS[4])]
    return results


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_session_goes_on_when_its_decoder_ends(stack: Stack, photo: Path, number: signal.Signals) -> None:
    with contextlib.ExitStack() as cleanup:
        decoders = Decoders(stack, cleanup)
        undisturbed_client = cleanup.enter_context(stack.client())
        client = cleanup.enter_context(Client(stack.encoder, decoders.addresses))
        with undisturbed_client.session(photo, image_id="struck", **LOGITS) as session:
            expected = script(session)
        with client.session(photo, image_id="struck", **LOGITS) as session:
            results = script(session, lambda step: decoders.end(client, "struck", number) if step == 8 else None)
        for mask, same in zip(expected, results, strict=True):
            assert mask is not None
            assert same is not None
            np.testing.assert_allclose(mask.logits, same.logits, atol=1e-4)
            assert mask.rle == same.rle


def test_no_prompt_is_lost_when_a_decoder_stops_while_it_is_asked(stack: Stack, photo: Path) -> None:
    async def scenario(decoders: Decoders) -> None:
        async with AsyncClient(stack.encoder, decoders.addresses) as client:
            async with client.session(photo, image_id="asked") as session:
                followed = session.masks()
                _, server = client._connection.servers.decoders.pick("asked", 0)
                answers: list[asyncio.Future[Any]] = []
                for index in range(30):
                    answers.append(session.click(20 + 18 * index, 200, positive=index % 3 > 0))
                    answers.append(session.hover(300, 10 * index))
                    if index == 10:
                        decoders.processes[server.split()[-1]].terminate()
                    await asyncio.sleep(0.02)
                results = await asyncio.gather(*answers)
                clicks = results[::2]
                assert all(isinstance(result, Result) for result in clicks)
                assert [len(result._prompt.points) for result in clicks] == list(range(1, 31))
            masks = [result async for result in followed]
            assert [mask.rle for mask in masks if not mask.is_preview] == [result.rle for result in clicks]

    with contextlib.ExitStack() as cleanup:
        asyncio.run(scenario(Decoders(stack, cleanup)))


def test_a_session_that_is_left_leaves_nothing_behind(stack: Stack, photo: Path) -> None:
    """A decoder that is told to stop waits for its streams: here it must find none."""

    async def scenario(address: str) -> None:
        async with AsyncClient(stack.encoder, address) as client:
            await client.embed(photo, image_id="left")
            for answered in (True, False) * 5:
                async with client.session("left") as session:
                    session.hover(9, 9)
                    click = session.click(260, 130)
                    if answered:
                        await click
                if not answered:
                    with pytest.raises(MaskwireError, match="closed"):
                        await click
                with pytest.raises(MaskwireError, match="closed"):
                    await session.undo()

    port = free_port()
    options = ("--port", str(port), "--redis-url", stack.redis_url, "--drain-s", "60")
    with running_module("maskwire_decoder", *options) as process:
        wait_until(lambda: health(f"127.0.0.1:{port}") == "SERVING", process=process)
        asyncio.run(scenario(f"127.0.0.1:{port}"))
        process.terminate()
        assert process.wait(30) == 0
