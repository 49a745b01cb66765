"""Rows 25 and 38: ten times too much, and streams without end."""

import asyncio
import gc
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from maskwire.cli.health import health
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc, types_pb2

from testing.processes import wait_until
from testing.time_bounds import assert_within
from testing.wire import MANY_CALLS, details, frames, picture

from . import processes
from .results import Observation
from .streams import run as open_and_cancel
from .world import Doing, World, counts


@pytest.mark.fault(25)
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.time_bound
def test_ten_times_too_much(world: World, note: Observation, kind: str) -> None:
    work = {"encoder": "a model slowed by 0.1 s an image", "decoder": "20 prompts a call"}[kind]
    seconds = float(os.environ.get("MASKWIRE_TEST_OVERLOAD_S", "3"))
    note.injected = f"calls with deadlines of 2 s for {seconds:g} s, ten times the rate of one after another; {work}"
    server = (world.encoders if kind == "encoder" else world.decoders)[0]
    stored = world.calm.embed(picture(250))
    point = types_pb2.Prompt(points=[types_pb2.Point(x_px=30, y_px=20)])
    many = [point] * 20  # work that outweighs the call itself, as a real model's does
    segment = pb.SegmentRequest(image_id="x", namespace="calm", content_key=stored.content_key, prompts=many)
    codes, refused_ms, answered_ms, healths = Counter[str](), list[float](), list[float](), Counter[str]()
    uploads: Iterator[list[encoder_pb2.EncodeImageRequest]] = iter([])  # made ahead: this process has to be quick

    async def call(stub: object, timeout_s: float) -> None:
        started = time.perf_counter()
        try:
            if kind == "decoder":
                await stub.Segment(segment, timeout=timeout_s)  # type: ignore[attr-defined]
            else:
                upload = stub.EncodeImage(timeout=timeout_s)  # type: ignore[attr-defined]
                for request in next(uploads):
                    await upload.write(request)
                await upload.done_writing()
                await upload
        except grpc.aio.AioRpcError as error:
            codes[details(error)[1] if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED else error.code().name] += 1
            if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                refused_ms.append((time.perf_counter() - started) * 1e3)
        else:
            codes["answered"] += 1
            answered_ms.append((time.perf_counter() - started) * 1e3)

    def prepare(first: int, count: int) -> None:
        nonlocal uploads
        if kind == "encoder":
            uploads = iter([list(frames(picture(25_000 + first + index), 1 << 20)) for index in range(count)])

    async def overload() -> float:
        async with grpc.aio.insecure_channel(server.address, MANY_CALLS) as channel:
            kinds = {"encoder": encoder_pb2_grpc.EncoderServiceStub, "decoder": decoder_pb2_grpc.DecoderServiceStub}
            stub = kinds[kind](channel)
            prepare(0, 20)
            started = time.perf_counter()
            for _ in range(20):
                await call(stub, 10)
            rate = 20 / (time.perf_counter() - started)
            prepare(20, int(10 * rate * seconds) + 100)
            codes.clear()
            answered_ms.clear()
            calls, begun = list[asyncio.Task[None]](), time.perf_counter()
            while (now := time.perf_counter() - begun) < seconds:
                while len(calls) < now * 10 * rate:
                    calls.append(asyncio.create_task(call(stub, 2)))
                await asyncio.sleep(0.01)
                if len(calls) % 50 == 0:
                    healths[await asyncio.to_thread(health, server.address)] += 1
            await asyncio.gather(*calls)
            return rate

    stolen, total = cores()
    gc.collect()
    gc.freeze()  # a collection of what other tests have left would be measured as the server's silence
    with world.switched("slow", *world.encoders):
        rate = asyncio.run(overload())
    stolen, total = (now - before for now, before in zip(cores(), (stolen, total), strict=True))
    refused_ms.sort()
    assert set(codes) <= {"answered", "QUEUE_FULL", "DEADLINE_EXCEEDED"}
    assert codes["answered"] > 0
    assert codes["QUEUE_FULL"] > codes["answered"]
    assert set(healths) <= {"SERVING"}
    assert health(server.address) == "SERVING"
    assert_within(codes["DEADLINE_EXCEEDED"] / sum(codes.values()), 0.05, "of the calls came too late")
    note.observed = (
        f"{rate:.0f}/s before; of {sum(codes.values())} calls {codes['answered']} answered in their 2 s (half within "
        f"{statistics.median(answered_ms):.0f} ms), {codes['QUEUE_FULL']} refused (half within "
        f"{statistics.median(refused_ms):.0f} ms, {sum(ms < 50 for ms in refused_ms) / len(refused_ms):.0%} within 50 "
        f"ms, the slowest {refused_ms[-1]:.0f} ms), {codes['DEADLINE_EXCEEDED']} too late; SERVING all the time; other "
        f"machines took {stolen / total:.1%} of the cores' time"
    )


