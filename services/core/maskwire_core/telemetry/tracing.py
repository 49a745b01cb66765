"""OpenTelemetry spans, if the setting `trace_to` asks for them. Otherwise OpenTelemetry is not imported, and a span
costs a comparison."""

import logging
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

_tracer: Any = None


def configure_tracing(service: str, address: str | None) -> None:
    """Sends this process's spans to a collector from now on. Exits if OpenTelemetry is not installed.

    Args:
        service: Name of this server in traces: "encoder", "decoder" or "gateway".
        address: URL of a collector that accepts OTLP over HTTP, such as http://localhost:4318; None for no tracing.
    """
    global _tracer
    if address is None:
        return
    from maskwire.addresses import is_loopback

    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from requests import Session
    except ImportError as error:
        sys.exit(f"error: --trace-to needs OpenTelemetry ({error}); pip install 'maskwire-server[observe]'")
    provider = TracerProvider(resource=Resource.create({"service.name": f"maskwire-{service}"}))
    session = Session()
    session.trust_env = not is_loopback(urlsplit(address).hostname or "")  # no proxy leads to this machine
    exporter = OTLPSpanExporter(f"{address.rstrip('/')}/v1/traces", session=session)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)  # so that the client in a gateway finds it
    _tracer = trace.get_tracer("maskwire")
    log.info("traces go to %s", address)


def span(name: str) -> AbstractContextManager[Any]:
    """Makes the body a span within the current one."""
    if _tracer is None:
        return nullcontext()
    return cast(AbstractContextManager[Any], _tracer.start_as_current_span(name))


def serving(name: str, carrier: Mapping[str, str | bytes]) -> AbstractContextManager[Any]:
    """Makes the body the span of a call that this server answers, within the caller's trace.

    Args:
        name: Name of the method or route.
        carrier: Headers or metadata, with the caller's `traceparent` (W3C Trace Context) if the caller is traced.
    """
    if _tracer is None:
        return nullcontext()
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind

    return cast(AbstractContextManager[Any], _tracer.start_as_current_span(name, extract(carrier), SpanKind.SERVER))


def here() -> Any:
    """The current trace context, for `ended` in another task; None without tracing."""
    if _tracer is None:
        return None
    from opentelemetry.context import get_current

    return get_current()


def ended(stages: list[tuple[str, float]], within: Any = None, name: str = "", total_s: float = 0) -> None:
    """Records spans of stages that ran one after another and have just ended.

    Args:
        stages: Names of the stages and their lengths in seconds.
        within: Trace context that they belong to, as `here` returned it; by default the current one.
        name: Name of a span around them; empty for no such span.
        total_s: Length of that span in seconds.
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
    """ID of the current trace, in hexadecimal; None without tracing or outside of any trace."""
    if _tracer is None:
        return None
    from opentelemetry.trace import format_trace_id, get_current_span

    found = get_current_span().get_span_context().trace_id
    return format_trace_id(found) if found else None


def flush() -> None:
    """Sends the spans that have not been sent yet; to be called at the end of a process."""
    if _tracer is not None:
        from opentelemetry import trace

        trace.get_tracer_provider().shutdown()  # type: ignore[attr-defined]
