"""The SDK against running services."""

import asyncio
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from maskwire import (
    AsyncClient,
    Client,
    EmbeddedImage,
    ImageNotFound,
    InvalidRequest,
    OutputMissing,
    Prompt,
    ServerUnavailable,
)
from maskwire.cli.free_ports import free_port
from maskwire.v1 import decoder_pb2, encoder_pb2, encoder_pb2_grpc
from PIL import Image

from testing.servers import Stack


def noise(seed: int, width: int = 90, height: int = 60) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_the_readme_example(stack: Stack, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    with Client() as mw:
        image = mw.embed(photo, image_id="photo-1")
        assert (image.image_id, image.width, image.height, image.model) == ("photo-1", 600, 400, "demo")
        result = mw.segment("photo-1", points=[(300, 200)], labels=[1])
        assert result.mask.shape == (400, 600)
        assert result.mask.dtype == bool
        assert 0 < result.score <= 1
        assert result.rle["size"] == [400, 600]
        assert all(polygon.shape[1] == 2 for polygon in result.polygons())
        assert result.logits.shape == (128, 128)
        result.save_overlay(tmp_path / "out.png")
        assert Image.open(tmp_path / "out.png").size == (600, 400)
        boxed = mw.segment(photo, box=(75, 50, 500, 380))
        assert boxed.cached
        assert boxed.mask.shape == (400, 600)


def test_any_form_of_image_is_the_same_image(stack: Stack, photo: Path) -> None:
    data = photo.read_bytes()
    with stack.client() as client:
        by_path = client.embed(photo)
        with photo.open("rb") as file:
            same = [client.embed(image) for image in (str(photo), data, bytearray(data), io.BytesIO(data), file)]
        assert {image.content_key for image in same} == {by_path.content_key}
        assert all(image.cached for image in same)
        pixels = np.array(Image.open(photo))
        arrays = [client.embed(image) for image in (pixels, Image.fromarray(pixels))]
        assert len({image.content_key for image in arrays}) == 1
        opened = client.embed(Image.open(photo))
        assert opened.content_key == by_path.content_key
        for bad in (pixels[:0], pixels[None], 7, "no/such/file.jpg"):
            with pytest.raises(InvalidRequest):
                client.embed(bad)  # type: ignore[arg-type]


def test_a_deep_picture_and_its_8_bit_original_have_the_same_masks(stack: Stack, photo: Path) -> None:
    grey = np.array(Image.open(photo).convert("L"))
    grey[0, :2] = 0, 255
    prompt: dict[str, Any] = {"box": (150, 100, 450, 330)}
    with stack.client() as client:
        original = client.segment(grey, **prompt)
        deep = grey.astype(np.uint16)
        for array in (deep * 16, deep * 256 + 99, grey / 255, Image.fromarray(deep * 4)):
            mask = client.segment(array, **prompt).mask
            np.testing.assert_array_equal(mask, original.mask)
        plain, stretched, raw = (client.embed(deep * 16, stretch=stretch) for stretch in ("auto", "range", "none"))
        assert [image.stretch for image in (plain, stretched, raw)] == ["range", "range", "none"]
        assert len({image.content_key for image in (plain, stretched, raw)}) == 3
        assert client.get(plain.image_id).stretch == "range"
        colours = np.array(Image.open(photo))
        straight = client.segment(colours, **prompt)
        swapped = client.segment(colours[..., ::-1], channels="bgr", **prompt)
        assert swapped.cached
        np.testing.assert_array_equal(straight.mask, swapped.mask)
        with client.session(colours[..., ::-1], channels="bgr", multimask=True) as session:
            np.testing.assert_array_equal(session.box(*prompt["box"]).mask, straight.mask)


def test_another_client_and_another_name_do_not_encode_again(stack: Stack, tmp_path: Path) -> None:
    Image.fromarray(noise(1)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    with stack.client() as client:
        assert not client.segment(tmp_path / "a.png", points=[(10, 10)]).cached
        assert client.segment(tmp_path / "a.png", points=[(10, 10)]).cached
    with stack.client() as client:
        assert client.segment(tmp_path / "b.png", points=[(10, 10)], image_id="other").cached


def test_a_reused_name_means_the_new_image(stack: Stack, photo: Path) -> None:
    with stack.client() as client, stack.client() as other:
        client.embed(photo, image_id="reused")
        first = client.segment("reused", points=[(40, 30)])
        assert other.segment("reused", points=[(40, 30)]).mask.shape == (400, 600)
        client.embed(noise(2), image_id="reused")
        for each in (client, other):  # the decoder and both clients have known the old one
            second = each.segment("reused", points=[(40, 30)])
            assert second.mask.shape == (60, 90)
            assert second.content_key != first.content_key
        expected = client.segment(noise(2), points=[(40, 30)])
        np.testing.assert_array_equal(second.mask, expected.mask)
        assert all(polygon[:, 0].max() < 600 for polygon in first.polygons())  # still of its own image
        assert first.logits.shape == (128, 128)
        # A path whose name was given to another image since is embedded again.
        again = client.segment(photo, image_id="reused", points=[(40, 30)])
        assert again.mask.shape == (400, 600)
        other.embed(noise(2), image_id="reused")  # by somebody else, unseen
        assert client.segment(photo, image_id="reused", points=[(40, 30)]).mask.shape == (400, 600)


def test_a_changed_file_is_another_image(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(noise(3)).save(path)
    with stack.client() as client:
        first = client.segment(path, points=[(10, 10)])
        Image.fromarray(noise(4, 50, 50)).save(path)
        os.utime(path, (1, 1))
        second = client.segment(path, points=[(10, 10)])
        assert not second.cached
        assert first.mask.shape == (60, 90)
        assert second.mask.shape == (50, 50)


def test_an_image_that_the_store_lost_is_embedded_again(stack: Stack) -> None:
    with stack.client() as client, stack.client() as other:
        client.embed(noise(5), image_id="lost")
        before = client.segment("lost", points=[(40, 30)])
        assert client.delete("lost", embedding=False)
        with pytest.raises(ImageNotFound) as caught:
            other.segment("lost", points=[(40, 30)])
        assert caught.value.reason == "IMAGE_NOT_FOUND"
        assert client.get(client.embed(noise(5), image_id="lost").image_id).cached
        other.delete("lost", embedding=True)
        after = client.segment("lost", points=[(40, 30)])
        assert not after.cached
        np.testing.assert_array_equal(before.mask, after.mask)


def test_an_image_that_the_store_lost_is_not_taken_for_another_of_its_name(stack: Stack) -> None:
    first, second = noise(31), noise(32)
    with stack.client() as client, stack.client() as other:
        image = client.embed(first, image_id="reused")
        client.embed(second, image_id="reused")
        other.embed(first, image_id="the same")
        other.delete("the same", embedding=True)
        with pytest.raises(ImageNotFound):
            client.segment(image, points=[(20, 30)])


def test_outputs_and_candidates(stack: Stack, photo: Path) -> None:
    with stack.client() as client:
        result = client.segment(photo, points=[(300, 200), (10, 10)], labels=[1, 0], every=True)
        assert len(result.candidates) == 3
        assert result.score == max(mask.score for mask in result.candidates)
        for mask in result.candidates:  # each fetches its own forms
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(mask.png))) > 0, mask.array)
            assert mask.logits.shape == (128, 128)
        single = client.segment(photo, box=(75, 50, 500, 380), multimask=False, outputs=("packed_bits", "polygons"))
        assert len(single.candidates) == 1
        refined = client.segment(photo, points=[(300, 200)], mask=result.logits)
        assert refined.mask.shape == (400, 600)
        prompts = [Prompt(points=[(300, 200)], prompt_id="cup"), Prompt(box=(5, 5, 300, 300)), Prompt()]
        cup, boxed, prominent = client.segment_objects(photo, prompts)
        assert (cup.prompt_id, boxed.prompt_id) == ("cup", "")
        np.testing.assert_array_equal(cup.mask, client.segment(photo, points=[(300, 200)]).mask)
        np.testing.assert_array_equal(boxed.mask, client.segment(photo, box=(5, 5, 300, 300)).mask)
        np.testing.assert_array_equal(prominent.mask, client.segment(photo).mask)
        asked = client.segment(photo, outputs=("polygons",)).polygons()
        assert [polygon.tolist() for polygon in prominent.polygons()] == [polygon.tolist() for polygon in asked]