def cores() -> tuple[int, int]:
    """Ticks of all cores that the hypervisor gave to others, and all ticks."""
    with Path("/proc/stat").open() as lines:
        ticks = [int(word) for word in next(lines).split()[1:9]]
    return ticks[7], sum(ticks)


@pytest.mark.fault(38, variant="short")
def test_streams_are_opened_and_cancelled(world: World, note: Observation) -> None:
    count = int(os.environ.get("MASKWIRE_TEST_STREAMS", "2000"))
    note.injected = f"{count} streams opened and cancelled, in turn before, while and after they are answered"
    server = world.decoders[0]
    asyncio.run(open_and_cancel(server.address, 1000))  # what a server allocates once
    files, before = server.open_files, server.rss
    asyncio.run(open_and_cancel(server.address, count))
    grown = (server.rss - before) / (1 << 20)
    assert grown < 8
    assert server.open_files <= files + 20  # connections to the store may be new; a leak would have thousands
    world.check(world.calm, 250)
    note.observed = f"resident memory grew by {grown:.1f} MiB, open files by {server.open_files - files}"


@pytest.mark.fault(38, variant="recycled")
def test_a_decoder_that_has_grown_is_replaced(world: World, note: Observation) -> None:
    """Whatever leaks: nobody notices, and the next process begins anew."""
    fresh = processes.decoder(world.folder, world.url, warm=False).start().wait()
    begun = fresh.rss >> 20
    fresh.end()
    never = processes.decoder(world.folder, world.url, "--recycle-mib", "20", warm=False).start()
    assert never.process is not None
    assert never.process.wait(60) == 1
    assert "error: --recycle-mib is 20, but " in never.log.read_text()
    server = processes.decoder(world.folder, world.url, "--recycle-mib", str(begun + 4), warm=False).start().wait()
    note.injected = (
        "streams opened and cancelled at a decoder that may grow by 4 MiB (--recycle-mib), while two people click"
    )
    right = world.right(251)
    clicks, stop = Counter[str](), threading.Event()

    async def until_it_ends() -> int:
        count = 0
        while server.lives:
            try:
                await open_and_cancel(server.address, 500)
            except (grpc.aio.AioRpcError, AssertionError):
                # Only of one that drains: it tells open streams to go on elsewhere, and lets no others begin.
                await asyncio.to_thread(wait_until, lambda: not server.lives, 30)
            count += 500
        return count

    with world.client(decoder=[server, world.decoders[1]]) as client:

        def click() -> None:
            with client.session(picture(251)) as session:
                while not stop.is_set():
                    assert counts(session.click(30, 20)) == right
                    session.undo()
                    assert counts(client.segment(picture(251), points=[(30, 20)])) == right
                    clicks["right"] += 2

        people = [Doing(click) for _ in range(2)]
        streams = asyncio.run(until_it_ends())
        note.fault()
        assert server.process is not None
        assert server.process.returncode == 0
        server.start().wait()
        grown = (server.rss >> 20) - begun
        note.recovered()
        before = clicks["right"]
        wait_until(lambda: clicks["right"] > before + 10, 30)
        stop.set()
        for person in people:
            person.result()
    assert server.end() == 0
    assert "more than the" in server.log.read_text()
    note.observed = (
        f"it ended by itself within {streams:,} streams, drained, exit code 0; {clicks['right']} clicks meanwhile, "
        f"0 errors, 0 wrong; its successor began {grown:+d} MiB from where it had begun"
    )
