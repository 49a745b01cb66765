"""What encoders and decoders count, as Prometheus reads it.

Names of `grpc_server_*` and their labels are those of the gRPC ecosystem's Prometheus interceptors, so that existing
dashboards and rules fit.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PATIENCE_S = 5
_METHOD = ("grpc_type", "grpc_service", "grpc_method")

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

STARTED = Counter("grpc_server_started_total", "Calls that came.", _METHOD, registry=REGISTRY)
HANDLED = Counter("grpc_server_handled_total", "Calls that ended.", (*_METHOD, "grpc_code"), registry=REGISTRY)
HANDLING = Histogram(
    "grpc_server_handling_seconds",
    "Time from a call's first message to its end; a stream's includes its pauses.",
    _METHOD,
    buckets=_SECONDS,
    registry=REGISTRY,
)
STAGES = Histogram(
    "maskwire_stage_seconds", "Time in one stage of the work.", ("stage",), buckets=_SECONDS, registry=REGISTRY
)
BATCH_SIZE = Histogram(
    "maskwire_batch_size", "Images in a batch of the model.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=REGISTRY
)
IMAGES = Counter(
    "maskwire_images_total",
    "Images that were asked for. Encoder: encoded here, or cached (stored already, or made for somebody else at the "
    "same time). Decoder: found in memory, or read from the store.",
    ("found",),
    registry=REGISTRY,
)
STREAM_ANSWERS = Counter(
    "maskwire_stream_answers_total",
    "Answers on SegmentStream; superseded are prompts that a newer one replaced.",
    ("outcome",),
    registry=REGISTRY,
)
ERRORS = Counter(
    "maskwire_errors_total", "Errors that callers were told, on streams too.", ("reason",), registry=REGISTRY
)
STORE_BYTES = Counter("maskwire_store_bytes_total", "Bytes of embeddings.", ("direction",), registry=REGISTRY)
STORE_DAMAGED = Counter("maskwire_store_damaged_total", "Damaged values found in the store.", registry=REGISTRY)


@dataclass(frozen=True)
class Reading:
    """A value that is looked up when Prometheus asks.

    Attributes:
        name: Of the metric; one that ends in "_total" never falls.
        help: What it is.
        value: Looks it up.
        labels: Of this value.
    """

    name: str
    help: str
    value: Callable[[], float]
    labels: tuple[tuple[str, str], ...] = ()


class Readings(Collector):
    """Gives the readings of a server. What fails is left out, and the rest is given."""

    def __init__(self, readings: Sequence[Reading], loop: asyncio.AbstractEventLoop) -> None:
        self._readings = readings
        self._loop = loop

    def collect(self) -> Iterable[Metric]:
        """On the event loop, to which what is read belongs."""
        return asyncio.run_coroutine_threadsafe(self._read(), self._loop).result(_PATIENCE_S)

    async def _read(self) -> list[Metric]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for reading in self._readings:
            kind = CounterMetricFamily if reading.name.endswith("_total") else GaugeMetricFamily
            family = families.get(reading.name) or kind(
                reading.name, reading.help, labels=[name for name, _ in reading.labels]
            )
            try:
                family.add_metric([value for _, value in reading.labels], reading.value())
            except Exception as error:
                log.warning("no %s: %s", reading.name, error)
            else:
                families[reading.name] = family
        return list(families.values())


def offer(host: str, port: int) -> Callable[[], None]:
    """Serves the metrics at /metrics. Returns what ends that."""
    try:
        server, _ = start_http_server(port, host, REGISTRY)
    except OSError as error:
        raise SystemExit(
            f"error: cannot listen on {host}:{port}; is it in use? Choose another --metrics-port"
        ) from error
    log.info("metrics on http://%s:%d/metrics", host, server.server_port)

    def end() -> None:
        server.shutdown()
        server.server_close()

    return end
