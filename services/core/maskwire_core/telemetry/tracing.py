"""OpenTelemetry spans, where the setting `trace_to` asks for them. Otherwise nothing of it is imported, and a span
costs a comparison."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

log = logging.getLogger(__name__)

_tracer: Any = None


def configure_tracing(service: str, address: str | None) -> None:
    """Sends spans of this process to an address, from now on.

    Args:
        service: As traces name this server: "encoder", "decoder" or "gateway".
        address: Of a collector that takes OTLP over HTTP, such as http://localhost:4318; None: no tracing.
    """
    global _tracer
    if address is None:
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        sys.exit(f"error: --trace-to needs OpenTelemetry ({error}); pip install 'maskwire-server[observe]'")
    provider = TracerProvider(resource=Resource.create({"service.name": f"maskwire-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{address.rstrip('/')}/v1/traces")))
    trace.set_tracer_provider(provider)  # so that the client in a gateway finds it
    _tracer = trace.get_tracer("maskwire")
    log.info("traces go to %s", address)


@contextlib.contextmanager
def span(name: str) -> Iterator[None]:
    """What its body does is a span in the current one. Without tracing, nothing."""
    if _tracer is None:
        yield
        return
    with _tracer.start_as_current_span(name):
        yield


@contextlib.contextmanager
def serving(name: str, carrier: Mapping[str, str | bytes]) -> Iterator[None]:
    """What its body does is a call that this server answers, in the trace that the caller began.

    Args:
        name: Of the method or route.
        carrier: Headers or metadata, with the caller's `traceparent` (W3C Trace Context) if it traces.
    """
    if _tracer is None:
        yield
        return
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind

    with _tracer.start_as_current_span(name, extract(carrier), SpanKind.SERVER):
        yield


def here() -> Any:
    """The current span, for `ended`, which may run elsewhere. None without tracing."""
    if _tracer is None:
        return None
    from opentelemetry.context import get_current

    return get_current()


def ended(stages: list[tuple[str, float]], within: Any = None, name: str = "", total_s: float = 0) -> None:
    """Spans of stages that ran one after another, and ended now.

    Args:
        stages: Their names and seconds.
        within: Where they belong, as `here` gave it; by default the current span.
        name: Of a span around them, if there is to be one.
        total_s: Its length.
    """
    if _tracer is None:
        return
    from opentelemetry.trace import set_span_in_context

    end = time.time_ns()
    whole = None
    if name:
        whole = _tracer.start_span(name, within, start_time=end - int(total_s * 1e9))
        within = set_span_in_context(whole)
    start = end - sum(int(seconds * 1e9) for _, seconds in stages)
    for stage, seconds in stages:
        part = _tracer.start_span(stage, within, start_time=start)
        start += int(seconds * 1e9)
        part.end(start)
    if whole is not None:
        whole.end(end)


def trace_id() -> str | None:
    """Of the current span, in hexadecimal."""
    if _tracer is None:
        return None
    from opentelemetry.trace import format_trace_id, get_current_span

    found = get_current_span().get_span_context().trace_id
    return format_trace_id(found) if found else None


def flush() -> None:
    """Sends what has not been sent; for the end of a process."""
    if _tracer is not None:
        from opentelemetry import trace

        trace.get_tracer_provider().shutdown()  # type: ignore[attr-defined]
