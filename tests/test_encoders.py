"""Several encoders on one store, many callers at once, and what happens when a device is lost."""

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import redis
import small
from conftest import ROOT, Stack, free_port, running, up, wait_until
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from maskwire import Client, ServerUnavailable
from maskwire.cli.status import health
from maskwire.v1 import encoder_pb2, encoder_pb2_grpc
from maskwire_core.store import Store
from maskwire_encoder import checkpoints
from maskwire_encoder.images import read_image
from maskwire_encoder.model import Model
from wire import details, frames, picture

SETTINGS = {"MASKWIRE_THREADS": "1", "MASKWIRE_MAX_BATCH": "4", "MASKWIRE_QUEUE_LIMIT": "300"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two encoders, kept running, on one store that keeps what they encode in fp32."""
    folder = tmp_path_factory.mktemp("small")
    chosen = {**small.options(folder), "device": "cpu,cpu", "decoders": "0", "store-codec": "fp32"}
    words = [word for name, value in chosen.items() for word in (f"--{name}", value)]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SETTINGS, "MASKWIRE_CACHE": str(folder)}.items():
            patch.setenv(name, value)
        with up(*words) as stack:
            yield stack


class Encoders:
    """Both encoders' stubs, and what they have done since the test began."""

    def __init__(self, stack: Stack, channels: list[grpc.Channel]) -> None:
        self.stubs = [encoder_pb2_grpc.EncoderServiceStub(channel) for channel in channels]
        self.pids = [stack.pids[name] for name in stack.pids if name.startswith("encoder")]
        self._before = [self.load(index) for index in range(2)]

    def load(self, index: int) -> encoder_pb2.GetLoadResponse:
        return self.stubs[index].GetLoad(encoder_pb2.GetLoadRequest())

    def encoded(self) -> list[int]:
        return [self.load(index).encoded - before.encoded for index, before in enumerate(self._before)]


@pytest.fixture
def encoders(pair: Stack) -> Iterator[Encoders]:
    first, second = (grpc.insecure_channel(address) for address in pair.encoder.split(","))
    with first, second:
        yield Encoders(pair, [first, second])


@pytest.fixture
def claims(pair: Stack) -> Iterator[Any]:
    with redis.Redis.from_url(pair.redis_url) as connection:
        yield connection


def test_one_encode_for_all_callers_of_all_encoders(encoders: Encoders, claims: Any) -> None:
    data = picture(1, 700, 500)
    calls = [encoders.stubs[index % 2].EncodeImage.future(frames(data, 100_000)) for index in range(100)]
    outcomes = Counter(call.result().cached for call in calls)
    assert sum(encoders.encoded()) == 1
    assert outcomes == {False: 1, True: 99}
    assert claims.keys("maskwire:claim:*") == []


def claim_of(encoders: Encoders, data: bytes) -> str:
    """The claim on an image in the default namespace; its content key is the same in another."""
    key = encoders.stubs[1].EncodeImage(frames(data, namespace="other")).image.content_key
    return f"maskwire:claim:{{default/{key}}}"


def test_a_lost_claim_costs_one_more_encode(encoders: Encoders, claims: Any) -> None:
    """The store drops the claim of an encoder that has other images to encode first."""
    data = picture(2)
    claim = claim_of(encoders, data)
    busy = [encoders.stubs[0].EncodeImage.future(frames(picture(100 + index))) for index in range(60)]
    wait_until(lambda: encoders.load(0).waiting > 5)
    held = encoders.stubs[0].EncodeImage.future(frames(data))
    wait_until(lambda: bool(claims.exists(claim)))
    claims.delete(claim)
    second = encoders.stubs[1].EncodeImage(frames(data))
    assert not second.cached
    assert not held.result().cached
    assert held.result().image.content_key == second.image.content_key
    assert [call.result().cached for call in busy] == [False] * 60
    assert encoders.encoded() == [61, 2]


def test_many_callers_get_their_own_image(pair: Stack, encoders: Encoders, tmp_path: Path) -> None:
    """200 images from 64 callers over two encoders, in batches, are what the model makes of each alone."""
    (source,) = checkpoints.find(small.settings(tmp_path))
    model = Model(source, small.settings(tmp_path))
    files = [picture(1000 + index, 40 + index % 7, 30 + index % 5) for index in range(200)]
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
    assert len(stored) == len(set(stored.values())) == 200
    assert sum(encoders.encoded()) == 200
    loads = [encoders.load(index) for index in range(2)]
    assert sum(load.batches for load in loads) < sum(load.encoded for load in loads)  # there were batches
    store = Store(pair.redis_url)
    for index in range(0, 200, 10):
        embedding = store.get_embedding("default", stored[index])
        assert embedding is not None
        (alone,) = model.encode(model.prepare(read_image(files[index], 10_000))[None])
        for name, tensor in alone.items():
            # A batch's products are summed in another order.
            np.testing.assert_allclose(embedding.tensors[name], tensor, atol=1e-4)
    store.close()


def test_a_client_uses_all_its_encoders(pair: Stack, encoders: Encoders) -> None:
    with Client(pair.encoder) as client:
        outcomes = dict(client.embed_many([picture(800 + index) for index in range(20)], bulk=True))
    assert not any(outcome.cached for outcome in outcomes.values())  # type: ignore[union-attr]
    assert encoders.encoded() == [10, 10]


def test_a_killed_encoders_work_is_taken_over(pair: Stack, encoders: Encoders, claims: Any) -> None:
    """Its claim outlives it by three seconds. Last of the pair's tests: the supervisor starts it again meanwhile."""
    data = picture(3)
    claim = claim_of(encoders, data)
    busy = [encoders.stubs[0].EncodeImage.future(frames(picture(900 + index))) for index in range(60)]
    wait_until(lambda: encoders.load(0).waiting > 5)
    held = encoders.stubs[0].EncodeImage.future(frames(data))
    wait_until(lambda: bool(claims.exists(claim)))
    os.kill(encoders.pids[0], signal.SIGKILL)
    assert held.exception() is not None
    assert not encoders.stubs[1].EncodeImage(frames(data), timeout=60).cached
    assert sum(call.exception() is not None for call in busy) > 0


@pytest.fixture(scope="module")
def slow(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """An encoder whose model takes its time; see failing_encoder.py."""
    port = free_port()
    folder = tmp_path_factory.mktemp("slow")
    command = [sys.executable, str(ROOT / "tests" / "failing_encoder.py"), str(folder), str(port), valkey]
    with running(command) as process:
        wait_until(lambda: health(f"127.0.0.1:{port}") == "SERVING", process=process)
        yield f"127.0.0.1:{port}", process


def test_images_that_somebody_waits_for_go_first(slow: tuple[str, Any]) -> None:
    with grpc.insecure_channel(slow[0]) as channel:
        encoder: Any = encoder_pb2_grpc.EncoderServiceStub(channel)
        bulk = [
            encoder.EncodeImage.future(frames(picture(300 + index, 33, 44), priority=encoder_pb2.PRIORITY_BULK))
            for index in range(25)
        ]
        wait_until(lambda: encoder.GetLoad(encoder_pb2.GetLoadRequest()).waiting_bulk > 15)
        assert not encoder.EncodeImage(frames(picture(400, 33, 44))).cached
        assert sum(not call.done() for call in bulk) > 5
        assert [call.result().cached for call in bulk] == [False] * 25


def test_what_nobody_waits_for_any_more_is_not_encoded(slow: tuple[str, Any]) -> None:
    with grpc.insecure_channel(slow[0]) as channel:
        encoder: Any = encoder_pb2_grpc.EncoderServiceStub(channel)

        def load() -> encoder_pb2.GetLoadResponse:
            return encoder.GetLoad(encoder_pb2.GetLoadRequest())

        before = load()
        busy = [encoder.EncodeImage.future(frames(picture(500 + index, 33, 44))) for index in range(20)]
        wait_until(lambda: load().waiting > 15)
        later = {"priority": encoder_pb2.PRIORITY_BULK}
        hasty = [encoder.EncodeImage.future(frames(picture(600 + n, 33, 44), **later), timeout=0.3) for n in range(3)]
        gone = encoder.EncodeImage.future(frames(picture(700, 33, 44), **later))
        wait_until(lambda: load().waiting_bulk > 3)
        gone.cancel()
        assert [call.code() for call in hasty] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 3
        assert not any(call.result().cached for call in busy)
        wait_until(lambda: load().waiting == load().encoding == 0)
        after = load()
        assert after.encoded - before.encoded == 20
        assert (after.expired + after.cancelled) - (before.expired + before.cancelled) == 4
        assert (after.waited_ms > before.waited_ms, after.busy_ms > before.busy_ms) == (True, True)


def test_a_full_queue_and_a_lost_device(slow: tuple[str, Any]) -> None:
    address, process = slow
    with grpc.insecure_channel(address) as channel, Client(address, retry_s=60) as client:
        encoder: Any = encoder_pb2_grpc.EncoderServiceStub(channel)
        calls = [encoder.EncodeImage.future(frames(picture(index, 33, 44))) for index in range(60)]
        errors = [call.exception() for call in calls]
        refused = [error for error in errors if error is not None]
        assert refused
        for error in refused:
            assert details(error) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", "")
        trailers = dict(refused[-1].trailing_metadata())
        retry = RetryInfo()
        assert any(detail.Unpack(retry) for detail in Status.FromString(trailers["grpc-status-details-bin"]).details)
        assert 0.1 <= retry.retry_delay.ToMilliseconds() / 1e3 <= 10
        assert health(address) == "SERVING"
        # The client comes back when it was told to.
        again = [picture(index, 33, 44) for index, error in enumerate(errors) if error is not None]
        assert {getattr(outcome, "width", outcome) for _, outcome in client.embed_many(again)} == {33}

        white = np.full((20, 20, 3), 255, np.uint8)
        with Client(address, retry_s=0) as hasty, pytest.raises(ServerUnavailable, match="is lost") as lost:
            hasty.embed(white)
        assert lost.value.reason == "DEVICE_LOST"
        assert process.wait(30) == 1
        assert health(address) == "UNREACHABLE"