def test_clients_that_share_a_name_get_their_own_masks(stack: Stack) -> None:
    """Each gives its image itself, so it is that image that is segmented, whoever uses the name at the moment."""
    images = [noise(40 + index, 50 + 10 * index, 60) for index in range(4)]
    wrong: list[Any] = []

    def use(image: Any) -> None:
        with stack.client() as client:
            shapes = {client.segment(image, image_id="shared", points=[(20, 20)]).mask.shape for _ in range(15)}
            wrong.extend(shapes - {image.shape[:2]})

    users = [threading.Thread(target=use, args=(image,)) for image in images]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert wrong == []


def test_an_overlay_is_drawn_on_its_own_image_or_none(stack: Stack) -> None:
    with stack.client() as client, stack.client() as other:
        client.embed(noise(50), image_id="drawn")
        assert client.segment("drawn").overlay().size == (90, 60)
        other.embed(noise(51, 70, 70), image_id="drawn")
        with pytest.raises(OutputMissing, match="not seen the picture"):
            client.segment("drawn").overlay()
        assert client.segment("drawn").overlay(noise(51, 70, 70)).size == (70, 70)


def test_clients_made_in_many_threads_share_a_loop(stack: Stack, photo: Path) -> None:
    shapes = []

    def use() -> None:
        with stack.client() as client:
            shapes.append(client.segment(photo, points=[(300, 200)]).mask.shape)

    users = [threading.Thread(target=use) for _ in range(8)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert shapes == [(400, 600)] * 8


def test_pil_images_are_as_a_viewer_shows_them(stack: Stack) -> None:
    image = Image.fromarray(noise(52))
    exif = image.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    with stack.client() as client:
        assert client.embed(buffer).width == 60
        assert client.embed(Image.open(buffer)).width == 60
        assert client.embed(image.convert("CMYK")).width == 90
        assert client.segment(buffer).overlay().size == (60, 90)


def test_wrong_prompts_name_the_field(stack: Stack, photo: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"points": [(1, 1)], "labels": [1, 0]}, "labels"),
        ({"points": [(1, 2, 3)]}, "points[0]"),
        ({"points": [(1, 1), (601, 1)]}, "points[1]"),
        ({"points": [(1, 1)], "labels": [5]}, "labels[0]"),
        ({"points": (5, 5, 5)}, "points"),
        ({"points": [(5, "x")]}, "points"),
        ({"labels": [2**40], "points": [(5, 5)]}, "labels[0]"),
        ({"wait_s": -1}, "wait_s"),
        ({"box": (1, 2, 3)}, "box"),
        ({"box": (100, 2, 3, 30)}, "box"),
        ({"mask": np.zeros((7, 7))}, "mask"),
        ({"mask": np.zeros(7)}, "mask"),
        ({"outputs": ("gif",)}, "outputs"),
        ({"logits_dtype": "int8"}, "logits_dtype"),
        ({"max_hole_area": -1}, "max_hole_area"),
        ({"mask_threshold": float("nan")}, "mask_threshold"),
    ]
    with stack.client() as client:
        for arguments, field in cases:
            with pytest.raises(InvalidRequest) as caught:
                client.segment(photo, **arguments)
            assert caught.value.field == field
        with pytest.raises(ImageNotFound):
            client.segment("never-seen")
        with pytest.raises(InvalidRequest):
            client.segment()
        with pytest.raises(InvalidRequest):
            client.segment_objects(photo, [])
    with pytest.raises(InvalidRequest, match="has no address"):
        Client(",")


