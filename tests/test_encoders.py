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


def keys(connection: Any) -> list[bytes]:
    return list(connection.keys("maskwire:claim:*"))


def test_one_encode_for_all_callers_of_all_encoders(encoders: Encoders, claims: Any) -> None:
    data = picture(1, 700, 500)
    calls = [encoders.stubs[index % 2].EncodeImage.future(frames(data, 100_000)) for index in range(100)]
    outcomes = Counter(call.result().cached for call in calls)
    assert sum(encoders.encoded()) == 1
    assert outcomes == {False: 1, True: 99}
    assert keys(claims) == []


def test_a_lost_claim_costs_one_more_encode(encoders: Encoders, claims: Any) -> None:
    """The store drops the claim of an encoder that has other images to encode first."""
    busy = [encoders.stubs[0].EncodeImage.future(frames(picture(100 + index))) for index in range(30)]
    wait_until(lambda: encoders.load(0).waiting > 20)
    others = len(keys(claims))
    data = picture(2)
    held = encoders.stubs[0].EncodeImage.future(frames(data))
    held.initial_metadata()
    wait_until(lambda: len(keys(claims)) > others or held.done())
    claims.delete(*keys(claims))
    second = encoders.stubs[1].EncodeImage(frames(data))
    assert not second.cached
    assert not held.result().cached
    assert held.result().image.content_key == second.image.content_key
    assert [call.result().cached for call in busy] == [False] * 30
    assert encoders.encoded() == [31, 1]


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
    for index in range(0, 200, 5):
        embedding = store.get_embedding("default", stored[index])
        assert embedding is not None
        (alone,) = model.encode(model.prepare(read_image(files[index], 10_000))[None])
        for name, tensor in alone.items():
            # A batch's products are summed in another order.
            np.testing.assert_allclose(embedding.tensors[name], tensor, atol=1e-4)
    store.close()


def test_images_that_somebody_waits_for_go_first(encoders: Encoders) -> None:
    bulk = [
        encoders.stubs[0].EncodeImage.future(frames(picture(300 + index), priority=encoder_pb2.PRIORITY_BULK))
        for index in range(40)
    ]
    wait_until(lambda: encoders.load(0).waiting_bulk > 25)
    interactive = encoders.stubs[0].EncodeImage(frames(picture(400)))
    waiting = sum(not call.done() for call in bulk)
    assert waiting > 10
    assert not interactive.cached
    assert [call.result().cached for call in bulk] == [False] * 40


def test_what_expires_while_it_waits_is_not_encoded(encoders: Encoders) -> None:
    before = encoders.load(0)
    busy = [encoders.stubs[0].EncodeImage.future(frames(picture(500 + index))) for index in range(30)]
    wait_until(lambda: encoders.load(0).waiting > 25)
    hasty = [
        encoders.stubs[0].EncodeImage.future(
            frames(picture(600 + index), priority=encoder_pb2.PRIORITY_BULK), timeout=t
        )
        for index, t in enumerate((0.02, 0.04, 0.06))
    ]
    gone = encoders.stubs[0].EncodeImage.future(frames(picture(700), priority=encoder_pb2.PRIORITY_BULK))
    gone.initial_metadata()
    gone.cancel()
    assert [call.code() for call in hasty] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 3
    for call in busy:
        call.result()
    wait_until(lambda: encoders.load(0).waiting == encoders.load(0).encoding == 0)
    assert encoders.encoded() == [30, 0]
    after = encoders.load(0)
    assert after.expired + after.cancelled >= before.expired + before.cancelled


def test_a_client_uses_all_its_encoders(pair: Stack, encoders: Encoders) -> None:
    with Client(pair.encoder) as client:
        outcomes = dict(client.embed_many([picture(800 + index) for index in range(20)], bulk=True))
    assert not any(outcome.cached for outcome in outcomes.values())  # type: ignore[union-attr]
    assert encoders.encoded() == [10, 10]


def test_a_killed_encoders_work_is_taken_over(pair: Stack, encoders: Encoders, claims: Any) -> None:
    """Its claim lasts for three seconds more. Last of the module: the encoder is started again behind the others."""
    busy = [encoders.stubs[0].EncodeImage.future(frames(picture(900 + index))) for index in range(30)]
    wait_until(lambda: encoders.load(0).waiting > 25)
    data = picture(3)
    held = encoders.stubs[0].EncodeImage.future(frames(data))
    held.initial_metadata()
    wait_until(lambda: encoders.load(0).waiting > 27 or held.done())
    os.kill(encoders.pids[0], signal.SIGKILL)
    with Client(pair.encoder, retry_s=60) as client:
        assert client.embed(data).width == 60
    assert all(call.exception() is not None or call.result() for call in (held, *busy))


@pytest.fixture
def failing(valkey: str, tmp_path: Path) -> Iterator[tuple[str, Any]]:
    port = free_port()
    command = [sys.executable, str(ROOT / "tests" / "failing_encoder.py"), str(tmp_path), str(port), valkey]
    with running(command) as process:
        wait_until(lambda: health(f"127.0.0.1:{port}") == "SERVING", process=process)
        yield f"127.0.0.1:{port}", process


def test_a_full_queue_and_a_lost_device(failing: tuple[str, Any]) -> None:
    address, process = failing
    with grpc.insecure_channel(address) as channel, Client(address, retry_s=60) as client:
        encoder = encoder_pb2_grpc.EncoderServiceStub(channel)
        calls = [encoder.EncodeImage.future(frames(picture(index, 33, 44))) for index in range(16)]
        refused = [call.exception() for call in calls if call.exception() is not None]
        assert 1 <= len(refused) <= 12
        for error in refused:
            assert details(error) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", "")
        retry = RetryInfo()
        trailers = dict(refused[-1].trailing_metadata())
        assert any(detail.Unpack(retry) for detail in Status.FromString(trailers["grpc-status-details-bin"]).details)
        assert 0.1 <= retry.retry_delay.ToMilliseconds() / 1e3 <= 10
        assert health(address) == "SERVING"
        # The client comes back when it was told to.
        outcomes = client.embed_many([picture(50 + index, 33, 44) for index in range(16)])
        assert [getattr(outcome, "width", outcome) for _, outcome in outcomes] == [33] * 16

        white = np.full((20, 20, 3), 255, np.uint8)
        with Client(address, retry_s=0) as hasty, pytest.raises(ServerUnavailable, match="is lost") as lost:
            hasty.embed(white)
        assert lost.value.reason == "DEVICE_LOST"
        assert process.wait(30) == 1
        assert health(address) == "UNREACHABLE"
