"""Errors as gRPC callers see them."""

import logging
from typing import Any, NoReturn

import grpc
from google.rpc.status_pb2 import Status

from maskwire_core.errors import ServiceError
from maskwire_core.telemetry.metrics import ERRORS

log = logging.getLogger(__name__)


def status_of(error: BaseException) -> Status:
    """Translates an error for the caller, and counts it. Errors other than `ServiceError` are logged, and the caller
    gets no details of them."""
    error = _ungrouped(error)
    if not isinstance(error, ServiceError):
        log.error("unexpected error", exc_info=error)
        error = ServiceError("INTERNAL", "unexpected error; the server's log tells more")
    ERRORS.labels(error.reason).inc()
    return error.status()


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: BaseException) -> NoReturn:
    """Ends a call with an error, translated by `status_of`."""
    error = _ungrouped(error)
    status = status_of(error)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    if isinstance(error, ServiceError) and error.retry_after_s is not None:
        trailers.append(("grpc-retry-pushback-ms", str(int(error.retry_after_s * 1e3))))  # for grpc's own retries
    await context.abort(code, status.message, tuple(trailers))


def _ungrouped(error: BaseException) -> BaseException:
    """The error itself, where a task group raised it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
