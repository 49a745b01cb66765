"""The application: routes, and what they share."""

import contextlib
from collections.abc import AsyncIterator
from importlib import metadata
from pathlib import Path

from maskwire import MaskwireError
from maskwire_core.config import GatewaySettings
from maskwire_core.http.bodies import Bodies
from maskwire_core.http.problems import Problem
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from maskwire_gateway.http.error_responses import error_response
from maskwire_gateway.http.fetching import Fetcher
from maskwire_gateway.http.middleware import SOCKET_PATH, Front, bearer
from maskwire_gateway.http.routing import Call, Resource, no_such_path
from maskwire_gateway.metrics import Telemetry
from maskwire_gateway.rest import api_page
from maskwire_gateway.rest.openapi import describe
from maskwire_gateway.rest.rest_v1 import Native
from maskwire_gateway.roboflow.images import ImageReader
from maskwire_gateway.roboflow.routes import Roboflow
from maskwire_gateway.upstream import Upstream
from maskwire_gateway.websocket.stream import PROTOCOL, Relay

_EXPOSED = ("X-Request-ID", "X-Processing-Time", "X-Maskwire-Model", "Retry-After")


def application(settings: GatewaySettings, page: Path | None) -> ASGIApp:
    """The gateway.

    Args:
        settings: Its settings.
        page: Folder with the page's index.html and assets; None without a page.
    """
    telemetry = Telemetry()
    bodies = Bodies(settings.body_memory_bytes, settings.body_timeout_s)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await upstream.servers.close()

    upstream = Upstream(settings)
    fetcher = Fetcher(settings.url_hosts, settings.url_timeout_s) if settings.urls else None
    images = ImageReader(fetcher, settings.max_image_bytes)

    async def stream(socket: WebSocket) -> None:
        await socket.accept(PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
        await Relay(upstream.servers, upstream.caller(bearer(socket)), telemetry, socket).run()

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        missing = await upstream.servers.find_unavailable()
        if missing:
            raise Problem(503, f"no {' and no '.join(missing)} answers", "NOT_READY", retry_after_s=1)
        return PlainTextResponse("ok\n")

    async def metrics(request: Request) -> Response:
        return Response(telemetry.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    document = describe(_version())

    async def openapi(request: Request) -> Response:
        return JSONResponse(document)

    async def docs(request: Request) -> Response:
        return api_page.page()

    async def docs_script(request: Request) -> Response:
        return api_page.script()

    async def docs_style(request: Request) -> Response:
        return api_page.style()

    async def only_a_socket(request: Request) -> Response:
        raise Problem(
            426,
            "/v1/stream is a WebSocket: connect to it as ws:// or wss://",
            "NO_SOCKET",
            more_headers={"Upgrade": "websocket"},
        )

    async def index(request: Request) -> Response:
        if page is None:
            return PlainTextResponse("Maskwire's gateway. The API is described at /docs.\n")
        return FileResponse(page / "index.html", headers={"Cache-Control": "no-cache"})

    routes: list[BaseRoute] = [
        *Native(upstream, bodies, telemetry, settings.max_image_bytes).routes(),
        *Roboflow(settings, upstream, bodies, images, telemetry).routes(),
        WebSocketRoute(SOCKET_PATH, stream),
        Resource(SOCKET_PATH, GET=Call(only_a_socket, None)),
        Resource("/healthz", GET=Call(healthz, None)),
        Resource("/readyz", GET=Call(readyz, None)),
        Resource("/metrics", GET=Call(metrics, None)),
        Resource("/openapi.json", GET=Call(openapi, None)),
        Resource("/docs", GET=Call(docs, None)),
        Resource("/docs/start.js", GET=Call(docs_script, None)),
        Resource("/docs/style.css", GET=Call(docs_style, None)),
        Mount(api_page.FILES, StaticFiles(directory=api_page.folder())),
        Resource("/", GET=Call(index, None)),
    ]
    if page is not None:
        routes.append(Mount("/assets", StaticFiles(directory=page)))

    async def no_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        problem = Problem(error.status_code, error.detail, "NO_ROUTE", more_headers=error.headers or {})
        if error.status_code == 404:
            problem = no_such_path(request.method, request.url.path, routes)
        return error_response(problem, "")

    handlers = {
        Problem: _answer,
        MaskwireError: _answer,
        HTTPException: no_route,
        Exception: _answer,
    }
    starlette = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    starlette.router.redirect_slashes = False
    app: ASGIApp = starlette
    app = Front(app, settings, telemetry)
    if settings.origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )
    return app


def _version() -> str:
    try:
        return metadata.version("maskwire")
    except metadata.PackageNotFoundError:  # from a source tree that was not installed
        return "0"


async def _answer(request: Request, error: Exception) -> Response:
    return error_response(error, request.url.path)
