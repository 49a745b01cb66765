"""The health service: nobody who asks for it can keep it from changing."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from maskwire_core.rpc.health import MAX_WATCHES, Health

from testing.virtual_time import run

SERVING, NOT_SERVING, UNKNOWN = (
    HealthCheckResponse.SERVING,
    HealthCheckResponse.NOT_SERVING,
    HealthCheckResponse.SERVICE_UNKNOWN,
)


class Ended(Exception):
    """The call was ended with an error, as `context.abort` does it."""


class Context:
    """gRPC's context of a call, whose caller reads or does not."""

    def __init__(self, peer: str = "ipv4:10.0.0.1:1234", reads: bool = True) -> None:
        self._peer = peer
        self._reads = asyncio.Event()
        if reads:
            self._reads.set()
        self.told: list[int] = []

    def peer(self) -> str:
        return self._peer

    async def write(self, message: HealthCheckResponse) -> None:
        await self._reads.wait()
        self.told.append(message.status)

    async def abort(self, code: grpc.StatusCode, *_: Any) -> None:
        raise Ended(code.name)


def watch(health: Health, context: Context, name: str = "a") -> "asyncio.Task[None]":
    return asyncio.create_task(health.Watch(HealthCheckRequest(service=name), context))  # type: ignore[arg-type]


async def status(health: Health, name: str = "a") -> int:
    return (await health.Check(HealthCheckRequest(service=name), Context())).status  # type: ignore[arg-type]


def test_states_are_told_when_they_change() -> None:
    async def scenario() -> None:
        health, context, stranger = Health(), Context(), Context()
        health.set("a", serving=True)
        calls = [watch(health, context), watch(health, stranger, "b")]
        await asyncio.sleep(1)
        health.set("a", serving=True)
        await asyncio.sleep(1)
        health.set("a", serving=False)
        await asyncio.sleep(1)
        health.set("a", serving=True)
        health.set("b", serving=True)
        await asyncio.sleep(1)
        assert await status(health) == SERVING
        health.shut_down()
        health.set("a", serving=True)  # too late
        assert await status(health) == NOT_SERVING
        with pytest.raises(Ended, match="NOT_FOUND"):
            await status(health, "c")
        for call in calls:
            with pytest.raises(Ended, match="UNAVAILABLE"):
                await call
        assert context.told == [SERVING, NOT_SERVING, SERVING, NOT_SERVING]
        assert stranger.told == [UNKNOWN, SERVING, NOT_SERVING]

    run(scenario())


def test_who_does_not_read_holds_up_nobody() -> None:
    async def scenario() -> None:
        health, deaf, reader = Health(), Context(reads=False), Context()
        health.set("a", serving=True)
        stuck, call = watch(health, deaf), watch(health, reader)
        await asyncio.sleep(1)
        health.shut_down()
        await asyncio.sleep(0)
        assert await status(health) == NOT_SERVING
        with pytest.raises(Ended, match="UNAVAILABLE"):
            await call
        assert reader.told == [SERVING, NOT_SERVING]
        stuck.cancel()
        assert deaf.told == []

    run(scenario())


def test_one_address_cannot_take_all_calls() -> None:
    async def scenario() -> None:
        health = Health()
        health.set("a", serving=True)
        calls = [watch(health, Context(f"ipv4:10.0.0.1:{port}")) for port in range(MAX_WATCHES)]
        await asyncio.sleep(1)
        refused = [call for call in calls if call.done()]
        assert len(refused) == MAX_WATCHES // 3  # one address alone gets two thirds
        with pytest.raises(Ended, match="RESOURCE_EXHAUSTED"):
            await refused[0]
        other = watch(health, Context("ipv6:%5B::1%5D:1"))
        await asyncio.sleep(1)
        assert not other.done()
        open_calls = [call for call in calls if not call.done()]
        for call in open_calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        again = watch(health, Context("ipv4:10.0.0.1:9"))  # what they held was given back
        await asyncio.sleep(1)
        assert not again.done()

    run(scenario())
