"""Starts a gateway: python -m maskwire_gateway --help"""

import contextlib
import functools
import importlib.util
import logging
import signal
import ssl
from pathlib import Path

import uvicorn
from maskwire_core.config import GatewaySettings, from_command_line
from maskwire_core.http.connections import Connections, Timeouts
from maskwire_core.http.fast_connections import BoundedHttpTools
from maskwire_core.http.listening import LOOP
from maskwire_core.http.sockets import BoundedSocket
from maskwire_core.runtime.process_memory import return_at_once, settle
from maskwire_core.runtime.thread_priority import switch_soon
from maskwire_core.scheduling.shares import Shares
from maskwire_core.telemetry.exposition import exposed
from maskwire_core.telemetry.logs import configure_logging
from maskwire_core.telemetry.tracing import configure_tracing, flush

from maskwire_gateway.app import application
from maskwire_gateway.http.doorkeeper import NOBODY
from maskwire_gateway.metrics import Telemetry

_MAX_FRAME_BYTES = 16 << 20
_BACKLOG = 2048
_PONG_S = 20


def _page() -> Path | None:
    if importlib.util.find_spec("maskwire_web") is None:
        return None
    import maskwire_web

    return Path(maskwire_web.folder())


def main() -> None:
    """Serves the gateway until SIGTERM or SIGINT, and then drains."""
    settings = from_command_line(GatewaySettings)
    configure_logging(settings)
    configure_tracing("gateway", settings.trace_to)
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level)))
    telemetry = Telemetry()
    memory = Shares(settings.body_memory_bytes, {NOBODY})
    timeouts = Timeouts(settings.header_timeout_s, settings.answer_timeout_s)
    connections = Connections(settings.max_connections, timeouts)
    config = uvicorn.Config(
        application(settings, _page(), telemetry, memory),
        host=settings.host,
        port=settings.port,
        loop=LOOP,
        log_config=None,
        access_log=False,
        server_header=False,
        http=functools.partial(BoundedHttpTools, connections),  # type: ignore[arg-type]
        ws=functools.partial(BoundedSocket, connections, memory, settings.body_timeout_s),  # type: ignore[arg-type]
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        backlog=_BACKLOG,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        ssl_ca_certs=str(settings.tls_client_ca) if settings.tls_client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca else ssl.CERT_NONE,
        timeout_graceful_shutdown=round(settings.drain_s),
        ws_max_size=_MAX_FRAME_BYTES,
        ws_ping_timeout=_PONG_S + settings.timeout_s,  # a pong is read only after frames that wait for answers
        ws_per_message_deflate=False,  # a mask as RLE is a few kB; compressing it would cost more than sending it
    )
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn drains, and then raises the signal again
        signal.signal(number, lambda *_: None)
    config.load()
    switch_soon()
    settle()
    return_at_once()
    with contextlib.ExitStack() as running:
        running.callback(flush)
        if settings.metrics_port is not None:
            running.enter_context(exposed(settings.host, settings.metrics_port, telemetry.registry))
        uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
