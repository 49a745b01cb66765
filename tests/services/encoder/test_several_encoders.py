"""Several encoders on one store, many callers at once, and what happens when a device is lost."""

import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import redis
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from maskwire import Client, ServerUnavailable
from maskwire.cli.free_ports import free_port
from maskwire.cli.health import health
from maskwire.cli.local_store import store_program
from maskwire.v1 import encoder_pb2, encoder_pb2_grpc
from maskwire_core.storage.store import Store
from maskwire_encoder.backends.model import Model
from maskwire_encoder.checkpoints import loading
from maskwire_encoder.image_input.reading import read_image

from testing import small_model
from testing.processes import wait_until
from testing.servers import Stack, running_server, store_server
from testing.warm import running_module
from testing.wire import MANY_CALLS, details, frames, picture

OPTIONS = {"threads": "1", "max-batch": "4", "queue-limit": "300", "store-codec": "fp32"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two encoders, kept running, on one store that keeps what they encode in fp32."""
    folder = tmp_path_factory.mktemp("small")
    chosen = {**small_model.options(folder), **OPTIONS, "cache": str(folder)}
    words = [word for name, value in chosen.items() for word in (f"--{name}", value)]
    with store_server(store_program()) as url, contextlib.ExitStack() as running:
        started = [running.enter_context(running_server("maskwire_encoder", url, *words)) for _ in range(2)]
        pids = {f"encoder {address}": pid for address, pid in started}
        yield Stack(",".join(address for address, _ in started), "", url, pids)


class Encoders:
    """Both encoders' stubs, and what they have done since the test began."""

    def __init__(self, stack: Stack, channels: list[grpc.Channel]) -> None:
        self.stubs = [encoder_pb2_grpc.EncoderServiceStub(channel) for channel in channels]
        self.pids = list(stack.pids.values())
        self._before = [self.load(index) for index in range(2)]

    def load(self, index: int) -> encoder_pb2.GetLoadResponse:
        return self.stubs[index].GetLoad(encoder_pb2.GetLoadRequest())

    def encoded(self) -> list[int]:
        return [self.load(index).encoded - before.encoded for index, before in enumerate(self._before)]


@pytest.fixture
def encoders(pair: Stack) -> Iterator[Encoders]:
    first, second = (grpc.insecure_channel(address, MANY_CALLS) for address in pair.encoder.split(","))
    with first, second:
        yield Encoders(pair, [first, second])


@pytest.fixture
def leases(pair: Stack) -> Iterator[Any]:
    with redis.Redis.from_url(pair.redis_url) as connection:
        yield connection


def test_one_encode_for_all_callers_of_all_encoders(encoders: Encoders, leases: Any) -> None:
    data = picture(1, 700, 500)
    calls = [encoders.stubs[index % 2].EncodeImage.future(frames(data, 100_000)) for index in range(100)]
    outcomes = Counter(call.result().cached for call in calls)
    assert sum(encoders.encoded()) == 1
    assert outcomes == {False: 1, True: 99}
    assert leases.keys("maskwire:lease:*") == []


def lease_of(encoders: Encoders, data: bytes) -> str:
    """The lease on an image in the default namespace; its content key is the same in another."""
    key = encoders.stubs[1].EncodeImage(frames(data, namespace="other")).image.content_key
    return f"maskwire:lease:{{default/{key}}}"


def test_a_lost_lease_costs_one_more_encode(encoders: Encoders, leases: Any) -> None:
    """The store drops the lease of an encoder that has other images to encode first."""
    data = picture(2)
    lease = lease_of(encoders, data)
    busy = [encoders.stubs[0].EncodeImage.future(frames(picture(100 + index))) for index in range(60)]
    wait_until(lambda: encoders.load(0).waiting > 5)
    held = encoders.stubs[0].EncodeImage.future(frames(data))
    wait_until(lambda: bool(leases.exists(lease)))
    leases.delete(lease)
    second = encoders.stubs[1].EncodeImage(frames(data))
    assert not second.cached
    assert not held.result().cached
    assert held.result().image.content_key == second.image.content_key
    assert [call.result().cached for call in busy] == [False] * 60
    assert encoders.encoded() == [61, 2]


def test_many_callers_get_their_own_image(pair: Stack, encoders: Encoders, tmp_path: Path) -> None:
    """100 images from 64 callers over two encoders, in batches, are what the model makes of each alone."""
    (source,) = loading.find(small_model.settings(tmp_path))
    model = Model(source, small_model.settings(tmp_path))
    files = [picture(1000 + index, 40 + index % 7, 30 + index % 5) for index in range(100)]
    stored: dict[int, str] = {}
    work = iter(range(len(files)))
    lock = threading.Lock()

    def call(number: int) -> None:
        while True:
            with lock:
                index = next(work, None)
            if index is None:
                return
            stored[index] = encoders.stubs[number % 2].EncodeImage(frames(files[index])).image.content_key

    callers = [threading.Thread(target=call, args=(number,)) for number in range(64)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(stored) == len(set(stored.values())) == 100
    assert sum(encoders.encoded()) == 100
    loads = [encoders.load(index) for index in range(2)]
    assert sum(load.batches for load in loads) < sum(load.encoded for load in loads)  # there were batches
    store = Store(pair.redis_url)
    for index in range(0, 100, 5):
        embedding = store.get_embedding("default", stored[index])
        assert embedding is not None
        (alone,) = model.encode(model.prepare(read_image(files[index], 10_000).pixels)[None])
        for name, tensor in alone.items():
            # A batch's products are summed in another order.
            np.testing.assert_allclose(embedding.tensors[name], tensor, atol=1e-4)
    store.close()


def test_a_client_uses_all_its_encoders(pair: Stack, encoders: Encoders) -> None:
    with Client(pair.encoder) as client:
        outcomes = dict(client.embed_many([picture(800 + index) for index in range(20)], bulk=True))
    assert not any(outcome.cached for outcome in outcomes.values())
    assert encoders.encoded() == [10, 10]


def test_a_killed_encoders_work_is_taken_over(pair: Stack, encoders: Encoders, leases: Any) -> None:
    """Its lease outlives it by three seconds. Last of the pair's tests."""
    data = picture(3)
    lease = lease_of(encoders, data)
    busy = [encoders.stubs[0].EncodeImage.future(frames(picture(900 + index))) for index in range(60)]
    wait_until(lambda: encoders.load(0).waiting > 5)
    held = encoders.stubs[0].EncodeImage.future(frames(data))
    wait_until(lambda: bool(leases.exists(lease)))
    os.kill(encoders.pids[0], signal.SIGKILL)
    assert held.exception() is not None
    assert not encoders.stubs[1].EncodeImage(frames(data), timeout=60).cached
    assert sum(call.exception() is not None for call in busy) > 0


@dataclass
class Held:
    """An encoder whose model can be held up; see testing/failing_encoder.py."""

    address: str
    process: Any
    encoder: Any
    folder: Path

    def load(self) -> encoder_pb2.GetLoadResponse:
        return self.encoder.GetLoad(encoder_pb2.GetLoadRequest())

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        (self.folder / "hold").touch()
        try:
            yield
        finally:
            (self.folder / "hold").unlink()

    def start(self, seeds: Iterable[int], bulk: bool = False, **call: Any) -> list[Any]:
        """Begins to embed small pictures."""
        priority = encoder_pb2.PRIORITY_BULK if bulk else encoder_pb2.PRIORITY_UNSPECIFIED
        return [self.encoder.EncodeImage.future(frames(picture(n, 33, 44), priority=priority), **call) for n in seeds]


@pytest.fixture(scope="module")
def held(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    port, folder = free_port(), tmp_path_factory.mktemp("held")
    with running_module("testing.failing_encoder", str(folder), str(port), valkey) as process:
        address = f"127.0.0.1:{port}"
        wait_until(lambda: health(address) == "SERVING", process=process)
        with grpc.insecure_channel(address, MANY_CALLS) as channel:
            yield Held(address, process, encoder_pb2_grpc.EncoderServiceStub(channel), folder)


def test_images_that_somebody_waits_for_go_first(held: Held) -> None:
    with held.standing_still():
        bulk = held.start(range(300, 325), bulk=True)
        wait_until(lambda: held.load().waiting + held.load().encoding == 25)
        interactive = held.start([400])
        wait_until(lambda: held.load().waiting + held.load().encoding == 26)
        assert held.load().waiting_bulk >= 20
        assert held.load().oldest_wait_ms > 0
    answered = sorted(
        (call.result().image.expires_at.ToNanoseconds(), call in interactive) for call in bulk + interactive
    )
    # After those that had been read already, and one of the bulk that does not starve.
    assert [first for _, first in answered].index(True) < 14


def test_what_nobody_waits_for_any_more_is_not_encoded(held: Held) -> None:
    before = held.load()
    with held.standing_still():
        busy = held.start(range(500, 515))
        wait_until(lambda: held.load().waiting + held.load().encoding == 15)
        (gone,) = held.start([700], bulk=True)
        wait_until(lambda: held.load().waiting_bulk == 1)
        gone.cancel()
        wait_until(lambda: held.load().waiting_bulk == 0)
        patience_s = 3 + 2 * held.load().backlog_ms / 1e3  # long enough not to be refused at once, by a slow machine
        hasty = held.start(range(600, 603), bulk=True, timeout=patience_s)
        assert [call.code() for call in hasty] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 3
        wait_until(lambda: held.load().waiting_bulk == 0)
    assert not any(call.result().cached for call in busy)
    after = held.load()
    assert after.encoded - before.encoded == 15
    assert (after.expired + after.cancelled) - (before.expired + before.cancelled) == 4
    assert after.waited_ms > before.waited_ms
    assert after.busy_ms > before.busy_ms


def test_a_full_queue_says_when_to_come_back(held: Held) -> None:
    with held.standing_still():
        calls = held.start(range(60))
        wait_until(lambda: sum(call.done() for call in calls) >= 5)
        assert health(held.address) == "SERVING"
        assert held.load().refused >= 5
    errors = [call.exception() for call in calls]
    refused = [error for error in errors if error is not None]
    assert 5 <= len(refused) < 60
    for error in refused:
        assert details(error) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", "")
        status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
        retry = RetryInfo()
        assert any(detail.Unpack(retry) for detail in status.details)
        assert 100 <= retry.retry_delay.ToMilliseconds() <= 10_000
    with Client(held.address, retry_s=60) as client:  # comes back by itself
        again = [picture(index, 33, 44) for index, error in enumerate(errors) if error is not None]
        assert {getattr(outcome, "width", outcome) for _, outcome in client.embed_many(again)} == {33}


def test_a_lost_device_ends_the_encoder(held: Held) -> None:
    """Last of the module."""
    white = np.full((20, 20, 3), 255, np.uint8)
    with Client(held.address, retry_s=0) as client, pytest.raises(ServerUnavailable, match="is lost") as lost:
        client.embed(white)
    assert lost.value.reason == "DEVICE_LOST"
    assert held.process.wait(30) == 1
    assert health(held.address) == "UNREACHABLE"
