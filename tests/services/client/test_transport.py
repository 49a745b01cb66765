"""The client's transport: errors as statuses, callers, streams, and kinds of addresses."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from maskwire import (
    DeadlineExceeded,
    ImageNotFound,
    InvalidRequest,
    MaskwireError,
    NotAllowed,
    NotAuthenticated,
    Overloaded,
    ServerUnavailable,
)
from maskwire.errors import from_status
from maskwire.transport import Caller, Credentials, Stream, is_loopback, to_status
from maskwire.transport.channels import Channels
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc


@pytest.mark.parametrize(
    "kind",
    [
        DeadlineExceeded,
        ImageNotFound,
        InvalidRequest,
        MaskwireError,
        NotAllowed,
        NotAuthenticated,
        Overloaded,
        ServerUnavailable,
    ],
)
def test_an_error_survives_the_wire(kind: type[MaskwireError]) -> None:
    error = kind("it is wrong; do it right", "SOME_REASON", "prompts[0].box", 1.5)
    again = from_status(to_status(error))
    assert type(again) is kind
    assert vars(again) == vars(error)
    bare = from_status(to_status(kind("it is wrong")))
    assert (type(bare), bare.field, bare.retry_after_s) == (kind, "", None)


def test_who_calls_is_sent_with_each_call() -> None:
    assert Caller().metadata == ()
    assert Caller("secret", "tenant").metadata == (("authorization", "Bearer secret"),)
    for token in ("two words", "line\nbreak", "ключ"):
        with pytest.raises(InvalidRequest) as caught:
            Caller(token)
        assert (caught.value.reason, caught.value.field) == ("BAD_TOKEN", "token")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("127.0.0.1.example.org", False),  # a name, whatever it begins with
        ("localhost.example.org", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


class EndingDecoder(decoder_pb2_grpc.DecoderServiceServicer):
    """Ends each stream after its first answer."""

    def __init__(self) -> None:
        self.streams = 0

    async def SegmentStream(
        self, requests: AsyncIterator[pb.SegmentStreamRequest], context: Any
    ) -> AsyncIterator[pb.SegmentStreamResponse]:
        self.streams += 1
        async for request in requests:
            yield pb.SegmentStreamResponse(request_id=request.request_id, image_ready=pb.ImageReady())
            return


def test_an_idle_stream_does_not_call_a_server_that_ends_it_again_and_again() -> None:
    async def stream_to_it() -> tuple[int, int]:
        decoder, server = EndingDecoder(), grpc.aio.server()
        decoder_pb2_grpc.add_DecoderServiceServicer_to_server(decoder, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        channels = Channels("decoder", f"127.0.0.1:{port}", "", Credentials(False))
        stream = Stream(channels, Caller(timeout_s=5, retry_s=2))
        request = pb.SegmentStreamRequest(set_image=pb.SetImage(image_id="photo"))
        await stream.send(request)
        await asyncio.sleep(1)
        idle = decoder.streams
        await stream.send(pb.SegmentStreamRequest(set_image=pb.SetImage(image_id="other")))
        after = decoder.streams
        await stream.close()
        await channels.close()
        await server.stop(0)
        return idle, after

    idle, after = asyncio.run(stream_to_it())
    assert idle <= 2
    assert after > idle
