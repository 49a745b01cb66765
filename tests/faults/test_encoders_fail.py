"""Rows 1 to 5, 15, 18, 24 and 26: encoders die, stand still, and want the same image."""

import signal
import threading
import time
from collections import Counter

import grpc
import pytest
from maskwire_core.storage.store import Store

from testing.processes import wait_until
from testing.time_bounds import assert_within
from testing.wire import frames, picture

from . import processes
from .results import Observation
from .world import Doing, World


@pytest.mark.fault(1)
@pytest.mark.time_bound
def test_an_encoder_is_killed_in_a_batch(world: World, note: Observation) -> None:
    note.injected = "SIGKILL while its model held the image and its lease"
    with world.client() as client:
        with world.switched("hold"):
            embedding = Doing(lambda: client.embed(picture(10)))
            victim = world.busy()
            note.fault()
            victim.kill()
        assert not embedding.result().cached
        took_s = note.recovered()
        world.check(client, 10)
    assert_within(took_s, 8)
    note.observed = f"the caller's own retry was answered {took_s:.1f} s later by the other encoder; mask right"


@pytest.mark.fault(2)
@pytest.mark.time_bound
def test_an_encoder_is_killed_between_storing_and_telling(world: World, note: Observation) -> None:
    note.injected = "SIGKILL after SET, before the lease was given up; the other encoder had been asked meanwhile"
    first, second = world.encoders
    data = picture(11)
    with world.stub(first) as one, world.stub(second) as other, world.switched("stored", first):
        held = one.EncodeImage.future(frames(data))
        wait_until(lambda: bool(world.raw.keys("maskwire:lease:*")), 20)
        waiter = other.EncodeImage.future(frames(data))
        wait_until(lambda: bool(world.raw.keys("maskwire:embedding:*")), 20)
        note.fault()
        first.kill()
        assert waiter.result(20).cached
        took_s = note.recovered()
        assert held.exception() is not None
    assert_within(took_s, 1.5)  # less than what was left of the lease
    note.observed = f"the waiter had it {took_s:.2f} s later, without a second encode"


@pytest.mark.fault(3)
@pytest.mark.time_bound
def test_an_encoder_stands_still(world: World, note: Observation) -> None:
    note.injected = "SIGSTOP while its model held the image and its lease"
    with world.client() as client:
        with world.switched("hold"):
            embedding = Doing(lambda: client.embed(picture(12)))
            victim = world.busy()
            note.fault()
            victim.send(signal.SIGSTOP)
        assert not embedding.result().cached
        took_s = note.recovered()
        world.check(client, 12)
    assert_within(took_s, 10)
    note.observed = (
        f"keepalive gave the connection up, the lease ended, the other encoder answered: {took_s:.1f} s in all"
    )


@pytest.mark.fault(4)
def test_an_encoder_stands_still_for_longer_than_its_lease(world: World, note: Observation) -> None:
    note.injected = "SIGSTOP for longer than the lease's 3 s, another encode meanwhile, SIGCONT"
    first, second = world.encoders
    data = picture(13)
    with world.stub(first) as one, world.stub(second) as other:
        with world.switched("hold", first):
            # A call without keepalive: it waits for as long as it takes.
            held = one.EncodeImage.future(frames(data))
            world.busy(first)
            first.send(signal.SIGSTOP)
            taken_over = other.EncodeImage(frames(data), timeout=30)
            assert not taken_over.cached
            key = taken_over.image.content_key
            before = stored(world, key)
            first.send(signal.SIGCONT)
        assert held.result(30).image.content_key == key
        assert not held.result().cached
        assert stored(world, key) == before
    note.observed = "both encoded; the tensors that the later one stored are the same bytes"


def stored(world: World, key: str) -> str:
    store = Store(world.url)
    embedding = store.get_embedding("default", key)
    store.close()
    assert embedding is not None
    return embedding.header.checksum


@pytest.mark.fault(5)
def test_an_encoder_is_asked_to_stop_under_load(world: World, note: Observation) -> None:
    note.injected = "SIGTERM to one of two while eight threads embedded, and while its model held what it had accepted"
    stop, numbers, lock = threading.Event(), iter(range(2000, 9000)), threading.Lock()
    done = Counter[str]()

    with world.client() as client:

        def work() -> None:
            while not stop.is_set():
                with lock:
                    number = next(numbers)
                client.embed(picture(number))
                with lock:
                    done["images"] += 1

        threads = [Doing(work) for _ in range(8)]
        wait_until(lambda: done["images"] > 20, 30)
        server = world.encoders[0]
        with world.stub(server) as stub, world.switched("hold", server):
            accepted = [stub.EncodeImage.future(frames(picture(1900 + index))) for index in range(4)]
            for call in accepted:  # by a client that tries nothing again
                assert ("maskwire-content", "needed") in call.initial_metadata()
            drains = server.log.read_text().count("draining")
            server.send(signal.SIGTERM)
            wait_until(lambda: server.log.read_text().count("draining") > drains, 10)
            (processes.switches(server) / "hold").unlink()
            assert not any(call.result(30).cached for call in accepted)
        assert server.end() == 0
        after = done["images"] + 20
        wait_until(lambda: done["images"] > after, 30)
        stop.set()
        for thread in threads:
            thread.result()
    note.observed = f"{done['images']} images and the {len(accepted)} that were held, 0 failures; exit code 0"


