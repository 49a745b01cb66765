"""Probes of orchestrators, and metrics for Prometheus."""

import asyncio
import ipaddress
import time
from collections.abc import Sequence
from typing import Literal

from maskwire.transport import Servers
from maskwire_core.http.problems import RETRY_S, Problem
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from maskwire_gateway.http.routing import JSON, Operation
from maskwire_gateway.metrics import Telemetry

_FRESH_S = 1.0

_TEXT = {"text/plain": {"type": "string"}}


class Status(TypedDict):
    """How a server is: in the words of Roboflow's, which its clients and their orchestrators read."""

    status: Literal["healthy", "ready", "not ready"]


class Probes:
    """Handlers of the routes.

    Args:
        servers: Encoders and decoders.
        telemetry: What /metrics shows.
        shows_metrics: Whether /metrics is here, and not at a port of its own.
    """

    def __init__(self, servers: Servers, telemetry: Telemetry, shows_metrics: bool) -> None:
        self._servers = servers
        self._telemetry = telemetry
        self._shows_metrics = shows_metrics
        self._asking: asyncio.Task[Sequence[str]] | None = None  # what was asked last, or is being asked
        self._asked_at = 0.0

    @Operation("GET", "/healthz", answer={JSON: Status}, errors=())
    async def healthz(self, request: Request) -> Response:
        """Whether the process lives."""
        content: Status = {"status": "healthy"}
        return JSONResponse(content)

    @Operation("GET", "/readyz", answer=_TEXT, errors=(503,))
    async def readyz(self, request: Request) -> Response:
        """Whether encoder and decoder answer, or did a second ago: anybody may ask, as often as they like."""
        if self._asking is None or (self._asking.done() and time.monotonic() - self._asked_at > _FRESH_S):
            self._asked_at = time.monotonic()
            self._asking = asyncio.create_task(self._servers.find_unavailable())
        unavailable = await asyncio.shield(self._asking)
        if unavailable:
            raise Problem(503, f"no {' and no '.join(unavailable)} answers", "NOT_READY", retry_after_s=RETRY_S)
        return PlainTextResponse("ok\n")

    @Operation("GET", "/readiness", answer={JSON: Status}, errors=(503,))
    async def readiness(self, request: Request) -> Response:
        """Whether encoder and decoder answer, as Roboflow's server says it."""
        is_ready = not await self._servers.find_unavailable()
        content: Status = {"status": "ready" if is_ready else "not ready"}
        return JSONResponse(content, 200 if is_ready else 503, None if is_ready else {"Retry-After": f"{RETRY_S:.0f}"})

    @Operation("GET", "/metrics", answer=_TEXT, errors=(404,))
    async def metrics(self, request: Request) -> Response:
        """Counters for Prometheus; for callers on the gateway's own machine, unless the metrics have a port of their
        own."""
        if not self._shows_metrics or not _is_local(request):
            raise Problem(404, "metrics are at the gateway's --metrics-port", "NO_ROUTE")
        return Response(self._telemetry.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _is_local(request: Request) -> bool:
    """Whether a request comes from this machine and through no proxy."""
    if request.client is None or "x-forwarded-for" in request.headers or "forwarded" in request.headers:
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
