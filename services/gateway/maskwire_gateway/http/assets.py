"""The files of the pages."""

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Headers with which browsers let a page and its workers share memory between threads, in secure contexts (HTTPS, or
localhost). The page loads nothing from other origins."""

CODINGS = {"br": ".br", "gzip": ".gz"}
"""Content codings, the one that gives the fewest bytes first, and how the names of such copies end."""


class Assets(StaticFiles):
    """Serves a folder's files. Of those that have compressed copies beside them (NAME.br by Brotli, NAME.gz by gzip),
    callers who understand that get the smallest."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answers a request of a file."""
        accepted = Headers(scope=scope).get("accept-encoding", "")
        packed = [coding for coding, suffix in CODINGS.items() if self.lookup_path(path + suffix)[1] is not None]
        chosen = next((coding for coding in packed if coding in accepted), "")
        response = await super().get_response(path + CODINGS.get(chosen, ""), scope)
        if packed:
            response.headers["Vary"] = "Accept-Encoding"
            if chosen and response.status_code == 200:
                response.headers["Content-Encoding"] = chosen
        response.headers.update(ISOLATION)
        return response
