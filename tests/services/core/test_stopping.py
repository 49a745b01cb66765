"""Servers stop in time, whatever their clients do."""

import contextlib
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from maskwire.cli.health import health
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc

from testing.deaf_client import deaf_call
from testing.processes import free_port, running, wait_until
from testing.time_bounds import assert_within

DECODER = "maskwire.v1.DecoderService"
WATCH = "/grpc.health.v1.Health/Watch"


@contextlib.contextmanager
def decoder(store: str, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "maskwire_decoder", "--port", address.split(":")[1], "--redis-url", store]
    with running([*command, *options]) as process:
        wait_until(lambda: health(address) == "SERVING", process=process)
        yield address, process


def ends_within(process: subprocess.Popen[bytes], seconds: float) -> None:
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert_within(time.monotonic() - started, seconds)


@pytest.mark.time_bound
def test_watching_health_without_reading_it_keeps_nothing_alive(valkey: str) -> None:
    watched = [health_pb2.HealthCheckRequest(service=name).SerializeToString() for name in ("", DECODER)]
    with decoder(valkey) as (address, process), contextlib.ExitStack() as calls:
        for request in watched:
            calls.enter_context(deaf_call(address, WATCH, request))
        with grpc.insecure_channel(address) as channel:
            states = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=DECODER))
            assert next(states).status == health_pb2.HealthCheckResponse.SERVING
            process.send_signal(signal.SIGTERM)
            assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.RpcError):
                next(states)
        ends_within(process, 8)  # without waiting for the 20 s in which accepted work may finish


@pytest.mark.time_bound
def test_a_stream_that_does_not_end_ends_with_the_drain(valkey: str) -> None:
    with decoder(valkey, "--drain-s", "1") as (address, process), grpc.insecure_channel(address) as channel:
        requests: queue.Queue[decoder_pb2.SegmentStreamRequest | None] = queue.Queue()
        stream = decoder_pb2_grpc.DecoderServiceStub(channel).SegmentStream(iter(requests.get, None))
        requests.put(decoder_pb2.SegmentStreamRequest())
        assert next(stream).WhichOneof("outcome") == "error"  # the stream is open
        process.send_signal(signal.SIGTERM)
        assert next(stream).WhichOneof("outcome") == "reconnect"
        ends_within(process, 6)
        with pytest.raises(grpc.RpcError):
            next(stream)
        requests.put(None)
