"""Rows: a warm click over the gateway's WebSocket compared with one over gRPC, from the prompt to the caller's RLE."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf import json_format
from maskwire.cli.free_ports import free_port
from maskwire.cli.health import answers_http
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc, types_pb2
from websockets.sync.client import connect

from bench.harness import Row
from bench.rows.click import agree
from bench.subject import CLICK, served
from testing.processes import running, wait_until


@contextlib.contextmanager
def rows() -> Iterator[Iterator[Row]]:
    prompt = types_pb2.Prompt(points=[types_pb2.Point(x_px=CLICK[0], y_px=CLICK[1])])
    message = pb.SegmentStreamRequest(request_id="1", segment=pb.StreamPrompts(prompts=[prompt]))
    first = pb.SegmentStreamRequest(set_image=pb.SetImage(image_id="photo"))
    with served() as (address, _), contextlib.ExitStack() as opened:
        port = free_port()
        command = [sys.executable, "-m", "maskwire_gateway", "--port", str(port), "--decoder", address]
        process = opened.enter_context(running(command))
        wait_until(lambda: answers_http("127.0.0.1", port), process=process)
        binary, text = (opened.enter_context(connect(f"ws://127.0.0.1:{port}/v1/stream")) for _ in range(2))
        binary.send(first.SerializeToString())
        text.send(json_format.MessageToJson(first))
        assert pb.SegmentStreamResponse.FromString(bytes(binary.recv(60))).HasField("image_ready")  # type: ignore[arg-type]
        assert "image_ready" in str(text.recv(60))
        stub = decoder_pb2_grpc.DecoderServiceStub(opened.enter_context(grpc.insecure_channel(address)))
        request = pb.SegmentRequest(image_id="photo", prompts=[prompt])

        def rle(response: pb.SegmentResponse) -> Any:
            found = response.results[0].masks[0].rle
            return {"size": list(found.size), "counts": found.counts}

        def in_binary() -> Any:
            binary.send(message.SerializeToString())
            return rle(pb.SegmentStreamResponse.FromString(bytes(binary.recv(60))).result)  # type: ignore[arg-type]

        def in_text() -> Any:
            text.send(json_format.MessageToJson(message))
            return rle(json_format.Parse(text.recv(60), pb.SegmentStreamResponse()).result)

        def over_grpc() -> Any:
            return rle(stub.Segment(request))

        name, against = "warm click over WebSocket", "the same over gRPC, without a gateway"
        yield iter(
            [
                Row(f"{name}, binary frames", against, 1.5, in_binary, over_grpc, agree, 60),
                Row(f"{name}, JSON frames", against, 1.5, in_text, over_grpc, agree, 60),
            ]
        )
