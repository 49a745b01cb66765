"""Running a gRPC server: errors, health, reflection, drain."""

import asyncio
import contextlib
import functools
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NoReturn, TypeVar

import grpc
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from maskwire_core.config import MIB, ServiceSettings
from maskwire_core.errors import ServiceError

log = logging.getLogger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]

CONTENT_NEEDED = (("maskwire-content", "needed"),)
"""Initial metadata of EncodeImage where the server wants the chunks."""

MAX_MESSAGE_BYTES = 64 * MIB
_OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a silent sharer
    # Clients may ping every 10 s, also between calls; the default allows one ping in 5 minutes.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
]


_BROKEN_DRAIN_S = 1


def status_of(error: BaseException) -> Status:
    """An error as it is told to a caller. What is no `ServiceError` is logged and told without its details."""
    if isinstance(error, ServiceError):
        return error.status()
    log.exception("unexpected error", exc_info=error)
    return ServiceError("INTERNAL", "unexpected error; the server's log tells more").status()


async def abort(context: Context, error: BaseException) -> NoReturn:
    status = status_of(error)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, status.message, details)


def answering(
    method: Callable[[Any, Request, Context], Awaitable[Response]],
) -> Callable[[Any, Request, Context], Awaitable[Response]]:
    """Makes a servicer's method with one response tell its errors with status, reason and field path."""

    @functools.wraps(method)
    async def guarded(self: Any, request: Request, context: Context) -> Response:
        try:
            return await method(self, request, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:  # the boundary between this server and its callers
            await abort(context, error)

    return guarded


def streaming(
    method: Callable[[Any, Request, Context], AsyncIterator[Response]],
) -> Callable[[Any, Request, Context], AsyncIterator[Response]]:
    """As `answering`, for a method with many responses; its request may be an iterator of many."""

    @functools.wraps(method)
    async def guarded(self: Any, request: Request, context: Context) -> AsyncIterator[Response]:
        try:
            async for response in method(self, request, context):
                yield response
        except (asyncio.CancelledError, grpc.aio.AbortError, GeneratorExit):
            raise
        except Exception as error:  # as above
            await abort(context, error)

    return guarded


async def serve(
    settings: ServiceSettings,
    service: str,
    register: Callable[[grpc.aio.Server], None],
    drain: Callable[[], None] = lambda: None,
    broken: asyncio.Event | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains.

    Args:
        settings: Address, drain time, reflection.
        service: Full name of the service, such as "maskwire.v1.DecoderService".
        register: Adds the servicer to the server.
        drain: Called when no more calls are accepted; calls in progress have `settings.drain_s` to end.
        broken: Set when the server can do its work no more: health turns NOT_SERVING and the program ends with an
            error, to be started anew.
    """
    age = ("grpc.max_connection_age_ms", int(settings.connection_age_s * 1e3))
    server = grpc.aio.server(options=[*_OPTIONS, age] if settings.connection_age_s else _OPTIONS)
    register(server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    if settings.reflection:
        names: Sequence[str] = (service, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    address = f"{settings.host}:{settings.port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise SystemExit(f"error: cannot listen on {address}; is it in use? Choose another with --port") from error
    stopping, broken = asyncio.Event(), broken or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await server.start()
    for name in ("", service):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    log.info("%s serves on %s:%d", service, settings.host, port)
    ends = [asyncio.create_task(event.wait()) for event in (stopping, broken)]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    log.info("draining: accepted work has %g s to finish", settings.drain_s)
    await checks.enter_graceful_shutdown()
    drain()
    await server.stop(_BROKEN_DRAIN_S if broken.is_set() else settings.drain_s)
    log.info("stopped")
    if broken.is_set():
        raise SystemExit("error: the server cannot do its work any more; its log tells why")


@contextlib.asynccontextmanager
async def repeating(period_s: float, action: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Calls `action` every `period_s` seconds while its body runs. An error is logged, and the next call is made."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(period_s)
            try:
                await action()
            except Exception as error:  # whatever it is, the next try may go better
                log.warning("%s", error)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
