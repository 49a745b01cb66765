"""Listing of stored images, over a real store, encoder and cluster."""

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import redis
from maskwire import AsyncClient, InvalidRequest
from maskwire.v1 import encoder_pb2, encoder_pb2_grpc
from maskwire_core.storage import keys, listing
from maskwire_core.storage.store import Store

from testing.servers import Stack
from testing.wire import failing, picture
from tests.unit.storage.test_listing import KEY, all_pages, put


@pytest.fixture
def encoder(stack: Stack) -> Iterator[Any]:
    with grpc.insecure_channel(stack.encoder) as channel:
        yield encoder_pb2_grpc.EncoderServiceStub(channel)


def test_a_call_does_a_bounded_amount_of_work(store: Store, raw: redis.Redis) -> None:
    put(store, "rare", ["one"])
    raw.mset({keys.alias("crowd", f"n{number}"): KEY for number in range(25_000)})
    images, token = listing.list_page(store, "rare", "", 0, "")
    assert token or list(images) == ["one"]
    assert set(all_pages(store, "rare")) == {"one"}


def test_the_client_lists_its_images(stack: Stack) -> None:
    with stack.client(namespace="shelf") as client, stack.client(namespace="other-shelf") as other:
        stored = {name: client.embed(picture(4000 + number), name) for number, name in enumerate(("a1", "a2", "b1"))}
        other.embed(picture(4009), "a9")
        listed = {each.image_id: each for each in client.images()}
        assert set(listed) == set(stored)
        for name, each in listed.items():
            assert (each.width, each.height, each.model) == (60, 40, "demo")
            assert each.content_key == stored[name].content_key
            assert abs((each.expires_at - stored[name].expires_at).total_seconds()) < 5
            assert client.segment(each, points=[(3, 3)]).image_id == name
        assert {each.image_id for each in client.images("a")} == {"a1", "a2"}
        assert len(list(client.images(limit=2))) == 2
        assert list(client.images(limit=0)) == []
        assert [each.image_id for each in other.images()] == ["a9"]
        with pytest.raises(InvalidRequest, match="limit"):
            list(client.images(limit=-1))
        client.delete("a1")
        assert {each.image_id for each in client.images()} == {"a2", "b1"}

    async def asynchronous() -> set[str]:
        async with AsyncClient(stack.encoder, stack.decoder, namespace="shelf") as asking:
            return {each.image_id async for each in asking.images(prefix="b")}

    assert asyncio.run(asynchronous()) == {"b1"}


def test_wrong_requests_are_refused(encoder: Any) -> None:
    token = base64.urlsafe_b64encode(b"-1.0.x").decode()
    for fields, reason, field in (
        ({"page_size": 1001}, "BAD_PAGE_SIZE", "page_size"),
        ({"page_token": "nonsense"}, "BAD_PAGE_TOKEN", "page_token"),
        ({"page_token": "ü"}, "BAD_PAGE_TOKEN", "page_token"),
        ({"page_token": token}, "BAD_PAGE_TOKEN", "page_token"),
        ({"prefix": "x" * 257}, "BAD_PREFIX", "prefix"),
        ({"namespace": "ü"}, "BAD_NAMESPACE", "namespace"),
    ):
        request = encoder_pb2.ListImagesRequest(**fields)  # type: ignore[arg-type]
        assert failing(lambda request=request: encoder.ListImages(request)) == ("INVALID_ARGUMENT", reason, field)
