"""The files of the pages."""

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Headers with which browsers let a page and its workers share memory between threads, in secure contexts (HTTPS, or
localhost). The page loads nothing from other origins."""


class Assets(StaticFiles):
    """Serves a folder's files. Of those that have a copy compressed by gzip beside them (NAME.gz), callers who
    understand that get the copy."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answers a request of a file."""
        packed = self.lookup_path(f"{path}.gz")[1] is not None
        accepts = "gzip" in Headers(scope=scope).get("accept-encoding", "")
        response = await super().get_response(f"{path}.gz" if packed and accepts else path, scope)
        if packed:
            response.headers["Vary"] = "Accept-Encoding"
            if accepts and response.status_code == 200:
                response.headers["Content-Encoding"] = "gzip"
        response.headers.update(ISOLATION)
        return response
