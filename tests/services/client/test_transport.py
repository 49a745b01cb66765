"""The client's streams where a server ends them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from maskwire.transport import Caller, Credentials, Stream
from maskwire.transport.channels import Channels
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc


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
