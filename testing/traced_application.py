"""An application that uses the client and traces itself.

    python -m testing.traced_application COLLECTOR ENCODER DECODER IMAGE

A process cannot stop tracing once it has begun, so that tests run this one.
"""

import sys
from pathlib import Path

import maskwire
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor


def start_tracing(collector: str) -> trace.Tracer:
    """Sets up OpenTelemetry for this process, which then sends its spans to a collector's URL. Returns the tracer."""
    provider = TracerProvider(resource=Resource.create({"service.name": "application"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{collector}/v1/traces")))
    trace.set_tracer_provider(provider)
    return trace.get_tracer("application")


def click_twice(tracer: trace.Tracer, encoder: str, decoder: str, image: Path) -> None:
    """Clicks on an image that the servers do not know, and clicks again: spans "cold click" and "warm click"."""
    with maskwire.Client(encoder, decoder) as client:
        for name in ("cold click", "warm click"):
            with tracer.start_as_current_span(name):
                client.segment(image, points=[(50, 50)])


if __name__ == "__main__":
    collector, encoder, decoder, image = sys.argv[1:]
    click_twice(start_tracing(collector), encoder, decoder, Path(image))
