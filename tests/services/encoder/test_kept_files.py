"""Kept files of images: regions are cut from them, and they are deleted with the images."""

import io
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import redis
from maskwire.v1 import encoder_pb2 as pb
from maskwire.v1 import encoder_pb2_grpc, types_pb2
from maskwire_core.storage.inventory import Inventory
from maskwire_core.storage.store import Store
from PIL import Image

from testing.servers import Stack
from testing.wire import failing, frames, picture

SPACE = "kept-files"


def region(image: types_pb2.ImageInfo, box: tuple[int, int, int, int], **fields: Any) -> pb.EncodeImageHeader:
    sides = dict(zip(("x_min_px", "y_min_px", "x_max_px", "y_max_px"), box, strict=True))
    of = {"region_of": image.content_key, "namespace": image.namespace, "from_source": True}
    return pb.EncodeImageHeader(**{"region": types_pb2.Box(**sides), **of, **fields})


def cut(encoder: Any, header: pb.EncodeImageHeader) -> pb.EncodeImageResponse:
    response: pb.EncodeImageResponse = encoder.EncodeImage(iter([pb.EncodeImageRequest(header=header)]))
    return response


def source_key(image: types_pb2.ImageInfo) -> str:
    return f"maskwire:source:{{{image.namespace}/{image.content_key}}}"


def files() -> dict[str, bytes]:
    """Pictures of 400x300 pixels as a viewer shows them, of which decoders make different things."""
    random_pixels = np.random.default_rng(3).integers(0, 256, (300, 400, 4), np.uint8)
    smooth = Image.fromarray(random_pixels[:30, :40, :3]).resize((400, 300))
    saved = {}

    def save(name: str, image: Image.Image, kind: str, **options: Any) -> None:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        saved[name] = buffer.getvalue()

    upright = Image.Exif()
    upright[0x0112] = 6
    save("turned JPEG", smooth.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=upright)
    save("transparent PNG", Image.fromarray(random_pixels), "PNG")
    dark = (random_pixels[..., 0].astype(np.uint16) * 9 + 1000).astype(np.uint16)
    save("dark 16-bit PNG", Image.fromarray(dark), "PNG")
    save("grey WebP", smooth.convert("L"), "WEBP")
    return saved


def test_regions_are_those_of_parts_that_are_sent(stack: Stack, encoder: Any) -> None:
    """Embeddings are equal to those of the same parts that a client cuts out and sends, number by number."""
    chance, store = random.Random(1), Store(stack.redis_url)
    for data in files().values():
        image = encoder.EncodeImage(frames(data, 1 << 16, namespace=SPACE, keep_source=True)).image
        with stack.client(namespace=SPACE) as client:
            for _ in range(3):
                left, top = chance.randrange(300), chance.randrange(200)
                box = left, top, chance.randrange(left + 1, 401), chance.randrange(top + 1, 301)
                answer = cut(encoder, region(image, box))
                assert (answer.cached, answer.image.width_px, answer.image.height_px) == (False, 400, 300)
                sent = client.segment(data, points=[(left, top)], region=box)
                assert sent.content_key != answer.image.content_key
                ours, theirs = (
                    store.get_embedding(SPACE, each) for each in (answer.image.content_key, sent.content_key)
                )
                assert ours is not None
                assert theirs is not None
                assert ours.header.region == theirs.header.region
                for name, tensor in theirs.tensors.items():
                    np.testing.assert_array_equal(ours.tensors[name], tensor, name)
    store.close()


def test_a_region_is_cut_once_for_all_who_ask(encoder: Any) -> None:
    image = encoder.EncodeImage(frames(picture(31, 300, 200), namespace=SPACE, keep_source=True)).image
    header = region(image, (10, 10, 200, 150))
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: cut(encoder, header), range(8)))
    assert sum(not answer.cached for answer in answers) == 1
    assert len({answer.image.content_key for answer in answers}) == 1
    mixed = iter(
        [
            pb.EncodeImagesRequest(request_id="a", header=header),
            pb.EncodeImagesRequest(request_id="b", header=region(image, (11, 10, 200, 150))),
        ]
    )
    cached = {each.request_id: each.result.cached for each in encoder.EncodeImages(mixed)}
    assert cached == {"a": True, "b": False}


def test_a_file_is_decoded_once_for_regions_that_follow_one_another(stack: Stack, encoder: Any) -> None:
    """As long as it is kept: a copy in memory answers for no file that is gone."""
    with redis.Redis.from_url(stack.redis_url) as raw:
        image = encoder.EncodeImage(frames(picture(30, 300, 200), namespace=SPACE, keep_source=True)).image
        assert not cut(encoder, region(image, (0, 0, 100, 100))).cached
        value = raw.get(source_key(image))
        raw.set(source_key(image), bytes(len(value)))  # which cannot be decoded
        assert not cut(encoder, region(image, (1, 0, 101, 100))).cached
        raw.delete(source_key(image))
        assert failing(lambda: cut(encoder, region(image, (2, 0, 102, 100))))[1] == "SOURCE_NOT_KEPT"
        raw.set(source_key(image), bytes(len(value)))
        assert failing(lambda: cut(encoder, region(image, (3, 0, 103, 100))))[1] == "SOURCE_NOT_KEPT"


