"""What the gateway counts, as Prometheus reads it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Telemetry:
    """Counters of one gateway.

    Attributes:
        requests: HTTP requests in progress.
        sockets: Open WebSockets.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._seconds = Histogram(
            "maskwire_gateway_request_seconds",
            "Time until a request was answered; of event streams, until their end.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.requests = Gauge(
            "maskwire_gateway_requests_in_progress", "HTTP requests in progress.", registry=self._registry
        )
        self.sockets = Gauge("maskwire_gateway_websockets", "Open WebSockets.", registry=self._registry)
        self._images = Counter(
            "maskwire_gateway_images_total",
            "Images that callers sent; cached where no encode was needed.",
            ("cached",),
            registry=self._registry,
        )
        self._frames = Counter(
            "maskwire_gateway_stream_requests_total", "Requests on WebSockets.", registry=self._registry
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is its pattern, not its path, so that names of images do not pile up."""
        self._seconds.labels(method, route, status).observe(seconds)

    def embedded(self, cached: bool) -> None:
        """An image was sent, and is stored now."""
        self._images.labels(str(cached).lower()).inc()

    def asked(self) -> None:
        """A request came over a WebSocket."""
        self._frames.inc()

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self._registry)
