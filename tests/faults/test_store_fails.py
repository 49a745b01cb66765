"""Rows 10 to 14, 16 and 19: the store dies, stands still, loads, is full, is damaged, and its connections break."""

import contextlib
import dataclasses
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
import redis
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from maskwire import Client, DeadlineExceeded, ImageNotFound, MaskwireError, Overloaded, ServerUnavailable
from maskwire_core.errors import Unavailable
from maskwire_core.storage.embedding import Header, pack
from maskwire_core.storage.store import Store

from testing.processes import wait_until
from testing.time_bounds import assert_within
from testing.wire import details, frames, picture

from . import processes
from .proxy import Proxy
from .results import Observation
from .world import Doing, World, counts

KEY = "a" * 64
HEADER = Header("default", KEY, "demo", "f", "d", 10, 20, "fp16", 0)


def refusal(error: grpc.RpcError) -> tuple[str, str, int]:
    """Code, reason, and milliseconds until a retry, which must be there."""
    code, reason, _ = details(error)
    status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])  # type: ignore[attr-defined]
    retry = RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    pushback = dict(error.trailing_metadata())["grpc-retry-pushback-ms"]  # type: ignore[attr-defined]
    assert int(pushback) == retry.retry_delay.ToMilliseconds()
    return code, reason, retry.retry_delay.ToMilliseconds()


@pytest.mark.fault(10)
@pytest.mark.time_bound
def test_the_store_is_killed(world: World, note: Observation) -> None:
    note.injected = "SIGKILL to the store; started again 1 s later"
    with world.client() as client, world.stub(world.encoders[0]) as stub:
        world.check(client, 100)
        world.store.kill()
        asked = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            stub.EncodeImage(frames(picture(1001)), timeout=10)
        told_s = time.monotonic() - asked
        assert refusal(caught.value)[:2] == ("UNAVAILABLE", "STORE_UNAVAILABLE")
        waiting = Doing(lambda: world.check(client, 101))
        time.sleep(1)
        world.store.start().wait()
        note.fault()
        waiting.result(20)
        back_s = note.recovered()
    assert_within(told_s, 3)
    assert_within(back_s, 6)
    note.observed = (
        f"UNAVAILABLE with RetryInfo after {told_s:.2f} s; a waiting client answered {back_s:.1f} s after start"
    )


@pytest.mark.fault(11)
def test_the_store_comes_back_empty(world: World, note: Observation) -> None:
    note.injected = "SIGKILL and a new, empty store; a decoder that remembers nothing, too"
    with world.client() as client:
        for number in (110, 111):
            world.check(client, number)
        for server in [world.store, *world.decoders]:
            server.kill()
        world.store.start().wait()
        note.fault()
        for server in world.decoders:
            server.start().wait()
        for number in (110, 111):
            world.check(client, number)
        note.recovered()
        assert world.raw.keys("maskwire:decoder:*")
    note.observed = "the client embedded again, the encoders published their decoder again, masks right"


@pytest.mark.fault(12)
@pytest.mark.time_bound
def test_the_store_stands_still(world: World, note: Observation) -> None:
    note.injected = "SIGSTOP to the store for 5 s"
    with world.client() as client, world.client(retry_s=0, timeout_s=1) as hasty:
        stored = client.embed(picture(120), image_id="still")
        world.check(client, 120)
        client.segment(image_id="still", points=[(30, 20)])
        before = len(world.raw.client_list())
        world.store.send(signal.SIGSTOP)
        stopped = time.monotonic()
        asked = time.monotonic()
        with pytest.raises((DeadlineExceeded, ServerUnavailable)):
            hasty.segment(image_id="another")
        failed_s = time.monotonic() - asked
        # By content, and by name after the first caller found the store silent.
        cached = counts(client.segment(picture(120), points=[(30, 20)]))
        with contextlib.suppress(ServerUnavailable):
            client.segment(image_id="still", points=[(30, 20)])
        asked = time.monotonic()
        named = counts(client.segment(image_id="still", points=[(30, 20)]))
        named_s = time.monotonic() - asked
        assert cached == named == world.right(120)
        # A crowd that the store does not answer.
        crowd = [Doing(lambda: hasty.segment(image_id="another")) for _ in range(200)]
        time.sleep(max(0, stopped + 5 - time.monotonic()))
        world.store.send(signal.SIGCONT)
        note.fault()
        world.check(client, 121)
        took_s = note.recovered()
        assert stored.content_key == client.get("still").content_key
        for each in crowd:
            each.join(10)
        outcomes = Counter(type(each.outcome) for each in crowd)
        # Each has failed, or asked when the store was back, and learnt that there is no such image.
        assert set(outcomes) <= {DeadlineExceeded, ServerUnavailable, Overloaded, ImageNotFound}, outcomes
        failed = outcomes.total() - outcomes[ImageNotFound]
        assert failed >= 150
        more = len(world.raw.client_list()) - before
    assert more <= 2 * 32
    assert_within(failed_s, 3)
    assert_within(named_s, 1)  # less than a store that stands still is waited for
    assert_within(took_s, 5)
    note.observed = (
        f"failed after {failed_s:.2f} s with a deadline of 1 s; images in memory answered (by name in {named_s:.2f} s)"
        f"; of a crowd of 200, {failed} failed and {outcomes[ImageNotFound]} were answered when it went on, {more} "
        f"more connections; right {took_s:.1f} s after it went on"
    )