@pytest.mark.fault(15)
def test_leases_vanish(world: World, note: Observation) -> None:
    note.injected = "DEL of the lease while its encoder was at work, and again while two were"
    first, second = world.encoders
    data = picture(15)
    before = sum(world.load(server).encoded for server in world.encoders)

    def evict() -> None:
        (lease,) = world.raw.keys("maskwire:lease:*")
        world.raw.delete(lease)

    with world.stub(first) as one, world.stub(second) as other:
        with world.switched("hold"):
            calls = [one.EncodeImage.future(frames(data))]
            world.busy(first)
            evict()
            calls += [other.EncodeImage.future(frames(data)) for _ in range(5)]
            world.busy(second)
            calls += [one.EncodeImage.future(frames(data)) for _ in range(5)]
            evict()
            time.sleep(0.5)  # in which nobody else takes it: all wait for an encode of their own encoder
            assert not world.raw.keys("maskwire:lease:*")
        keys = {call.result(30).image.content_key for call in calls}
    encodes = sum(world.load(server).encoded for server in world.encoders) - before
    assert len(keys) == 1
    assert encodes <= 2
    note.observed = f"{encodes} encodes for {len(calls)} callers, one content key"


@pytest.mark.fault(18)
@pytest.mark.time_bound
def test_all_connections_to_the_store_break_while_an_encoder_waits_for_another(world: World, note: Observation) -> None:
    note.injected = "CLIENT KILL of every connection while an encoder waited for another's encode (there is no pub/sub)"
    first, second = world.encoders
    data = picture(18)
    with world.stub(first) as one, world.stub(second) as other:
        with world.switched("hold", first):
            held = one.EncodeImage.future(frames(data))
            world.busy(first)
            waiter = other.EncodeImage.future(frames(data))
            time.sleep(0.5)
            world.raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            world.raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        wait_until(lambda: bool(world.raw.keys("maskwire:embedding:*")), 20)
        note.fault()
        assert waiter.result(30).cached
        took_s = note.recovered()
        assert not held.result(30).cached
    assert_within(took_s, 2)
    note.observed = f"the waiter had it {took_s:.2f} s after it was stored"


@pytest.mark.fault(24)
def test_a_hundred_callers_want_one_image(world: World, note: Observation) -> None:
    note.injected = "100 calls at once over two encoders"
    data = picture(24, 300, 200)
    before = sum(world.load(server).encoded for server in world.encoders)
    with world.stub(world.encoders[0]) as one, world.stub(world.encoders[1]) as other:
        calls = [stub.EncodeImage.future(frames(data, 100_000)) for _ in range(50) for stub in (one, other)]
        outcomes = Counter(call.result(60).cached for call in calls)
    assert outcomes == {False: 1, True: 99}
    assert sum(world.load(server).encoded for server in world.encoders) - before == 1
    note.observed = "1 encode, 99 answers from it"


@pytest.mark.fault(26)
def test_deadlines_pass_in_the_queue(world: World, note: Observation) -> None:
    server = world.encoders[0]
    with world.stub(server) as stub:
        # The encoder shall think of what an image takes here today when nothing is held: it refuses what it thinks
        # cannot be done in time, and these six are to be let in and to expire.
        started, several = time.perf_counter(), 24
        for call in [stub.EncodeImage.future(frames(picture(2600 + index))) for index in range(several)]:
            call.result(60)
        deadline_s = max(1.0, 50 * (time.perf_counter() - started) / several)
        note.injected = f"six images with deadlines of {deadline_s:.0f} s behind one that held the model for longer"
        before = world.load(server)
        with world.switched("hold", server):
            first = stub.EncodeImage.future(frames(picture(260)))
            world.busy(server)
            hasty = [stub.EncodeImage.future(frames(picture(261 + index)), timeout=deadline_s) for index in range(6)]
            codes = Counter(call.code() for call in hasty)
            wait_until(lambda: world.load(server).waiting == 0, 10)
        first.result(30)
        assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED: 6}
        assert world.load(server).encoded - before.encoded == 1
    note.observed = "6 times DEADLINE_EXCEEDED; the model saw only the first image"
