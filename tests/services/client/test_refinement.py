"""Logits saved by one call and refined by a later one."""

import contextlib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from maskwire import Client, InvalidRequest, Prompt, Result
from maskwire.cli.free_ports import free_port

from testing.servers import Stack, server

LOGITS: Any = {"outputs": ("rle", "logits"), "logits_dtype": "float32"}
ONE, TWO, THREE = [(260, 130)], [(260, 130), (300, 330)], [(260, 130), (300, 330), (90, 90)]


@pytest.fixture
def client(stack: Stack, photo: Path) -> Iterator[Client]:
    """Its own namespace, so that tests do not see what others saved."""
    with stack.client(namespace=f"n{np.random.default_rng().integers(1 << 40)}") as client:
        client.embed(photo, image_id="cup")
        yield client


def refined_by_hand(client: Client, logits: Any, **prompt: Any) -> Result:
    return client.segment("cup", mask=logits, **prompt, **LOGITS)


def test_a_further_click_refines_what_was_saved(client: Client) -> None:
    first = client.segment("cup", points=ONE, save_logits=True, load_logits=True, **LOGITS)
    assert not first.refined
    plain = client.segment("cup", points=TWO, labels=[1, 0], **LOGITS)
    second = client.segment("cup", points=TWO, labels=[1, 0], save_logits=True, load_logits=True, **LOGITS)
    assert second.refined
    np.testing.assert_array_equal(
        second.logits, refined_by_hand(client, first.logits, points=TWO, labels=[1, 0]).logits
    )
    assert not np.array_equal(second.logits, plain.logits)
    # The one with one point fewer is nearer than the one with two fewer.
    third = client.segment("cup", points=THREE, labels=[1, 0, 0], load_logits=True, **LOGITS)
    np.testing.assert_array_equal(
        third.logits, refined_by_hand(client, second.logits, points=THREE, labels=[1, 0, 0]).logits
    )
    # The order of points is nobody's business; the same request again is not its own beginning.
    turned = client.segment("cup", points=TWO[::-1], labels=[0, 1], load_logits=True, **LOGITS)
    np.testing.assert_allclose(
        turned.logits, refined_by_hand(client, first.logits, points=TWO[::-1], labels=[0, 1]).logits, atol=1e-4
    )


def test_what_does_not_fit_is_not_refined(client: Client, stack: Stack, photo: Path) -> None:
    client.segment("cup", points=ONE, save_logits=True)
    client.segment("cup", box=(135, 40, 500, 345), save_logits=True)
    for prompt in (
        {"points": ONE},  # the same
        {"points": TWO, "labels": [0, 1]},  # another label
        {"points": [(260, 131), (300, 330)]},  # another place
        {"points": TWO, "box": (135, 40, 500, 346)},  # other boxes: x_min alone does not make one
        {"points": TWO, "box": (135, 41, 500, 345)},
    ):
        assert not client.segment("cup", load_logits=True, **prompt).refined  # type: ignore[arg-type]
    boxed = client.segment("cup", points=ONE, box=(135, 40, 500, 345), load_logits=True, **LOGITS)
    assert boxed.refined
    given = np.zeros((128, 128), np.float32)
    own = client.segment("cup", points=TWO, mask=given, load_logits=True, **LOGITS)
    assert not own.refined  # a mask that the caller gives counts
    np.testing.assert_array_equal(own.logits, refined_by_hand(client, given, points=TWO).logits)
    with stack.client(namespace="somebody-else") as other:
        other.embed(photo, image_id="cup")
        assert not other.segment("cup", points=TWO, load_logits=True).refined
    client.embed(np.random.default_rng(9).integers(0, 256, (400, 600, 3), np.uint8), image_id="cup")
    assert not client.segment("cup", points=TWO, load_logits=True).refined  # the name means another image now