@pytest.mark.fault(13)
def test_the_store_is_loading(world: World, note: Observation, tmp_path: Path) -> None:
    note.injected = "restart with a file of 4,000 keys, loaded at 1 ms a key"
    slow = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
    first = processes.store(tmp_path).start().wait()
    raw = redis.Redis(port=first.port)
    pipeline = raw.pipeline(transaction=False)
    for index in range(4000):
        pipeline.set(f"filler:{index}", "x" * 100)
    pipeline.execute()
    raw.execute_command("SAVE")
    decoder = processes.decoder(tmp_path, f"redis://127.0.0.1:{first.port}/0").start().wait()
    first.end()
    server = processes.store(tmp_path, *slow, port=first.port).start()
    try:
        with contextlib.closing(Store(f"redis://127.0.0.1:{first.port}/0")) as opened:
            wait_until(lambda: loads(first.port), 10)
            assert refused(opened.ping)
            note.fault()
            with (
                Client(world.encoders[0].address, decoder.address, retry_s=0) as client,
                pytest.raises(ServerUnavailable) as caught,
            ):
                client.segment(image_id="nothing")
            assert caught.value.reason == "STORE_UNAVAILABLE"
            assert caught.value.retry_after_s
            with (
                Client(world.encoders[0].address, decoder.address) as client,
                pytest.raises(MaskwireError, match="no image named"),
            ):
                client.segment(image_id="nothing")  # retried until the store has loaded
            took_s = note.recovered()
            opened.ping()
    finally:
        decoder.end()
        server.end()
    note.observed = f"UNAVAILABLE with RetryInfo; the client's retries were answered {took_s:.1f} s later, once loaded"


def loads(port: int) -> bool:
    """Whether a store is up, and reads its file."""
    try:
        redis.Redis(port=port, retry=None).get("filler:1")
    except redis.exceptions.BusyLoadingError:
        return True
    except redis.exceptions.ConnectionError:
        pass
    return False


def refused(ask: Callable[[], None]) -> bool:
    try:
        ask()
    except Unavailable:
        return True
    return False


@pytest.mark.fault(14)
def test_the_store_is_full(world: World, note: Observation) -> None:
    note.injected = "CONFIG SET maxmemory below what is used, noeviction"
    with world.client() as client, world.stub(world.encoders[0]) as stub:
        world.check(client, 140)
        world.raw.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(grpc.RpcError) as caught:
                stub.EncodeImage(frames(picture(1400)), timeout=10)
            code, reason, retry_ms = refusal(caught.value)
            assert (code, reason) == ("RESOURCE_EXHAUSTED", "STORE_FULL")
            for server in world.decoders:  # read from the store, not from memory
                server.kill()
                server.start().wait()
            world.check(client, 140)
            with world.client(retry_s=0) as hasty, pytest.raises(Overloaded, match="no memory left"):
                hasty.embed(picture(1401))
        finally:
            world.raw.config_set("maxmemory", "0")
        note.fault()
        client.embed(picture(1400))
        note.recovered()
    note.observed = f"{code} ({reason}), retry after {retry_ms} ms; decoders went on reading; writes went on with room"


