"""Spans of calls, where the application uses OpenTelemetry; otherwise nothing is imported and nothing is sent."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def _api() -> Any:
    """Returns opentelemetry.trace if the application has loaded it, else None."""
    return sys.modules.get("opentelemetry.trace")


def span(name: str) -> AbstractContextManager[Any]:
    """Makes the body of `with` a span of that name."""
    trace = _api()
    if trace is None:
        return nullcontext()
    opened: AbstractContextManager[Any]
    opened = trace.get_tracer("maskwire").start_as_current_span(name, kind=trace.SpanKind.CLIENT)
    return opened


def context() -> tuple[tuple[str, str], ...]:
    """Returns the current span as metadata (W3C Trace Context), for servers to join; empty if there is none."""
    if _api() is None:
        return ()
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    return tuple(carrier.items())
