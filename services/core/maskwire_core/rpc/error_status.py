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
    return _told(error).status()


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: BaseException) -> NoReturn:
    """Ends a call with an error, translated as by `status_of`."""
    told = _told(error)
    trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", told.status().SerializeToString())]
    if told.retry_after_s is not None:
        trailers.append(("grpc-retry-pushback-ms", str(int(told.retry_after_s * 1e3))))  # for grpc's own retries
    await context.abort(told.code, told.message, tuple(trailers))


def _told(error: BaseException) -> ServiceError:
    """The error that the caller is told, which is counted."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:  # a task group raised it
        error = error.exceptions[0]
    if not isinstance(error, ServiceError):
        log.error("unexpected error", exc_info=error)
        error = ServiceError("INTERNAL", "unexpected error; the server's log tells more")
    ERRORS.labels(error.reason).inc()
    return error
