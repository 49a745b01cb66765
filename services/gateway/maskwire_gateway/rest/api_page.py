"""/docs: Swagger UI over /openapi.json. Nothing is loaded from other hosts."""

import importlib.util
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from maskwire_gateway.http.routing import Json, Operation

_FOLDER = Path(__file__).parent / "docs"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


class ApiPage:
    """Handlers of the routes.

    Args:
        document: The OpenAPI document.
    """

    def __init__(self, document: Json) -> None:
        self._document = document

    @Operation("GET", "/openapi.json")
    async def openapi(self, request: Request) -> Response:
        """The OpenAPI document."""
        return JSONResponse(self._document)

    @Operation("GET", "/docs")
    async def page(self, request: Request) -> Response:
        """The page, which shows the document."""
        headers = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}
        return FileResponse(_FOLDER / "index.html", headers=headers)


def mounts() -> list[Mount]:
    """The page's own files, and Swagger UI's."""
    found = importlib.util.find_spec("flask_swagger_ui")  # it is for Flask, and is not imported
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("flask-swagger-ui, which brings Swagger UI's files, is not installed")
    swagger_ui = Path(found.submodule_search_locations[0]) / "dist"
    return [Mount("/docs/files", StaticFiles(directory=swagger_ui)), Mount("/docs", StaticFiles(directory=_FOLDER))]
