"""A request that ends whichever server has it reaches two; one that meets servers that restart goes on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from maskwire import ServerUnavailable
from maskwire.transport import Caller, Credentials, Servers, Stream
from maskwire.transport.losses import is_loss
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2

from testing import virtual_time
from testing.local_channel import LocalServer, connect_locally

ADDRESSES = ["a:1", "b:1", "c:1", "d:1"]
CLICK = pb.SegmentRequest(image_id="photo", prompts=[types_pb2.Prompt()])


class Decoder:
    """Ends under clicks, after a while; it answers anything else."""

    def __init__(self) -> None:
        self.server: LocalServer | None = None
        self.after_s = 0.0
        self.answers = False
        self.stops = 0  # how many calls it ends as a server that stops does
        self.reached = 0

    async def Segment(self, request: pb.SegmentRequest, context: Any) -> pb.SegmentResponse:
        await self._work()
        return pb.SegmentResponse()

    async def SegmentStream(
        self, requests: AsyncIterator[pb.SegmentStreamRequest], context: Any
    ) -> AsyncIterator[pb.SegmentStreamResponse]:
        async for request in requests:
            response = pb.SegmentStreamResponse(request_id=request.request_id)
            if request.HasField("segment"):
                await self._work()
                response.result.SetInParent()
            else:
                response.image_ready.SetInParent()
            yield response

    async def GenerateMasks(
        self, request: pb.GenerateMasksRequest, context: Any
    ) -> AsyncIterator[pb.GenerateMasksResponse]:
        await self._work()
        yield pb.GenerateMasksResponse()

    async def _work(self) -> None:
        if self.stops:
            self.stops -= 1
            raise failure(grpc.StatusCode.UNAVAILABLE, "Cancelling all calls")
        self.reached += 1
        await asyncio.sleep(self.after_s)
        if not self.answers:
            assert self.server is not None
            self.server.kill()
            await asyncio.sleep(60)


def failure(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


Work = Callable[[Servers, Caller], Awaitable[Any]]


async def unary(servers: Servers, caller: Caller) -> Any:
    return await servers.segment(CLICK, caller)


async def everything(servers: Servers, caller: Caller) -> Any:
    return [each async for each in servers.generate_masks(pb.GenerateMasksRequest(image_id="photo"), caller)]


async def session(servers: Servers, caller: Caller) -> Any:
    stream = Stream(servers.decoders, caller)
    try:
        await stream.send(pb.SegmentStreamRequest(set_image=pb.SetImage(image_id="photo")))
        return await stream.send(pb.SegmentStreamRequest(segment=pb.StreamPrompts(prompts=[types_pb2.Prompt()])))
    finally:
        await stream.close()


def run(monkeypatch: pytest.MonkeyPatch, work: Work, prepare: Callable[[list[Decoder]], None]) -> list[Decoder]:
    """Does some work with four decoders. Returns them."""
    decoders = {address: Decoder() for address in ADDRESSES}

    async def scenario() -> None:
        for address, server in connect_locally(monkeypatch, dict(decoders)).items():
            decoders[address].server = server
        prepare(list(decoders.values()))
        servers = Servers("e:1", ",".join(ADDRESSES), Credentials(False))
        await work(servers, Caller(timeout_s=60, retry_s=30))

    virtual_time.run(scenario())
    return list(decoders.values())


@pytest.mark.parametrize("work", [unary, everything, session])
@pytest.mark.parametrize("after_s", [0, 0.5, 1.5])  # a click's second server is asked after a second
def test_what_ends_every_server_reaches_two(monkeypatch: pytest.MonkeyPatch, work: Work, after_s: float) -> None:
    reached: list[Decoder] = []

    def prepare(decoders: list[Decoder]) -> None:
        reached.extend(decoders)
        for decoder in decoders:
            decoder.after_s = after_s

    with pytest.raises(ServerUnavailable) as caught:
        run(monkeypatch, work, prepare)
    assert caught.value.reason == "SERVERS_LOST"
    assert (caught.value.retry_after_s or 0) < 0  # and nobody in between tries again
    assert sum(decoder.reached for decoder in reached) == 2


@pytest.mark.parametrize("work", [unary, everything, session])
def test_one_lost_server_and_several_that_restart_are_survived(monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    """Each stops under the call, or is away at first; the server that answers is found."""

    def prepare(decoders: list[Decoder]) -> None:
        for decoder in decoders:
            decoder.answers, decoder.stops = True, 1
        decoders[0].answers = False

    decoders = run(monkeypatch, work, prepare)
    assert sum(decoder.reached for decoder in decoders if decoder.answers) == 1


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        ("UNAVAILABLE", "Stream removed (Socket closed)", True),
        ("UNAVAILABLE", "Stream removed (recvmsg:Connection reset by peer (104))", True),
        ("UNAVAILABLE", "keepalive watchdog timeout", True),
        (
            "UNAVAILABLE",
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
            True,
        ),
        ("INTERNAL", "Internal error from Core", True),
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote "
            "host: Connection refused",
            False,
        ),
        ("UNAVAILABLE", "Cancelling all calls", False),
        ("UNAVAILABLE", "no healthy upstream", False),
        (
            "UNAVAILABLE",
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
            False,
        ),
        ("CANCELLED", "", False),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", False),
    ],
)
def test_what_counts_as_a_lost_server(code: str, details: str, expected: bool) -> None:
    assert is_loss(failure(grpc.StatusCode[code], details)) is expected
