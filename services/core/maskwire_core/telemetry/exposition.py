"""The port at which Prometheus reads a process's metrics."""

import contextlib
import logging
from collections.abc import Iterator

from maskwire.host_port import join
from prometheus_client import start_http_server
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)


@contextlib.contextmanager
def exposed(host: str, port: int, registry: Collector) -> Iterator[None]:
    """Serves a registry's metrics at /metrics while the body runs. Exits if the port is in use."""
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise SystemExit(
            f"error: cannot listen on {join(host, port)}; is it in use? Choose another --metrics-port"
        ) from error
    log.info("metrics on http://%s/metrics", join(host, server.server_port))
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
