"""The client's streams, where servers end them, leave, or do not answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from maskwire import DeadlineExceeded, InvalidRequest, ServerUnavailable
from maskwire.transport import Caller, Credentials, Stream
from maskwire.transport.channels import Channels
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc, types_pb2


class NotingDecoder(decoder_pb2_grpc.DecoderServiceServicer):
    """Notes the images and prompts that each stream sends, and answers them; some names have it do otherwise."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.is_away = False

    async def SegmentStream(
        self, requests: AsyncIterator[pb.SegmentStreamRequest], context: Any
    ) -> AsyncIterator[pb.SegmentStreamResponse]:
        if self.is_away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "")
        noted: list[str] = []
        self.sent.append(noted)
        async for request in requests:
            prompts = request.segment.prompts
            name = prompts[0].prompt_id if prompts else request.set_image.image_id
            noted.append(name)
            if name == "breaks off" and len(self.sent) == 1:
                return
            if name == "leaves":
                self.is_away = True
                return
            if name.startswith("unanswered") and len(noted) > 1:
                continue
            response = pb.SegmentStreamResponse(request_id=request.request_id)
            if prompts:
                response.result.SetInParent()
            else:
                response.image_ready.image.image_id = name
            yield response
            if name == "ends":
                return


def set_image(name: str) -> pb.SegmentStreamRequest:
    return pb.SegmentStreamRequest(set_image=pb.SetImage(image_id=name))


def click(name: str) -> pb.SegmentStreamRequest:
    return pb.SegmentStreamRequest(segment=pb.StreamPrompts(prompts=[types_pb2.Prompt(prompt_id=name)]))


def stream_to_a_noting_decoder(
    scenario: Callable[[Stream, NotingDecoder], Awaitable[None]], timeout_s: float = 5
) -> NotingDecoder:
    async def run() -> NotingDecoder:
        decoder, server = NotingDecoder(), grpc.aio.server()
        decoder_pb2_grpc.add_DecoderServiceServicer_to_server(decoder, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        channels = Channels("decoder", f"127.0.0.1:{port}", Credentials(False))
        stream = Stream(channels, Caller(timeout_s=timeout_s, retry_s=2))
        await scenario(stream, decoder)
        await stream.close()
        await channels.close()
        await server.stop(0)
        return decoder

    return asyncio.run(run())


def test_no_proxy_leads_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)

    async def scenario(stream: Stream, decoder: NotingDecoder) -> None:
        await stream.send(set_image("photo"))

    assert stream_to_a_noting_decoder(scenario).sent == [["photo"]]


def test_an_idle_stream_does_not_call_a_server_that_ends_it_again_and_again() -> None:
    async def scenario(stream: Stream, decoder: NotingDecoder) -> None:
        await stream.send(set_image("ends"))
        await asyncio.sleep(1)
        idle = len(decoder.sent)
        assert idle <= 2
        await stream.send(set_image("ends"))
        assert len(decoder.sent) > idle

    stream_to_a_noting_decoder(scenario)


def test_what_nobody_waits_for_any_more_is_not_sent_again() -> None:
    async def scenario(stream: Stream, decoder: NotingDecoder) -> None:
        await stream.send(set_image("photo"))
        late, cancelled = stream.send(click("unanswered, late")), stream.send(click("unanswered, cancelled"))
        with pytest.raises(DeadlineExceeded):
            await late
        cancelled.cancel()
        await stream.send(click("breaks off"))

    decoder = stream_to_a_noting_decoder(scenario, timeout_s=2)
    assert decoder.sent == [
        ["photo", "unanswered, late", "unanswered, cancelled", "breaks off"],
        ["photo", "breaks off"],
    ]


def test_what_follows_an_image_is_for_that_image_even_if_nobody_waits_for_it_any_more() -> None:
    async def scenario(stream: Stream, decoder: NotingDecoder) -> None:
        await stream.send(set_image("photo"))
        stream.send(set_image("unanswered")).cancel()
        await stream.send(click("breaks off"))
        assert stream.image.image_id == "unanswered"

    decoder = stream_to_a_noting_decoder(scenario)
    assert decoder.sent == [["photo", "unanswered", "breaks off"], ["unanswered", "breaks off"]]


def test_after_an_image_that_could_not_be_set_the_one_before_is_not_meant() -> None:
    async def scenario(stream: Stream, decoder: NotingDecoder) -> None:
        await stream.send(set_image("photo"))
        with pytest.raises(ServerUnavailable):
            await stream.send(set_image("leaves"))
        decoder.is_away = False
        with pytest.raises(InvalidRequest, match="no image is set"):
            await stream.send(click("cup"))

    stream_to_a_noting_decoder(scenario)
