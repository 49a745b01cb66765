"""The gateway's metrics, as Prometheus reads them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Telemetry:
    """Metrics of one gateway.

    Attributes:
        requests: Number of HTTP requests in progress.
        sockets: Number of open WebSockets.
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
        """Records an HTTP request. `route` is the pattern of its path, so that names of images do not become labels."""
        self._seconds.labels(method, route, status).observe(seconds)

    def embedded(self, cached: bool) -> None:
        """Counts an image that a caller sent; `cached` if it was stored already."""
        self._images.labels(str(cached).lower()).inc()

    def asked(self) -> None:
        """Counts a request on a WebSocket."""
        self._frames.inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
