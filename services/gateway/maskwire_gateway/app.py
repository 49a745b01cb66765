"""The gateway as an ASGI application."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from maskwire import MaskwireError, __version__
from maskwire_core.config import GatewaySettings
from maskwire_core.http.bodies import Bodies
from maskwire_core.http.memory import Held, holder_of, release_failed
from maskwire_core.http.problems import Problem
from maskwire_core.runtime.process_memory import forget_frames, returning
from maskwire_core.scheduling.shares import Shares
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from maskwire_gateway.http.assets import ISOLATION, Assets
from maskwire_gateway.http.doorkeeper import Doorkeeper, bearer
from maskwire_gateway.http.error_responses import error_response
from maskwire_gateway.http.fetching import Fetcher
from maskwire_gateway.http.middleware import STREAM_PATH, TRACK_PATH, GatewayMiddleware
from maskwire_gateway.http.probes import Probes
from maskwire_gateway.http.routing import Operation, no_such_path, resources
from maskwire_gateway.metrics import Telemetry
from maskwire_gateway.rest import api_page
from maskwire_gateway.rest.downloads import Downloads
from maskwire_gateway.rest.openapi import describe
from maskwire_gateway.rest.rest_v1 import RestV1
from maskwire_gateway.rest.videos import Videos
from maskwire_gateway.roboflow.routes import Roboflow
from maskwire_gateway.roboflow.server_state import ServerState
from maskwire_gateway.upstream import Upstream
from maskwire_gateway.websocket.frames import PROTOCOL
from maskwire_gateway.websocket.stream import Relay
from maskwire_gateway.websocket.track import TrackRelay

_RETURN_S = 1.0  # how often unused memory is given back to the system
_EXPOSED_HEADERS = ("X-Request-ID", "X-Processing-Time", "X-Maskwire-Model", "Retry-After", "ETag", "Content-Range")


def application(settings: GatewaySettings, page: Path | None, telemetry: Telemetry, memory: Shares) -> ASGIApp:
    """Makes the gateway.

    Args:
        settings: The gateway's settings.
        page: Folder with the page's index.html and assets; None without a page.
        telemetry: The gateway's metrics.
        memory: Memory of all requests, in bytes.
    """
    bodies = Bodies(memory, settings.body_timeout_s)
    upstream = Upstream(settings, telemetry)
    fetcher = Fetcher(settings.url_hosts, settings.url_timeout_s) if settings.urls else None

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with returning(lambda: memory.given_back, _RETURN_S):
            yield
        await upstream.servers.close()

    def relayed(relay: type[Relay | TrackRelay]) -> Callable[[WebSocket], Awaitable[None]]:
        async def serve(socket: WebSocket) -> None:
            await socket.accept(PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
            caller = upstream.caller(bearer(socket))
            await relay(upstream.servers, caller, telemetry, socket, Held(memory, holder_of(socket.scope))).run()

        return serve

    described = [
        *resources(RestV1(upstream, bodies, settings.max_image_bytes), "Images"),
        *resources(Downloads(upstream), "Decoding elsewhere"),
        *resources(Videos(upstream, bodies), "Videos"),
        *resources(Roboflow(settings, upstream, bodies, fetcher), "For clients of Roboflow"),
        *resources(ServerState(settings, upstream, bodies), "For clients of Roboflow"),
        *resources(Probes(upstream.servers, telemetry, settings.metrics_port is None), "Server"),
    ]
    routes: list[BaseRoute] = [
        WebSocketRoute(STREAM_PATH, relayed(Relay)),
        WebSocketRoute(TRACK_PATH, relayed(TrackRelay)),
        *described,
        *resources(api_page.ApiPage(describe(__version__, described))),
        *api_page.mounts(),
        *resources(_Page(page)),
    ]
    if page is not None:
        routes.append(Mount("/assets", Assets(directory=page)))

    async def answer_error(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):  # Starlette's own
            if error.status_code == 404:
                error = no_such_path(request.method, request.url.path, routes)
            else:
                error = Problem(error.status_code, error.detail, "NO_ROUTE", more_headers=error.headers or {})
        response = error_response(error, request.url.path)
        forget_frames(error)
        release_failed(request.scope)
        return response

    kinds = (Problem, MaskwireError, HTTPException, Exception)
    starlette = Starlette(routes=routes, lifespan=lifespan, exception_handlers=dict.fromkeys(kinds, answer_error))
    starlette.router.redirect_slashes = False
    app: ASGIApp = GatewayMiddleware(starlette, settings, telemetry, Doorkeeper(upstream), memory)
    if settings.origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED_HEADERS,
            allow_private_network=True,  # Chrome asks before a page of the internet may call a gateway on a LAN
        )
    return app


class _Page:
    """Handlers of what people open in a browser.

    Args:
        folder: Folder with index.html and video.html; None without a page.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @Operation("GET", "/")
    async def index(self, request: Request) -> Response:
        """The page, or a line of text without one."""
        if self._folder is None:
            return PlainTextResponse("Maskwire's gateway. The API is described at /docs.\n")
        return FileResponse(self._folder / "index.html", headers={"Cache-Control": "no-cache", **ISOLATION})

    @Operation("GET", "/video")
    async def video(self, request: Request) -> Response:
        """The page for clips."""
        if self._folder is None:
            raise Problem(404, "this gateway has no pages", "NO_ROUTE")
        return FileResponse(self._folder / "video.html", headers={"Cache-Control": "no-cache"})

    @Operation("GET", STREAM_PATH)
    async def refuse_plain_stream(self, request: Request) -> Response:
        """Refuses requests of the WebSocket that are no WebSocket."""
        raise _no_socket(request)

    @Operation("GET", TRACK_PATH)
    async def refuse_plain_track(self, request: Request) -> Response:
        """Refuses requests of the WebSocket that are no WebSocket."""
        raise _no_socket(request)


def _no_socket(request: Request) -> Problem:
    said = f"{request.url.path} is a WebSocket: connect to it as ws:// or wss://"
    return Problem(426, said, "NO_SOCKET", more_headers={"Upgrade": "websocket"})
