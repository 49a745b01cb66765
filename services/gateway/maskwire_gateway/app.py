"""The application: routes, and what they share."""

import contextlib
from collections.abc import AsyncIterator
from importlib import metadata
from pathlib import Path

from maskwire import MaskwireError
from maskwire_core.config import GatewaySettings
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from maskwire_gateway import handbook
from maskwire_gateway.bodies import Bodies
from maskwire_gateway.description import describe
from maskwire_gateway.fetching import Fetcher
from maskwire_gateway.front import Front, bearer
from maskwire_gateway.native import Native
from maskwire_gateway.pictures import Pictures
from maskwire_gateway.problems import Problem, problem_of
from maskwire_gateway.roboflow import Roboflow
from maskwire_gateway.services import Services
from maskwire_gateway.sockets import PROTOCOL, Relay
from maskwire_gateway.telemetry import Telemetry

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
        await services.close()

    services = Services(settings)
    fetcher = Fetcher(settings.url_hosts, settings.url_timeout_s) if settings.urls else None
    pictures = Pictures(fetcher, settings.max_image_bytes)

    async def stream(socket: WebSocket) -> None:
        await socket.accept(PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
        await Relay(services.acting_as(bearer(socket)).connection, telemetry, socket).run()

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        missing = await services.missing()
        if missing:
            raise Problem(503, f"no {' and no '.join(missing)} answers", "NOT_READY", retry_after_s=1)
        return PlainTextResponse("ok\n")

    async def metrics(request: Request) -> Response:
        return Response(telemetry.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    document = describe(_version())

    async def openapi(request: Request) -> Response:
        return JSONResponse(document)

    async def docs(request: Request) -> Response:
        return HTMLResponse(handbook.page(document))

    async def index(request: Request) -> Response:
        if page is None:
            return PlainTextResponse("Maskwire's gateway. The API is described at /docs.\n")
        return FileResponse(page / "index.html", headers={"Cache-Control": "no-cache"})

    routes: list[BaseRoute] = [
        *Native(services, bodies, telemetry, settings.max_image_bytes).routes(),
        *Roboflow(settings, services, bodies, pictures, telemetry).routes(),
        WebSocketRoute("/v1/stream", stream),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        Route("/", index),
    ]
    if page is not None:
        routes.append(Mount("/assets", StaticFiles(directory=page)))
    handlers = {
        Problem: _answer,
        MaskwireError: _answer,
        HTTPException: _no_route,
        Exception: _answer,
    }
    app: ASGIApp = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
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
    return problem_of(error).response(request.url.path)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = f"{request.method} {request.url.path}: {error.detail.lower()}; /docs lists what there is"
    return JSONResponse(Problem(error.status_code, said, "NO_ROUTE").content(), error.status_code, error.headers)
