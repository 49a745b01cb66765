"""Joins the application's traces where it uses OpenTelemetry; otherwise nothing is imported and nothing is sent."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


def _api() -> Any:
    """opentelemetry.trace, if the application has loaded it."""
    return sys.modules.get("opentelemetry.trace")


@contextlib.contextmanager
def span(name: str) -> Iterator[None]:
    """What its body does is a span of a call."""
    trace = _api()
    if trace is None:
        yield
        return
    with trace.get_tracer("maskwire").start_as_current_span(name, kind=trace.SpanKind.CLIENT):
        yield


def context() -> tuple[tuple[str, str], ...]:
    """The current span as metadata (W3C Trace Context), for servers to join; empty if there is none."""
    if _api() is None:
        return ()
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    return tuple(carrier.items())
