"""Prometheus metrics of encoders, decoders and trackers.

`grpc_server_*` and their labels are named as by the gRPC ecosystem's Prometheus interceptors, so that existing
dashboards and rules fit.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from maskwire_core.telemetry.exposition import exposed

log = logging.getLogger(__name__)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PATIENCE_S = 5
_METHOD = ("grpc_type", "grpc_service", "grpc_method")

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

STARTED = Counter("grpc_server_started_total", "Calls that began.", _METHOD, registry=REGISTRY)
HANDLED = Counter("grpc_server_handled_total", "Calls that ended.", (*_METHOD, "grpc_code"), registry=REGISTRY)
HANDLING = Histogram(
    "grpc_server_handling_seconds",
    "Time from a call's first message to its end; a stream's includes its pauses.",
    _METHOD,
    buckets=_SECONDS,
    registry=REGISTRY,
)
STAGES = Histogram(
    "maskwire_stage_seconds", "Time spent in one stage of the work.", ("stage",), buckets=_SECONDS, registry=REGISTRY
)
BATCH_SIZE = Histogram(
    "maskwire_batch_size", "Images in a batch of the model.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=REGISTRY
)
IMAGES = Counter(
    "maskwire_images_total",
    "Images that were requested. Encoder: encoded here, or cached (stored already, or encoded for somebody else at the "
    "same time). Decoder: found in memory, or read from the store.",
    ("found",),
    registry=REGISTRY,
)
STREAM_ANSWERS = Counter(
    "maskwire_stream_answers_total",
    "Answers on SegmentStream and Track, by outcome; superseded, skipped: a newer request or frame replaced this one.",
    ("outcome",),
    registry=REGISTRY,
)
ERRORS = Counter(
    "maskwire_errors_total", "Errors returned to callers, including those on streams.", ("reason",), registry=REGISTRY
)
TRACKS = Counter(
    "maskwire_tracks_opened_total",
    "Tracks that streams opened at a tracker: new, or taken over, from the store, where another stream had it before.",
    ("how",),
    registry=REGISTRY,
)
FRAMES = Counter("maskwire_frames_followed_total", "Frames on which a tracker found objects.", registry=REGISTRY)
STORE_BYTES = Counter("maskwire_store_bytes_total", "Bytes of embeddings.", ("direction",), registry=REGISTRY)
COLD_TIER = Counter(
    "maskwire_cold_tier_total",
    "Reads of the files behind the store (found, missing, failed, refused: they failed lately), and files that were "
    "moved there or could not be (moved, move failed).",
    ("outcome",),
    registry=REGISTRY,
)
STORE_DAMAGED = Counter("maskwire_store_damaged_total", "Damaged values found in the store.", registry=REGISTRY)


@dataclass(frozen=True)
class LiveMetric:
    """A metric whose value is looked up when Prometheus asks for it."""

    name: str  # name of the metric: a counter if it ends in "_total", otherwise a gauge
    help: str  # description
    value: Callable[[], float]  # looks up the current value; called on the event loop
    labels: tuple[tuple[str, str], ...] = ()  # names and values of its labels


class LiveMetrics(Collector):
    """Collects a server's live metrics; one that fails is left out.

    Args:
        metrics: The metrics.
        loop: Event loop on which values are looked up.
    """

    def __init__(self, metrics: Sequence[LiveMetric], loop: asyncio.AbstractEventLoop) -> None:
        self._metrics = metrics
        self._loop = loop

    def collect(self) -> Iterable[Metric]:
        """Looks up all values; called by prometheus_client, on a thread of its own."""
        return asyncio.run_coroutine_threadsafe(self._read(), self._loop).result(_PATIENCE_S)

    async def _read(self) -> list[Metric]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for metric in self._metrics:
            kind = CounterMetricFamily if metric.name.endswith("_total") else GaugeMetricFamily
            family = families.get(metric.name) or kind(
                metric.name, metric.help, labels=[name for name, _ in metric.labels]
            )
            try:
                family.add_metric([value for _, value in metric.labels], metric.value())
            except Exception as error:
                log.warning("no %s: %s", metric.name, error)
            else:
                families[metric.name] = family
        return list(families.values())


@contextlib.contextmanager
def metrics_server(host: str, port: int, live_metrics: Sequence[LiveMetric]) -> Iterator[None]:
    """Serves all metrics at /metrics while the body runs; `live_metrics` are looked up on the running event loop.
    Exits if the port is in use."""
    REGISTRY.register(LiveMetrics(live_metrics, asyncio.get_running_loop()))
    with exposed(host, port, REGISTRY):
        yield
