"""Spans of calls, where the application uses OpenTelemetry; otherwise nothing is imported and nothing is sent."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


def _api() -> Any:
    """Returns opentelemetry.trace if the application has loaded it, else None."""
    return sys.modules.get("opentelemetry.trace")


@contextlib.contextmanager
def span(name: str) -> Iterator[None]:
    """Makes the body of `with` a span of that name."""
    trace = _api()
    if trace is None:
        yield
        return
    with trace.get_tracer("maskwire").start_as_current_span(name, kind=trace.SpanKind.CLIENT):
        yield


def context() -> tuple[tuple[str, str], ...]:
    """Returns the current span as metadata (W3C Trace Context), for servers to join; empty if there is none."""
    if _api() is None:
        return ()
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    return tuple(carrier.items())