def test_logits_go_to_the_prompts_that_they_came_from(client: Client) -> None:
    box = (135, 40, 500, 345)
    saved = client.segment_objects("cup", [Prompt(box=box), Prompt(points=ONE)], save_logits=True, **LOGITS)
    # Three objects in another order. The first also fits Prompt(points=ONE), but then nothing would fit the last.
    prompts = [Prompt(points=TWO, labels=[1, 0]), Prompt(points=[(50, 50)]), Prompt(points=[(300, 330)], box=box)]
    results = client.segment_objects("cup", prompts, load_logits=True, **LOGITS)
    assert [result.refined for result in results] == [True, False, True]
    by_hand = [
        refined_by_hand(client, saved[1].logits, points=TWO, labels=[1, 0]),
        client.segment("cup", points=[(50, 50)], **LOGITS),
        refined_by_hand(client, saved[0].logits, points=[(300, 330)], box=box),
    ]
    for result, expected in zip(results, by_hand, strict=True):
        np.testing.assert_array_equal(result.logits, expected.logits)
    # One saved prompt fits both, the other only one of them: each gets its own.
    client.segment_objects("cup", [Prompt(points=[(20, 20)]), Prompt(points=[(20, 20), (9, 9)])], save_logits=True)
    pair = [Prompt(points=[(20, 20), (9, 9), (8, 8)]), Prompt(points=[(20, 20), (7, 7)])]
    assert [result.refined for result in client.segment_objects("cup", pair, load_logits=True)] == [True, True]


def test_all_decoders_share_them_and_the_least_used_leave_first(client: Client, stack: Stack) -> None:
    options = ("--saved-logits-bytes", str(3 * 128 * 128 * 4), "--saved-logits-ttl-s", "60")
    with (
        server("maskwire_decoder", stack.redis_url, *options) as address,
        Client(stack.encoder, address, namespace=client._client.namespace) as other,
    ):
        client.segment("cup", points=ONE, save_logits=True)
        assert other.segment("cup", points=TWO, load_logits=True).refined
        for x in (10, 20):
            other.segment("cup", points=[(x, 9)], save_logits=True)
        assert client.segment("cup", points=TWO, load_logits=True).refined  # and used, so that it stays
        other.segment("cup", points=[(30, 9)], save_logits=True)

        def refines(x: float, y: float) -> bool:
            return client.segment("cup", points=[(x, y), (1, 1)], load_logits=True).refined

        assert [refines(x, 9) for x in (10, 20, 30)] == [False, True, True]
        assert refines(*ONE[0])
        with pytest.raises(InvalidRequest) as caught:
            other.segment_objects("cup", [Prompt(points=[(x, x)]) for x in range(1, 5)], save_logits=True)
        assert (caught.value.reason, caught.value.field) == ("TOO_MUCH_TO_SAVE", "save_logits")
    store = redis.Redis.from_url(stack.redis_url)
    keys = [key for key in store.keys("maskwire:*") if f"{{{client._client.namespace}/".encode() in key]
    kinds = sorted(key.split(b":")[1] for key in keys)
    assert kinds == [b"alias", b"embedding", b"logits", b"prompts"]
    for key in keys:
        assert store.ttl(key) > 0


def test_damaged_logits_are_not_used(client: Client, stack: Stack) -> None:
    client.segment("cup", points=ONE, save_logits=True)
    store = redis.Redis.from_url(stack.redis_url)
    (key,) = store.keys(f"maskwire:logits:{{{client._client.namespace}/*")
    ((field, value),) = store.hgetall(key).items()
    store.hset(key, field, value[:-1] + bytes([value[-1] ^ 1]))
    assert not client.segment("cup", points=TWO, load_logits=True).refined
    assert not store.exists(key)


def test_names_that_are_too_long_to_save_are_refused_before_decoding(client: Client, stack: Stack) -> None:
    port = free_port()
    options = ("--metrics-port", str(port), "--max-points", "10000")
    points = [(1 + index % 500, 1 + index // 500) for index in range(5000)]
    with (
        server("maskwire_decoder", stack.redis_url, *options) as address,
        Client(stack.encoder, address, namespace=client._client.namespace) as other,
    ):
        for saved in (False, True):
            with pytest.raises(InvalidRequest) if saved else contextlib.nullcontext() as caught:
                other.segment("cup", points=points[:: 1 if saved else 5000], save_logits=saved)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
                assert b'maskwire_stage_seconds_count{stage="decode"} 1.0' in response.read()
        assert (caught.value.reason, caught.value.field) == ("TOO_MUCH_TO_SAVE", "save_logits")
