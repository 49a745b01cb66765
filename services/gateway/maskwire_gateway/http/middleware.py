"""Middleware of all requests: their ids, who may come in, limits, metrics and the log."""

import contextlib
import logging
import time

from maskwire import MaskwireError
from maskwire_core import call_context
from maskwire_core.config import GatewaySettings
from maskwire_core.http.memory import Held, set_holder
from maskwire_core.http.problems import Problem, busy
from maskwire_core.http.visitors import Visitors
from maskwire_core.runtime.process_memory import forget_frames
from maskwire_core.scheduling.shares import Shares
from maskwire_core.telemetry import tracing
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from maskwire_gateway.http.departures import until_caller_leaves
from maskwire_gateway.http.doorkeeper import NOBODY, Doorkeeper
from maskwire_gateway.http.error_responses import error_response
from maskwire_gateway.metrics import Telemetry

log = logging.getLogger(__name__)

STREAM_PATH, TRACK_PATH = SOCKET_PATHS = ("/v1/stream", "/v1/track")
"""Where the WebSockets are: of sessions, and of tracks."""

_PROBES = ("/healthz", "/readyz", "/readiness", "/metrics")  # neither refused nor counted as load
_ANY_HOST = ("/healthz", "/readyz", "/readiness")
_PIECE_BYTES = 1 << 16


class GatewayMiddleware:
    """Names, limits, counts and logs requests, and refuses those of foreign web pages and of bad tokens.

    Args:
        app: The application.
        settings: Names, origins and limits.
        telemetry: Metrics of the requests.
        doorkeeper: Says whose request it is.
        memory: Memory of all requests, in bytes.
    """

    def __init__(
        self, app: ASGIApp, settings: GatewaySettings, telemetry: Telemetry, doorkeeper: Doorkeeper, memory: Shares
    ) -> None:
        self._app = app
        self._telemetry = telemetry
        self._doorkeeper = doorkeeper
        self._memory = memory
        self._visitors = Visitors(settings.hosts, settings.origins, settings.host, "gateway")
        self._slots, self._sockets = Shares(settings.max_requests, {NOBODY}), Shares(settings.max_sockets)
        self._requests = 0
        telemetry.requests.set_function(lambda: self._requests)
        telemetry.sockets.set_function(lambda: self._sockets.held)

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
            problem = self._visitors.refusal(headers, any_host=scope["path"] in _ANY_HOST)
            if problem is not None:
                await error_response(problem, scope["path"])(scope, receive, answer)
            elif guarded:
                with tracing.serving(f"HTTP {scope['method']}", headers):
                    await self._serve(scope, headers, receive, answer)
            else:
                await self._app(scope, receive, answer)
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

    async def _serve(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Serves a request on its caller's account. It takes a slot when all of it is there: a body that is on its way
        takes memory alone."""
        try:
            holder = await self._doorkeeper.holder(scope)
            slots = self._slot(holder)
            held = Held(self._memory, holder)
            has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
            if not has_body or scope["method"] != "POST":
                slots.take()
        except (Problem, MaskwireError) as error:
            await error_response(error, scope["path"])(scope, receive, send)
            return

        async def take_when_complete() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                slots.take()
            return message

        set_holder(scope, holder, held)
        try:
            async with until_caller_leaves(take_when_complete, send, has_body) as (receive_next, answer):
                await self._app(scope, receive_next, _InPieces(answer, held))
        except Problem as error:
            forget_frames(error)
            await error_response(error, scope["path"])(scope, receive, send)
        finally:
            held.release()
            slots.give()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        slot = None
        try:
            problem = self._visitors.refusal(Headers(scope=scope))
            if problem is not None:
                raise problem
            if scope["path"] not in SOCKET_PATHS:
                raise Problem(404, f"the WebSockets are at {' and '.join(SOCKET_PATHS)}", "NO_ROUTE")
            if scope["query_string"]:
                said = f"{scope['path']} takes no parameters; a token is sent as Authorization or as a subprotocol"
                raise Problem(400, said, "BAD_PARAMETER")
            holder = await self._doorkeeper.holder(scope)
            slot = _Slot(self._sockets, holder, "too many WebSockets at once; try again", "TOO_MANY_SOCKETS")
            slot.take()
        except (Problem, MaskwireError) as error:
            await WebSocket(scope, receive, send).send_denial_response(error_response(error, scope["path"]))
            return
        set_holder(scope, holder)
        try:
            await self._app(scope, receive, send)
        finally:
            slot.give()

    def _slot(self, holder: str) -> "_Slot":
        return _Slot(self._slots, holder, "too many requests at once; try again", "TOO_MANY_REQUESTS")


class _Slot:
    """One of the requests or sockets that may be open at the same time."""

    def __init__(self, slots: Shares, holder: str, message: str, reason: str) -> None:
        self._slots = slots
        self._holder = holder
        self._problem = message, reason
        self._is_taken = False

    def take(self) -> None:
        """Takes it, unless it is taken.

        Raises:
            Problem: The caller has its share, or there is none left.
        """
        if not self._is_taken and not self._slots.take(self._holder, 1):
            raise busy(*self._problem)
        self._is_taken = True

    def give(self) -> None:
        """Gives it back, if it was taken."""
        if self._is_taken:
            self._slots.add(self._holder, -1)
        self._is_taken = False


class _InPieces:
    """Sends an answer in pieces, each when the caller has read the ones before, so that what a caller does not read
    stays with its request, and counts as its memory."""

    def __init__(self, send: Send, held: Held) -> None:
        self._send = send
        self._held = held

    async def __call__(self, message: Message) -> None:
        body = message.get("body", b"")
        if message["type"] != "http.response.body" or len(body) <= _PIECE_BYTES:
            await self._send(message)
            return
        with contextlib.suppress(Problem):  # the answer has begun: what was counted before must do
            self._held.hold(len(body))
        for start in range(0, len(body), _PIECE_BYTES):
            is_last = start + _PIECE_BYTES >= len(body)
            more = message.get("more_body", False) or not is_last
            await self._send({**message, "body": body[start : start + _PIECE_BYTES], "more_body": more})
