"""Running a gRPC server: errors, TLS, health, reflection, drain."""

import asyncio
import contextlib
import functools
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

import grpc
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from maskwire_core.config import MIB, ServiceSettings
from maskwire_core.errors import ServiceError
from maskwire_core.rpc.readiness import watch
from maskwire_core.rpc.request_parsing import Parsing, each, readable
from maskwire_core.rpc.tls import server_credentials
from maskwire_core.runtime.process_memory import outgrown, resident, settle
from maskwire_core.telemetry.metrics import ERRORS, REGISTRY, Reading, Readings, offer

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
    # Clients may ping every second, also between calls; the default allows one ping in 5 minutes.
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.bdp_probe", 0),  # little is on its way at a time, so that pings come through slow links in time
]

_BROKEN_DRAIN_S = 1
_STORE_THREADS = 32


def status_of(error: BaseException) -> Status:
    """An error as it is told to a caller. What is no `ServiceError` is logged and told without its details."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:  # as task groups raise
        error = error.exceptions[0]
    if isinstance(error, ServiceError):
        ERRORS.labels(error.reason).inc()
        return error.status()
    ERRORS.labels("INTERNAL").inc()
    log.exception("unexpected error", exc_info=error)
    return ServiceError("INTERNAL", "unexpected error; the server's log tells more").status()


async def abort(context: Context, error: BaseException) -> NoReturn:
    status = status_of(error)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    if isinstance(error, ServiceError) and error.retry_after_s is not None:
        trailers.append(("grpc-retry-pushback-ms", str(int(error.retry_after_s * 1e3))))  # for grpc's own retries
    await context.abort(code, status.message, tuple(trailers))


def answering(
    method: Callable[[Any, Request, Context], Awaitable[Response]],
) -> Callable[[Any, Request, Context], Awaitable[Response]]:
    """Makes a servicer's method with one response tell its errors with status, reason and field path."""

    @functools.wraps(method)
    async def guarded(self: Any, request: Request, context: Context) -> Response:
        try:
            return await method(self, _checked(request), context)
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
            async for response in method(self, _checked(request), context):
                yield response
        except (asyncio.CancelledError, grpc.aio.AbortError, GeneratorExit):
            raise
        except Exception as error:  # as above
            await abort(context, error)

    return guarded


def _checked(request: Any) -> Any:
    return each(request) if hasattr(request, "__aiter__") else readable(request)


async def serve(
    settings: ServiceSettings,
    service: str,
    register: Callable[[grpc.aio.Server], None],
    drain: Callable[[], None] = lambda: None,
    broken: asyncio.Event | None = None,
    self_test: Callable[[], Awaitable[None]] | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    readings: Sequence[Reading] = (),
) -> None:
    """Serves until SIGTERM or SIGINT, then drains.

    Args:
        settings: Address, drain time, reflection.
        service: Full name of the service, such as "maskwire.v1.DecoderService".
        register: Adds the servicer to the server.
        drain: Called when no more calls are accepted; calls in progress have `settings.drain_s` to end.
        broken: Set when the server can do its work no more: health turns NOT_SERVING and the program ends with an
            error, to be started anew.
        self_test: Checks that the server can do its work; see `readiness.watch`. While it fails, the health of
            `service` is NOT_SERVING; the health of the process ("") does not depend on it.
        interceptors: What each call goes through first.
        readings: What metrics tell of the server.
    """
    credentials = server_credentials(settings)
    third_ms = int(settings.dead_after_s * 1e3 / 3)
    options = [
        *_OPTIONS,
        ("grpc.keepalive_time_ms", third_ms),
        ("grpc.keepalive_timeout_ms", 2 * third_ms),
        ("grpc.http2.ping_timeout_ms", 2 * third_ms),  # without it, a minute
    ]
    if settings.connection_age_s:
        options.append(("grpc.max_connection_age_ms", int(settings.connection_age_s * 1e3)))
    server = grpc.aio.server(interceptors=[*interceptors, Parsing()], options=options)
    register(server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    if settings.reflection if settings.reflection is not None else settings.tokens is None:
        names: Sequence[str] = (service, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    port = _listen(server, settings.host, settings.port, credentials)
    health_server = None
    if settings.health_port is not None:
        health_server = grpc.aio.server(options=_OPTIONS)
        health_pb2_grpc.add_HealthServicer_to_server(checks, health_server)
        _listen(health_server, settings.host, settings.health_port)
        await health_server.start()
    stopping, broken = asyncio.Event(), broken or asyncio.Event()
    loop = asyncio.get_running_loop()
    end_metrics = None
    if settings.metrics_port is not None:
        REGISTRY.register(Readings(readings, loop))
        end_metrics = offer(settings.host, settings.metrics_port)
    # Commands of the store wait here; asyncio's own few threads would all wait for a store that hangs.
    loop.set_default_executor(ThreadPoolExecutor(_STORE_THREADS, "store"))
    settle()
    if 0 < settings.recycle_mib * MIB < (needed := resident()):
        raise SystemExit(
            f"error: --recycle-mib is {settings.recycle_mib}, but {needed >> 20} MiB are needed to begin with"
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await server.start()
    for name in ("", service):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    log.info("%s serves on %s:%d", service, settings.host, port)

    async def tell(ready: bool) -> None:
        await checks.set(
            service, health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        )

    ends: list[asyncio.Task[Any]] = [asyncio.create_task(event.wait()) for event in (stopping, broken)]
    if settings.recycle_mib:
        ends.append(asyncio.create_task(outgrown(settings.recycle_mib * MIB)))
    watching = (
        asyncio.create_task(watch(self_test, settings.self_test_s, tell, broken))
        if self_test and settings.self_test_s
        else None
    )
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if watching is not None:
        watching.cancel()
    log.info("draining: accepted work has %g s to finish", settings.drain_s)
    await checks.enter_graceful_shutdown()
    drain()
    await server.stop(_BROKEN_DRAIN_S if broken.is_set() else settings.drain_s)
    if health_server is not None:
        await health_server.stop(None)
    if end_metrics is not None:
        end_metrics()
    log.info("stopped")
    if broken.is_set():
        raise SystemExit("error: the server cannot do its work any more; its log tells why")


def _listen(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None = None) -> int:
    """Returns the port, which is chosen here if it was 0."""
    address = f"{host}:{port}"
    try:
        if credentials is not None:
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise SystemExit(f"error: cannot listen on {address}; is it in use? Choose another with --port") from error


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
