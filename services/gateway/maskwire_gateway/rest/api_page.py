"""/docs: Swagger UI over /openapi.json, served from here alone."""

import importlib.util
from pathlib import Path

from starlette.responses import HTMLResponse, Response

FILES = "/docs/files"
"""Path of Swagger UI's files."""

SCRIPT = """
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  defaultModelsExpandDepth: 0,
  syntaxHighlight: false,
});
"""

_STYLE = """
body { margin: 0; font-family: system-ui, sans-serif; background: #fafafa; }
nav { padding: .8rem 1.25rem; background: #17191f; }
nav a { color: #fff; text-decoration: none; font-weight: 600; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Maskwire API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/files/swagger-ui.css">
<link rel="stylesheet" href="docs/style.css">
</head>
<body>
<nav><a href="./">\u2190 Maskwire</a></nav>
<div id="ui"></div>
<script src="docs/files/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def folder() -> Path:
    """Swagger UI's files. The package that brings them is for Flask, and is not imported."""
    found = importlib.util.find_spec("flask_swagger_ui")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("flask-swagger-ui, which brings Swagger UI's files, is not installed")
    return Path(found.submodule_search_locations[0]) / "dist"


def page() -> Response:
    """The page."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"})


def script() -> Response:
    """What starts Swagger UI: a file of its own, since the page allows no script in it."""
    return Response(SCRIPT, media_type="text/javascript")


def style() -> Response:
    """What Swagger UI's style sheet does not have."""
    return Response(_STYLE, media_type="text/css")
