"""Middleware of all requests: their ids, origins and limits, metrics and the log."""

import contextlib
import logging
import time

from maskwire_core import call_context
from maskwire_core.config import GatewaySettings
from maskwire_core.http.problems import Problem, busy
from maskwire_core.http.visitors import Visitors
from maskwire_core.telemetry import tracing
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from maskwire_gateway.http.error_responses import error_response
from maskwire_gateway.metrics import Telemetry

log = logging.getLogger(__name__)

BEARER = "maskwire.bearer."
"""Prefix of the subprotocol that holds a browser's token: browsers cannot set headers of a WebSocket."""

SOCKET_PATH = "/v1/stream"

_PROBES = ("/healthz", "/readyz", "/metrics")  # neither refused nor counted as load


class GatewayMiddleware:
    """Names, limits, counts and logs requests, and refuses those of foreign web pages.

    Args:
        app: The application.
        settings: Origins and limits.
        telemetry: Metrics of the requests.
    """

    def __init__(self, app: ASGIApp, settings: GatewaySettings, telemetry: Telemetry) -> None:
        self._app = app
        self._settings = settings
        self._telemetry = telemetry
        self._visitors = Visitors(settings.hosts, settings.origins, settings.host, "gateway")
        self._requests = self._sockets = 0
        telemetry.requests.set_function(lambda: self._requests)
        telemetry.sockets.set_function(lambda: self._sockets)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)
            case _:
                await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        request_id = call_context.begin(headers.get("x-request-id", "")).request_id
        status, started = 500, time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        guarded = scope["path"] not in _PROBES
        self._requests += guarded
        try:
            problem = self._visitors.refusal(headers, any_host=scope["path"] in _PROBES)
            if guarded and self._requests > self._settings.max_requests:
                problem = problem or busy("too many requests at once; try again", "TOO_MANY_REQUESTS")
            app = error_response(problem, scope["path"]) if problem is not None else self._app
            with tracing.serving(f"HTTP {scope['method']}", headers) if guarded else contextlib.nullcontext():
                await app(scope, receive, answer)
        finally:
            self._requests -= guarded
            took_s, route = time.perf_counter() - started, getattr(scope.get("route"), "path", "other")
            self._telemetry.seconds.labels(scope["method"] if route != "other" else "any", route, status).observe(
                took_s
            )
            log.log(
                logging.WARNING if status >= 500 and status != 503 else logging.DEBUG,
                "%s %s %s %d %.0f ms",
                request_id,
                scope["method"],
                scope["path"],
                status,
                took_s * 1e3,
            )

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        problem = self._visitors.refusal(headers)
        if self._sockets >= self._settings.max_sockets:
            problem = problem or busy("too many WebSockets at once; try again", "TOO_MANY_SOCKETS")
        if scope["path"] != SOCKET_PATH:
            problem = problem or Problem(404, f"the WebSocket is at {SOCKET_PATH}", "NO_ROUTE")
        if scope["query_string"]:
            said = f"{SOCKET_PATH} takes no parameters; a token is sent as Authorization or as a subprotocol"
            problem = problem or Problem(400, said, "BAD_PARAMETER")
        if problem is not None:
            await WebSocket(scope, receive, send).send_denial_response(error_response(problem, scope["path"]))
            return
        self._sockets += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._sockets -= 1


def bearer(connection: HTTPConnection) -> str:
    """The caller's token, from the Authorization header or the subprotocols that a WebSocket offers; empty if none."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    offered = connection.scope.get("subprotocols", ())
    return next((name.removeprefix(BEARER) for name in offered if name.startswith(BEARER)), "")
