"""Runs a gRPC server: TLS, health, reflection, metrics, drain."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from maskwire.host_port import join

from maskwire_core.config import MIB, AnySettings, ServiceSettings, from_command_line
from maskwire_core.rpc.authorization import authorizing
from maskwire_core.rpc.crowds import sharing_connections
from maskwire_core.rpc.health import Health
from maskwire_core.rpc.interceptor import CallInterceptor
from maskwire_core.rpc.newcomers import Newcomers
from maskwire_core.rpc.readiness import watch
from maskwire_core.rpc.receiving import Receiver
from maskwire_core.rpc.reflection import add_reflection
from maskwire_core.rpc.tls import server_credentials
from maskwire_core.runtime.empty_folder import in_empty_folder, with_absolute_paths
from maskwire_core.runtime.last_resort import ending_within
from maskwire_core.runtime.process_memory import outgrown, resident, returning, settle
from maskwire_core.runtime.thread_priority import switch_soon
from maskwire_core.telemetry.logs import configure_logging
from maskwire_core.telemetry.metrics import LiveMetric, metrics_server
from maskwire_core.telemetry.tracing import configure_tracing, flush
from maskwire_core.tenancy.tokens import Right

log = logging.getLogger(__name__)

CONTENT_NEEDED = (("maskwire-content", "needed"),)
"""Initial metadata of EncodeImage if the server needs the chunks."""

MAX_MESSAGE_BYTES = 64 * MIB
_OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.lookahead_bytes", 64 << 10),  # of a stream that nobody reads
    ("grpc.max_metadata_size", 8 << 10),
    ("grpc.absolute_max_metadata_size", 16 << 10),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.so_reuseport", 0),  # a second server on the port is an error, and does not share it silently
    # Clients may ping every second, also between calls; by default one ping in 5 minutes is allowed.
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.bdp_probe", 0),  # keeps the flow-control window small, so that pings pass slow links in time
    # Calls of one connection, and those that have ended or were reset but are not given up here yet. Calls beyond this
    # limit wait at the client, or gRPC itself resets them if the client ignores the limit: each call that reaches this
    # process takes half a millisecond of the event loop, and calls are taken up in the order in which they come.
    ("grpc.max_concurrent_streams", 32),
    ("grpc.http2.max_deallocating_streams", 32),  # without it, calls within the limit are reset, too
    # gRPC drops calls that this process has not taken up yet, anybody's and without a status: beyond the first limit
    # some at random, beyond the second all. With its defaults, 1,000 and 3,000, a burst of one caller ended calls of
    # others as CANCELLED. A call that waits there takes its headers' memory.
    ("grpc.server.max_pending_requests", 8_192),
    ("grpc.server.max_pending_requests_hard_limit", 16_384),
]

_STOPPING = (signal.SIGTERM, signal.SIGINT)
_OWN_HOSTS = ("127.0.0.1", "localhost", "::1", "[::1]")
_BROKEN_DRAIN_S = 1
_LAST_ANSWERS_S = 2  # after the last call has been answered, for those who read slowly
_END_S = 10  # after the drain, for the process to end by itself
_STORE_THREADS = 32
_RETURN_S = 10  # how often unused memory is given back to the system, which may hold up threads for milliseconds


@dataclass(frozen=True)
class Service:
    """A gRPC service, and what its server needs to know about it."""

    name: str  # full name, such as "maskwire.v1.DecoderService"
    register: Callable[[grpc.aio.Server], None]  # adds the servicer to a server
    rights: Mapping[str, Right | None]  # by method name, the right that a token needs; None if it needs none
    live_metrics: Sequence[LiveMetric] = ()  # metrics that are read when Prometheus asks
    # Checks that the service can do its work; see `readiness.watch`. While it fails, the health of `name` is
    # NOT_SERVING; the health of the process ("") does not depend on it.
    self_test: Callable[[], Awaitable[None]] | None = None
    # Called when no more calls are accepted; calls in progress have `settings.drain_s` to finish.
    drain: Callable[[], None] = lambda: None
    # Set when the service cannot do its work any more: the process then exits with an error, to be started again.
    broken: asyncio.Event = field(default_factory=asyncio.Event)


def start(kind: type[AnySettings], name: str, run: Callable[[AnySettings], Coroutine[Any, Any, None]]) -> None:
    """Runs a server with the settings of its command line and environment.

    Args:
        kind: Its settings.
        name: Its name in traces.
        run: Serves until SIGTERM or SIGINT.
    """
    settings = from_command_line(kind)
    configure_logging(settings)
    configure_tracing(name, settings.trace_to)
    try:
        settings = with_absolute_paths(settings)
        with in_empty_folder():
            asyncio.run(run(settings))
    finally:
        flush()


async def serve(settings: ServiceSettings, service: Service) -> None:
    """Serves until SIGTERM or SIGINT, then drains. Exits with an error if the server cannot start, or if the service is
    broken.

    Args:
        settings: Settings of the server.
        service: What is served.
    """
    checks, receiver = Health(), Receiver(settings)
    live_metrics = [*service.live_metrics, *receiver.live_metrics()]
    async with contextlib.AsyncExitStack() as running:
        authorizer = await running.enter_async_context(authorizing(settings, service.rights))
        newcomers = Newcomers()
        interceptor = CallInterceptor(authorizer, receiver, newcomers)
        server = grpc.aio.server(interceptors=[interceptor], options=_options(settings))
        service.register(server)
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        if settings.reflection if settings.reflection is not None else settings.tokens is None:
            add_reflection((service.name, "grpc.health.v1.Health"), server)
        port = _listen(server, settings.host, settings.port, server_credentials(settings))
        if settings.health_port is not None:
            await running.enter_async_context(_health_server(settings.host, settings.health_port, checks))
        if settings.metrics_port is not None:
            running.enter_context(metrics_server(settings.host, settings.metrics_port, live_metrics))
        _prepare_process(settings)
        await running.enter_async_context(returning(lambda: receiver.budget.given_back, _RETURN_S))
        stopping = asyncio.Event()
        for number in _STOPPING:
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await server.start()
        newcomers.find_listeners(port)
        running.enter_context(sharing_connections(newcomers))
        for name in ("", service.name):
            checks.set(name, serving=True)
        log.info("%s serves on %s", service.name, join(settings.host, port))
        if settings.tokens is None and settings.host not in _OWN_HOSTS:
            log.warning("no --tokens: whoever reaches %s may use everything", join(settings.host, port))
        await _until_stopped(settings, service, checks, stopping)
        drain_s = _BROKEN_DRAIN_S if service.broken.is_set() else settings.drain_s
        log.info("draining: accepted work has %g s to finish", drain_s)
        ending_within(drain_s + _END_S)
        checks.shut_down()
        service.drain()
        await _drain(server, interceptor, drain_s)
    for number in _STOPPING:
        # It ends already. Without a handler, another signal would change its exit code.
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    log.info("stopped")
    if service.broken.is_set():
        raise SystemExit("error: the server cannot do its work any more; its log tells why")


async def _drain(server: grpc.aio.Server, interceptor: CallInterceptor, drain_s: float) -> None:
    """Stops a server when its calls have been answered, and after `drain_s` in any case. Health checks count as no
    calls: nobody keeps a server waiting by watching it."""
    stopping = asyncio.create_task(server.stop(drain_s))
    answered = asyncio.create_task(interceptor.idle())
    await asyncio.wait({stopping, answered}, return_when=asyncio.FIRST_COMPLETED)
    if answered.cancel():
        await stopping
    else:
        await asyncio.gather(stopping, server.stop(min(_LAST_ANSWERS_S, drain_s)))


def _options(settings: ServiceSettings) -> list[tuple[str, int]]:
    third_ms = int(settings.dead_after_s * 1e3 / 3)
    options = [
        *_OPTIONS,
        ("grpc.max_receive_message_length", settings.max_request_bytes),  # what is larger is refused unread
        ("grpc.keepalive_time_ms", third_ms),
        ("grpc.keepalive_timeout_ms", 2 * third_ms),
        ("grpc.http2.ping_timeout_ms", 2 * third_ms),  # a minute by default
    ]
    if settings.connection_age_s:
        options.append(("grpc.max_connection_age_ms", int(settings.connection_age_s * 1e3)))
    return options


def _listen(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None = None) -> int:
    """Returns the port, which is a free one if 0 was asked for."""
    address = join(host, port)
    try:
        if credentials is not None:
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise SystemExit(f"error: cannot listen on {address}; is it in use? Choose another with --port") from error


@contextlib.asynccontextmanager
async def _health_server(host: str, port: int, checks: Health) -> AsyncIterator[None]:
    """Serves health checks alone on a port of their own while the body runs."""
    server = grpc.aio.server(options=[*_OPTIONS, ("grpc.max_receive_message_length", 64 << 10)])
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    _listen(server, host, port)
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


def _prepare_process(settings: ServiceSettings) -> None:
    """Sets up threads and memory. Exits if the process needs more memory than the settings allow already."""
    switch_soon()
    # Commands of the store block these threads; asyncio's own few would all be taken by a store that hangs.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_STORE_THREADS, "store"))
    settle()
    if 0 < settings.recycle_mib * MIB < (needed := resident()):
        raise SystemExit(
            f"error: --recycle-mib is {settings.recycle_mib}, but {needed >> 20} MiB are needed to begin with"
        )


async def _until_stopped(settings: ServiceSettings, service: Service, checks: Health, stopping: asyncio.Event) -> None:
    """Runs self-tests until `stopping` or `service.broken` is set or the process has outgrown its memory."""

    async def tell(ready: bool) -> None:
        checks.set(service.name, serving=ready)

    ends: list[asyncio.Task[Any]] = [asyncio.create_task(event.wait()) for event in (stopping, service.broken)]
    if settings.recycle_mib:
        ends.append(asyncio.create_task(outgrown(settings.recycle_mib * MIB)))
    testing = None
    if service.self_test is not None and settings.self_test_s:
        testing = asyncio.create_task(watch(service.self_test, settings.self_test_s, tell, service.broken))
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if testing is not None:
        testing.cancel()
