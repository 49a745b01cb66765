"""Errors of servicers as gRPC callers see them."""

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status
from maskwire_core.errors import Unavailable
from maskwire_core.rpc.error_status import abort

BUSY = Unavailable("DRAINING", "this server is about to stop", retry_after_s=0.25)


class Aborted(Exception):
    pass


class RecordingContext:
    """Records what a call is ended with."""

    async def abort(self, code: grpc.StatusCode, details: str, trailers: tuple[tuple[str, Any], ...]) -> None:
        self.code, self.details, self.trailers = code, details, dict(trailers)
        raise Aborted


@pytest.mark.parametrize(
    "error", [BUSY, ExceptionGroup("tasks", [BUSY]), ExceptionGroup("", [ExceptionGroup("", [BUSY])])]
)
def test_a_retry_time_reaches_the_caller_from_task_groups_too(error: Exception) -> None:
    context = RecordingContext()
    with pytest.raises(Aborted):
        asyncio.run(abort(context, error))  # type: ignore[arg-type]
    assert (context.code, context.details) == (grpc.StatusCode.UNAVAILABLE, "this server is about to stop")
    assert context.trailers["grpc-retry-pushback-ms"] == "250"
    assert Status.FromString(context.trailers["grpc-status-details-bin"]) == BUSY.status()


@pytest.mark.parametrize("error", [ValueError("secret"), ExceptionGroup("two", [BUSY, ValueError("secret")])])
def test_callers_learn_nothing_of_unexpected_errors(error: Exception) -> None:
    context = RecordingContext()
    with pytest.raises(Aborted):
        asyncio.run(abort(context, error))  # type: ignore[arg-type]
    assert context.code == grpc.StatusCode.INTERNAL
    assert "secret" not in context.details
    assert "grpc-retry-pushback-ms" not in context.trailers
