"""Calls that wait for images which never come do not hold up others."""

import statistics
import time
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from maskwire import Client
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, types_pb2

from testing.processes import wait_until
from testing.servers import Stack
from testing.time_bounds import assert_within
from testing.wire import MANY_CALLS, details, picture

CALLS = 1500
MOST = 683  # of 1024, for one tenant alone
POINT = types_pb2.Prompt(points=[types_pb2.Point(x_px=5, y_px=5)])


@pytest.mark.time_bound
@pytest.mark.parametrize("distinct", [True, False], ids=["many images", "one image"])
def test_a_crowd_that_waits(stack: Stack, client: Client, distinct: bool) -> None:
    client.embed(picture(77), "there")

    def median_s() -> float:
        """Of clicks, one after another."""
        took = []
        for _ in range(30):
            started = time.perf_counter()
            client.segment("there", points=[(5, 5)])
            took.append(time.perf_counter() - started)
        return statistics.median(took)

    median_s()
    calm_s = median_s()
    with grpc.insecure_channel(stack.decoder, [*MANY_CALLS, ("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = decoder_pb2_grpc.DecoderServiceStub(channel)
        calls: list[Any] = [
            stub.Segment.future(
                decoder_pb2.SegmentRequest(image_id=f"never {distinct * index}", prompts=[POINT], wait_ms=30_000)
            )
            for index in range(CALLS)
        ]
        try:
            wait_until(lambda: sum(call.done() for call in calls) >= CALLS - MOST, 20)
            refused = [call for call in calls if call.done()]
            crowded_s = median_s()
        finally:
            for call in calls:
                call.cancel()
    assert len(refused) == CALLS - MOST
    assert {details(call.exception()) for call in refused} == {("RESOURCE_EXHAUSTED", "TOO_MANY_WAITING", "wait_ms")}
    retry = RetryInfo()
    status = Status.FromString(dict(refused[0].trailing_metadata())["grpc-status-details-bin"])
    assert any(each.Unpack(retry) for each in status.details)
    assert retry.retry_delay.ToMilliseconds() == 1000
    assert_within(crowded_s, 3 * calm_s + 0.02)
