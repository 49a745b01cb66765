"""Servers stop in time, whatever their clients do."""

import contextlib
import queue
import time
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from maskwire.cli.free_ports import free_port
from maskwire.cli.health import health
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc

from testing.deaf_client import deaf_call
from testing.processes import wait_until
from testing.time_bounds import assert_within
from testing.warm import Warm, running_module

DECODER = "maskwire.v1.DecoderService"
WATCH = "/grpc.health.v1.Health/Watch"


@contextlib.contextmanager
def decoder(store: str, *options: str) -> Iterator[tuple[str, Warm]]:
    address = f"127.0.0.1:{free_port()}"
    port = address.split(":")[1]
    with running_module("maskwire_decoder", "--port", port, "--redis-url", store, *options) as process:
        wait_until(lambda: health(address) == "SERVING", process=process)
        yield address, process


def ends_within(process: Warm, seconds: float) -> None:
    started = time.monotonic()
    process.terminate()
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
            process.terminate()
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
        process.terminate()
        assert next(stream).WhichOneof("outcome") == "reconnect"
        ends_within(process, 6)
        with pytest.raises(grpc.RpcError):
            next(stream)
        requests.put(None)


def test_more_signals_change_nothing(valkey: str) -> None:
    """As from a supervisor that stops a server which is ending by itself."""
    with decoder(valkey) as (_, process):
        while process.poll() is None:
            process.terminate()
            time.sleep(0.002)
        assert process.returncode == 0
