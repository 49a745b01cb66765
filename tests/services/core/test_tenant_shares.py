"""A tenant that floods real servers does not keep another from being served."""

import asyncio
import itertools
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2_grpc, types_pb2

from testing.guarded import Guarded, bearer, guarded_servers
from testing.wire import details, frames, picture

LIMIT = 8
ENOUGH = 10  # answers of the modest tenant, and refusals of the flood
MOST_S = 30


@dataclass
class Outcomes:
    """Calls by reason, or "answered", and the seconds that the answered ones took."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)


Call = Callable[[Any, int], Awaitable[Any]]
"""Makes a tenant's call number so and so with a stub."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded_servers(tmp_path_factory.mktemp("guarded"), queue_limit=str(LIMIT)) as servers:
        yield servers


async def contend(
    address: str, stub: Callable[[grpc.aio.Channel], Any], flood: Call, modest: Call, connections: int, at_once: int
) -> tuple[Outcomes, Outcomes]:
    """Floods a server from some connections, and calls it one call at a time from another, without retries.

    Returns:
        What became of the flood, and of the modest calls.
    """
    numbers = itertools.count()
    outcomes = {flood: Outcomes(), modest: Outcomes()}
    end = time.monotonic() + MOST_S

    def enough() -> bool:
        return outcomes[flood].counts["QUEUE_FULL"] > ENOUGH and outcomes[modest].counts["answered"] >= ENOUGH

    async def outcome(call: Call, stub: Any) -> str:
        try:
            await call(stub, next(numbers))
        except grpc.aio.AioRpcError as error:
            return details(error)[1]
        return "answered"

    async def keep_calling(call: Call, stub: Any, pause_s: float) -> None:
        while time.monotonic() < end and not enough():
            started = time.monotonic()
            result = await outcome(call, stub)
            outcomes[call].counts[result] += 1
            if result == "answered":
                outcomes[call].seconds.append(time.monotonic() - started)
            await asyncio.sleep(pause_s if result != "answered" or call is modest else 0)

    channels = [grpc.aio.insecure_channel(address, [("number", number)]) for number in range(connections + 1)]
    callers = [keep_calling(flood, stub(channel), 0.25) for channel in channels[1:] for _ in range(at_once)]
    try:
        flooding = [asyncio.create_task(caller) for caller in callers]
        await asyncio.sleep(1)
        await asyncio.gather(keep_calling(modest, stub(channels[0]), 0.05), *flooding)
    finally:
        for channel in channels:
            await channel.close()
    return outcomes[flood], outcomes[modest]


@pytest.mark.parametrize("connections", [1, 5])
def test_another_tenant_can_encode(guarded: Guarded, connections: int) -> None:
    flood_token, modest_token = bearer(guarded.token("flood")), bearer(guarded.token("modest"))

    def encode(token: tuple[tuple[str, str], ...], offset: int) -> Call:
        async def call(stub: Any, number: int) -> None:
            data = picture(100_000 * connections + offset + number)
            await stub.EncodeImage(iter(list(frames(data, 1 << 20))), metadata=token, timeout=30)

        return call

    flood, modest = asyncio.run(
        contend(
            guarded.encoder,
            encoder_pb2_grpc.EncoderServiceStub,
            encode(flood_token, 0),
            encode(modest_token, 50_000),
            connections,
            20 // connections,
        )
    )
    assert flood.counts["QUEUE_FULL"] > ENOUGH  # the queue was full
    assert set(modest.counts) == {"answered"}
    assert modest.counts["answered"] >= ENOUGH
    assert modest.median_s < flood.median_s


@pytest.mark.parametrize("prompts", [1, 2])
def test_another_tenant_can_decode(guarded: Guarded, prompts: int) -> None:
    """Clicks, and requests with several prompts, which wait as bulk work."""
    tokens = {name: guarded.token(name) for name in ("flood", "modest")}
    images = {name: guarded.client(text).embed(picture(7)) for name, text in tokens.items()}

    def segment(name: str, prompts: int) -> Call:
        point = types_pb2.Prompt(points=[types_pb2.Point(x_px=20, y_px=10)])
        request = decoder_pb2.SegmentRequest(image_id=images[name].image_id, prompts=[point] * prompts)

        async def call(stub: Any, number: int) -> None:
            await stub.Segment(request, metadata=bearer(tokens[name]), timeout=30)

        return call

    flood, modest = asyncio.run(
        contend(
            guarded.decoder,
            decoder_pb2_grpc.DecoderServiceStub,
            segment("flood", 1 if prompts == 1 else LIMIT),
            segment("modest", prompts),
            connections=4,
            at_once=10,
        )
    )
    assert flood.counts["QUEUE_FULL"] > ENOUGH  # the queue was full
    assert set(modest.counts) == {"answered"}
    assert modest.counts["answered"] >= ENOUGH