def test_namespaces_do_not_see_each_other(stack: Stack) -> None:
    with stack.client(namespace="a") as a, stack.client(namespace="b") as b:
        a.embed(noise(6), image_id="mine")
        with pytest.raises(ImageNotFound):
            b.segment("mine")
        with pytest.raises(ImageNotFound):
            b.get("mine")
        assert not b.delete("mine")
        assert a.get("mine").image_id == "mine"


def test_many_images(stack: Stack, photo: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    images: list[Any] = [noise(seed) for seed in range(20, 26)] + [bad, photo]
    with stack.client() as client:
        outcomes = list(client.embed_many(images, errors="yield"))
    assert len(outcomes) == len(images)
    (failed,) = [outcome for _, outcome in outcomes if not isinstance(outcome, EmbeddedImage)]
    assert isinstance(failed, InvalidRequest)
    assert failed.reason == "IMAGE_UNREADABLE"


def test_async_client(stack: Stack, photo: Path) -> None:
    async def scenario() -> None:
        async with AsyncClient(stack.encoder, stack.decoder) as client:
            image = await client.embed(photo)
            masks = await asyncio.gather(
                *(client.segment(image.image_id, points=[(x, 200)]) for x in range(50, 550, 50))
            )
            assert all(result.mask.shape == (400, 600) for result in masks)
            with pytest.raises(OutputMissing, match="outputs="):
                masks[0].polygons()
            assert [model.name for model in await client.models()] == ["demo"]
            results = [image async for image in client.embed_many([photo, noise(7)])]
            assert len(results) == 2

    asyncio.run(scenario())


def test_a_deletion_whose_answer_was_lost_is_told(stack: Stack) -> None:
    class Losing(encoder_pb2_grpc.EncoderServiceServicer):
        """Passes deletions on to the encoder, and loses the first answer."""

        def __init__(self) -> None:
            self.calls = 0

        def DeleteImage(self, request: encoder_pb2.DeleteImageRequest, context: Any) -> Any:
            self.calls += 1
            with grpc.insecure_channel(stack.encoder) as channel:
                response = encoder_pb2_grpc.EncoderServiceStub(channel).DeleteImage(request)
            if self.calls == 1:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")
            return response

    losing, server = Losing(), grpc.server(ThreadPoolExecutor(2))
    encoder_pb2_grpc.add_EncoderServiceServicer_to_server(losing, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with stack.client() as client, Client(f"127.0.0.1:{port}", stack.decoder) as behind:
        client.embed(noise(33), image_id="deleted once")
        assert behind.delete("deleted once")
        assert losing.calls == 2
        assert not behind.delete("deleted once")  # another call
    server.stop(0)


def test_an_unreachable_server_is_named_with_a_remedy() -> None:
    address = f"localhost:{free_port()}"
    with Client(address, address, retry_s=0.5) as client:
        with pytest.raises(ServerUnavailable, match=f"encoder at {address}.*maskwire up"):
            client.models()
        with pytest.raises(ServerUnavailable, match=f"decoder at {address}.*MASKWIRE_DECODER"):
            client.segment("photo-1")


def test_a_message_that_is_too_large_is_refused_with_a_remedy(stack: Stack) -> None:
    masks = [Prompt(mask=np.zeros((256, 256), np.float32))] * 20
    with stack.client() as client, pytest.raises(InvalidRequest, match=r"larger than max.*fewer prompts") as caught:
        client.segment_objects("photo-1", masks)
    assert caught.value.reason == "MESSAGE_TOO_LARGE"


def test_a_server_of_the_other_kind_is_told(stack: Stack) -> None:
    with Client(stack.decoder, stack.encoder) as swapped:
        with pytest.raises(InvalidRequest, match=f"{stack.encoder} is not a Maskwire decoder.*--decoder") as caught:
            swapped.segment(image_id="photo-1")
        assert caught.value.reason == "WRONG_SERVER"
        with pytest.raises(InvalidRequest, match=r"is not a Maskwire encoder.*MASKWIRE_ENCODER"):
            swapped.models()


def test_a_prefetched_image_is_in_the_decoders_memory_at_the_first_click(stack: Stack, decoder: Any) -> None:
    with stack.client() as client:
        for seed, fetched in ((31, True), (32, False)):
            name = client.embed(noise(seed)).image_id
            if fetched:
                client.prefetch(image_id=name)
            assert decoder.Segment(decoder_pb2.SegmentRequest(image_id=name)).timings.in_memory == fetched


def test_a_call_that_a_stopping_server_cancels_is_made_again() -> None:
    """gRPC answers CANCELLED to what came while it shuts down and was not begun."""

    class Stopping(encoder_pb2_grpc.EncoderServiceServicer):
        calls = 0

        def ListModels(self, request: Any, context: Any) -> encoder_pb2.ListModelsResponse:
            self.calls += 1
            if self.calls == 1:
                context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
            return encoder_pb2.ListModelsResponse(models=[encoder_pb2.ModelInfo(name="found")])

    server = grpc.server(ThreadPoolExecutor(1))
    encoder_pb2_grpc.add_EncoderServiceServicer_to_server(Stopping(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}") as client:
            assert [model.name for model in client.models()] == ["found"]
    finally:
        server.stop(None)