def test_a_stored_image_is_sent_again_to_be_kept(stack: Stack, encoder: Any) -> None:
    data = picture(32, 300, 200)
    with redis.Redis.from_url(stack.redis_url) as raw:
        image = encoder.EncodeImage(frames(data, namespace=SPACE)).image
        assert not raw.exists(source_key(image))
        again = encoder.EncodeImage(frames(data, namespace=SPACE, keep_source=True, ttl_s=600))
        assert again.cached
        assert raw.get(source_key(image))[32:] == data
        assert 500_000 < raw.pttl(source_key(image)) <= 600_000
        # A kept one is not sent: the header is enough, and makes it live longer.
        (header,) = (each for each in frames(data, namespace=SPACE, keep_source=True) if each.HasField("header"))
        assert encoder.EncodeImage(iter([header])).cached
        assert raw.pttl(source_key(image)) > 600_000
        (header,) = (
            each for each in frames(data, namespace=SPACE, keep_source=True, ttl_s=9) if each.HasField("header")
        )
        assert encoder.EncodeImage(iter([header])).cached
        assert raw.pttl(source_key(image)) > 600_000  # nobody makes it live for less


def test_deleted_means_deleted(stack: Stack, encoder: Any) -> None:
    with redis.Redis.from_url(stack.redis_url) as raw:
        data = picture(33, 300, 200)
        image = encoder.EncodeImage(frames(data, namespace=SPACE, image_id="gone", keep_source=True)).image
        header = region(image, (0, 0, 100, 100))
        cut(encoder, header)
        assert raw.exists(source_key(image))
        inventory = Inventory(Store(stack.redis_url))
        before = inventory.summaries()[SPACE]
        assert before.sources >= 1
        assert before.source_bytes >= len(data)
        encoder.DeleteImage(pb.DeleteImageRequest(namespace=SPACE, image_id="gone", delete_embedding=True))
        assert not raw.exists(source_key(image))
        assert failing(lambda: cut(encoder, header)) == ("NOT_FOUND", "EMBEDDING_EXPIRED", "image_id")
        # A file whose image the store has dropped is purged, too.
        kept = encoder.EncodeImage(frames(picture(34, 300, 200), namespace="dropped", keep_source=True)).image
        raw.delete(f"maskwire:embedding:{{dropped/{kept.content_key}}}")
        assert inventory.delete_dangling_sources("elsewhere") == 0
        assert inventory.delete_dangling_sources("dropped") == 1
        assert not raw.exists(source_key(kept))


def test_what_is_not_kept_or_damaged(stack: Stack, encoder: Any) -> None:
    not_kept = ("FAILED_PRECONDITION", "SOURCE_NOT_KEPT", "header.from_source")
    with redis.Redis.from_url(stack.redis_url) as raw:
        data = picture(35, 300, 200)
        image = encoder.EncodeImage(frames(data, namespace=SPACE)).image
        header = region(image, (0, 0, 100, 100))
        assert failing(lambda: cut(encoder, header)) == not_kept
        encoder.EncodeImage(frames(data, namespace=SPACE, keep_source=True))
        value = raw.get(source_key(image))
        raw.set(source_key(image), value[:-1] + bytes([value[-1] ^ 1]), keepttl=True)
        assert failing(lambda: cut(encoder, header)) == not_kept
        assert not raw.exists(source_key(image))
        # Another tenant's file is none.
        encoder.EncodeImage(frames(data, namespace=SPACE, keep_source=True))
        assert failing(lambda: cut(encoder, region(image, (0, 0, 100, 100), namespace="others")))[1] == (
            "EMBEDDING_EXPIRED"
        )
        assert not cut(encoder, header).cached


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"region": None, "region_of": ""}, "BAD_SOURCE", "header.from_source"),
        ({"sha256": bytes(32)}, "BAD_SOURCE", "header.from_source"),
        ({"size_bytes": 5}, "BAD_SOURCE", "header.from_source"),
        ({"width_px": 100, "height_px": 100}, "BAD_SOURCE", "header.from_source"),
        ({"stretch": types_pb2.STRETCH_RANGE}, "BAD_SOURCE", "header.from_source"),
        ({"keep_source": True}, "BAD_SOURCE", "header.keep_source"),
        ({"region": types_pb2.Box(x_max_px=301, y_max_px=9)}, "BAD_REGION", "header.region"),
    ],
)
def test_wrong_headers(encoder: Any, fields: dict[str, Any], reason: str, field: str) -> None:
    image = encoder.EncodeImage(frames(picture(36, 300, 200), namespace=SPACE, keep_source=True)).image
    header = region(image, (0, 0, 100, 100), **fields)
    assert failing(lambda: cut(encoder, header)) == ("INVALID_ARGUMENT", reason, field)


def test_frames_and_smaller_versions_are_not_kept(encoder: Any) -> None:
    data = picture(37)
    refused = failing(lambda: encoder.EncodeImage(frames(data, keep_source=True, width_px=600, height_px=400)))
    assert refused == ("INVALID_ARGUMENT", "BAD_SOURCE", "header.keep_source")
    refused = failing(lambda: list(encoder.EmbedImage(frames(data, keep_source=True))))
    assert refused == ("INVALID_ARGUMENT", "NOT_STORED", "header.keep_source")


def test_an_encoder_keeps_nothing_unless_it_is_told_to(exact: Stack) -> None:
    with grpc.insecure_channel(exact.encoder) as channel:
        stub = encoder_pb2_grpc.EncoderServiceStub(channel)
        refused = failing(lambda: stub.EncodeImage(frames(picture(38), keep_source=True)))
    assert refused == ("FAILED_PRECONDITION", "SOURCES_NOT_KEPT", "header.keep_source")
