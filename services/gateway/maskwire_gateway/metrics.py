"""The gateway's metrics, as Prometheus reads them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Telemetry:
    """Metrics of one gateway.

    Attributes:
        registry: All of them.
        seconds: Time until a request was answered. `route` is the pattern of its path, so that names of images do not
            become labels.
        requests: Number of HTTP requests in progress.
        sockets: Number of open WebSockets.
        images: Images that callers sent, by whether they were stored already.
        frames: Requests on WebSockets.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.seconds = Histogram(
            "maskwire_gateway_request_seconds",
            "Time until a request was answered; of event streams, until their end.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.requests = Gauge(
            "maskwire_gateway_requests_in_progress", "HTTP requests in progress.", registry=self.registry
        )
        self.sockets = Gauge("maskwire_gateway_websockets", "Open WebSockets.", registry=self.registry)
        self.images = Counter(
            "maskwire_gateway_images_total",
            "Images that callers sent; cached where no encode was needed.",
            ("cached",),
            registry=self.registry,
        )
        self.frames = Counter(
            "maskwire_gateway_stream_requests_total", "Requests on WebSockets.", registry=self.registry
        )

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
