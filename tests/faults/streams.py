"""Opens and cancels many streams: python -m tests.faults.streams --streams 100000

Streams to a decoder are cancelled at different moments; the decoder's resident memory is printed meanwhile.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc

from . import processes

_AT_ONCE = 50
_UNKNOWN = pb.SegmentStreamRequest(request_id="1", set_image=pb.SetImage(image_id="nothing"))
_AWAITED = pb.SegmentStreamRequest(request_id="2", set_image=pb.SetImage(image_id="nothing", wait_ms=60_000))


async def run(address: str, streams: int, told: Callable[[int], None] = lambda done: None) -> None:
    """Opens and cancels streams in five ways, one after the other.

    Args:
        address: Address of the decoder.
        streams: Number of streams.
        told: Called with the number of streams so far, after each fifty.
    """
    async with grpc.aio.insecure_channel(address) as channel:
        stub: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(channel)
        for done in range(0, streams, _AT_ONCE):
            await asyncio.gather(*(_one(stub, done + index) for index in range(_AT_ONCE)))
            told(done + _AT_ONCE)


async def _one(stub: "decoder_pb2_grpc.DecoderServiceAsyncStub", number: int) -> None:
    call = stub.SegmentStream()
    way = number % 5
    if way == 0:  # as it is opened
        call.cancel()
        return
    if way == 1:  # while the first request is on its way
        writing = asyncio.ensure_future(call.write(_UNKNOWN))
        await asyncio.sleep(0)
        call.cancel()
        writing.cancel()
        await asyncio.wait({writing})
        return
    await call.write(_UNKNOWN)
    response = await call.read()
    assert isinstance(response, pb.SegmentStreamResponse)
    assert response.HasField("error")
    if way == 2:  # between requests
        call.cancel()
    elif way == 3:  # while a request is worked on
        await call.write(_AWAITED)
        reading = asyncio.ensure_future(call.read())
        await asyncio.sleep(0.001)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await reading
    else:  # not cancelled, but closed in order
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


def main() -> None:
    parser = argparse.ArgumentParser(description="Opens and cancels streams, and prints a decoder's memory.")
    parser.add_argument("--streams", type=int, default=100_000)
    streams = parser.parse_args().streams
    with tempfile.TemporaryDirectory() as folder:
        store = processes.store(Path(folder)).start().wait()
        server = processes.decoder(Path(folder), f"redis://127.0.0.1:{store.port}/0", warm=False).start().wait()
        started = time.monotonic()

        def told(done: int) -> None:
            if done % (max(streams // 10, _AT_ONCE)) == 0:
                took_s = time.monotonic() - started
                print(f"{done:7d} streams: {server.rss / 2**20:.1f} MiB, {server.open_files} files, {took_s:.0f} s")

        print(f"      0 streams: {server.rss / 2**20:.1f} MiB, {server.open_files} files")
        asyncio.run(run(server.address, streams, told))
        server.end()
        store.end()


if __name__ == "__main__":
    main()