DAMAGE: dict[str, Callable[[bytes], bytes | dict[str, str]]] = {
    "wrong type": lambda value: {"field": "value"},
    "truncated": lambda value: value[:-100],
    "bit flipped in the header": lambda value: value[:40] + bytes([value[40] ^ 1]) + value[41:],
    "bit flipped in the tensors": lambda value: value[:-2000] + bytes([value[-2000] ^ 1]) + value[-1999:],
    "old version": lambda value: value[:8] + b"\1\0\0\0" + value[12:],
    "empty": lambda value: b"",
}


@pytest.mark.fault(16)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_value_is_damaged(world: World, note: Observation, damage: str) -> None:
    note.injected = "the stored embedding replaced"
    server = processes.decoder(world.folder, world.url, "--cache-bytes", "0").start().wait()
    try:
        with world.client(decoder=server.address) as client:
            world.check(client, 160)
            key = f"maskwire:embedding:{{default/{client.embed(picture(160)).content_key}}}"
            value = world.raw.get(key)
            assert isinstance(value, bytes)
            damaged = DAMAGE[damage](value)
            world.raw.delete(key)
            if isinstance(damaged, bytes):
                world.raw.set(key, damaged)
            else:
                world.raw.hset(key, mapping=damaged)
            note.fault()
            world.check(client, 160)
            note.recovered()
            again = world.raw.get(key)
            assert isinstance(again, bytes)
            assert len(again) == len(value)
            store = Store(world.url)
            world.raw.delete(key)
            if isinstance(damaged, bytes):
                world.raw.set(key, damaged)
            else:
                world.raw.hset(key, mapping=damaged)
            assert store.get_embedding("default", key[-65:-1]) is None
            assert store.corrupt_values == 1
            assert not world.raw.exists(key)
            store.close()
    finally:
        server.end()
    note.observed = "a miss, deleted, counted; the client embedded again and had the right mask"


@pytest.mark.fault(19)
@pytest.mark.parametrize("fault", ["cut", "flip"])
def test_a_large_reply_breaks(world: World, note: Observation, fault: str) -> None:
    note.injected = {"cut": "RST", "flip": "one bit flipped on the way"}[fault] + " after 5 MB of an 8 MB reply"
    value = pack(HEADER, {"image_embed": np.random.default_rng(1).standard_normal(4_000_000, np.float32)})
    assert len(value) > 7_900_000
    with Proxy(world.store.port).running() as proxy, contextlib.closing(Store(world.url)) as direct:
        direct.put_embedding("default", KEY, value, 100)
        with contextlib.closing(Store(f"redis://{proxy.address}/0")) as store:
            store.ping()
            proxy.cuts = 1
            proxy.cut_after, proxy.flip_after = (5_000_000, None) if fault == "cut" else (None, 5_000_000)
            note.fault()
            embedding = store.get_embedding("default", KEY)
            took_s = note.recovered()
            if fault == "cut":
                assert embedding is not None
                assert store.corrupt_values == 0
                assert proxy.accepted == 2
                note.observed = f"read whole over a new connection, {took_s:.2f} s in all"
            else:  # what came is not what was sent: a miss, and what is stored is dropped
                assert embedding is None
                assert store.corrupt_values == 1
                note.observed = "noticed by the checksum; a miss"
        direct.delete_embedding("default", KEY)


@pytest.mark.fault(19, variant="headers")
def test_replies_break_everywhere(world: World, note: Observation) -> None:
    """Also within the first bytes, where lengths stand."""
    note.injected = "RST after each of the first 40 bytes of replies, and after 40 random numbers of bytes"
    value = pack(dataclasses.replace(HEADER), {"image_embed": np.ones(100_000, np.float32)})
    pick = np.random.default_rng(19)
    with Proxy(world.store.port).running() as proxy, contextlib.closing(Store(world.url)) as direct:
        direct.put_embedding("default", KEY, value, 100)
        for after in [*range(40), *pick.integers(40, len(value), 40).tolist()]:
            with contextlib.closing(Store(f"redis://{proxy.address}/0")) as store:
                proxy.cuts, proxy.cut_after = 1, after
                assert store.get_embedding("default", KEY) is not None
                assert store.get_alias("default", "nobody") is None
                assert store.corrupt_values == 0
        direct.delete_embedding("default", KEY)
    note.observed = "80 of 80 read whole over a new connection"
