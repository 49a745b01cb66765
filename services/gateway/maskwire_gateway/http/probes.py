"""Probes of orchestrators, and metrics for Prometheus."""

from maskwire.transport import Servers
from maskwire_core.http.problems import RETRY_S, Problem
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from maskwire_gateway.http.routing import Operation
from maskwire_gateway.metrics import Telemetry

_TEXT = {"text/plain": {"type": "string"}}


class Probes:
    """Handlers of the routes.

    Args:
        servers: Encoders and decoders.
        telemetry: What /metrics shows.
    """

    def __init__(self, servers: Servers, telemetry: Telemetry) -> None:
        self._servers = servers
        self._telemetry = telemetry

    @Operation("GET", "/healthz", answer=_TEXT, errors=())
    async def healthz(self, request: Request) -> Response:
        """Whether the process lives."""
        return PlainTextResponse("ok\n")

    @Operation("GET", "/readyz", answer=_TEXT, errors=(503,))
    async def readyz(self, request: Request) -> Response:
        """Whether encoder and decoder answer."""
        unavailable = await self._servers.find_unavailable()
        if unavailable:
            raise Problem(503, f"no {' and no '.join(unavailable)} answers", "NOT_READY", retry_after_s=RETRY_S)
        return PlainTextResponse("ok\n")

    @Operation("GET", "/metrics", answer=_TEXT, errors=())
    async def metrics(self, request: Request) -> Response:
        """Counters for Prometheus."""
        return Response(self._telemetry.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
