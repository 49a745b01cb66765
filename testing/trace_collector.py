"""A collector of OpenTelemetry traces for servers to send their spans to."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from testing.web_server import answering


@dataclass
class Span:
    """A span with its children, in the order in which they began.

    Attributes:
        name: What was done.
        service: The service that did it.
        trace: Id of the trace.
        id: Id of the span.
        parent: Id of the span that this is a child of; empty for the outermost.
        start_ms: When it began, in milliseconds since 1970.
        took_ms: Its length in milliseconds.
        children: The spans whose parent this is.
    """

    name: str
    service: str
    trace: bytes
    id: bytes
    parent: bytes
    start_ms: float
    took_ms: float
    children: list["Span"] = field(default_factory=list)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, "Span"]]:
        """Yields this span and all below it, each with its depth."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)


class Collector:
    """Receives OTLP over HTTP on a free port of 127.0.0.1.

    Attributes:
        address: The URL for a server's option `--trace-to`.
    """

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._lock = threading.Lock()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector._take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._answers = ExitStack()
        self._answers.enter_context(answering(self._server))

    def close(self) -> None:
        self._answers.close()
        self._server.server_close()

    def trees(self) -> list[Span]:
        """Returns the outermost span of each trace received so far, the oldest first."""
        with self._lock:
            spans = sorted(self._spans, key=lambda span: span.start_ms)
        known = {span.id: span for span in spans}
        for span in spans:
            span.children = [other for other in spans if other.parent == span.id]
        return [span for span in spans if span.parent not in known]

    def _take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            names = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    made = Span(
                        span.name,
                        names.get("service.name", ""),
                        span.trace_id,
                        span.span_id,
                        span.parent_span_id,
                        span.start_time_unix_nano / 1e6,
                        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
                    )
                    with self._lock:
                        self._spans.append(made)
