"""Resources by their paths, with the words for paths, methods and parameters that do not exist."""

import difflib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from maskwire_core.http.problems import Problem
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from maskwire_gateway.rest.message_reader import check_names


@dataclass(frozen=True)
class Call:
    """What a method does.

    Attributes:
        handler: Answers.
        parameters: Names of the query's parameters; None where the handler looks at them itself.
    """

    handler: Callable[[Request], Awaitable[Response]]
    parameters: Sequence[str] | None = ()


class Resource(Route):
    """A path, and what each method does there.

    It is matched as it was sent: `%2F` belongs to a name, and `/` does not.

    Args:
        path: With parameters in braces.
        calls: By method.
    """

    def __init__(self, path: str, **calls: Call) -> None:
        self.allowed = sorted({*calls, *(["HEAD"] if "GET" in calls else [])})

        async def endpoint(request: Request) -> Response:
            call = calls.get("GET" if request.method == "HEAD" else request.method)
            if call is None:
                allowed = ", ".join(self.allowed)
                said = f"{request.url.path} takes {allowed}, not {request.method}"
                raise Problem(405, said, "NO_METHOD", more_headers={"Allow": allowed})
            if call.parameters is not None:
                check_names([name for name, _ in request.query_params.multi_items()], call.parameters)
            return await call.handler(request)

        super().__init__(path, endpoint)
        self.methods = set()  # any

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        match, found = super().matches({**scope, "path": scope["raw_path"].decode("latin-1")})
        if match != Match.NONE:
            found["path_params"] = {name: unquote(value) for name, value in found["path_params"].items()}
        return match, found


def no_such_path(method: str, path: str, routes: Iterable[BaseRoute]) -> Problem:
    """Says that there is nothing at a path, and what is close to it.

    Args:
        method: Of the request.
        path: Likewise.
        routes: All that there are.
    """
    parts = path.split("/")
    known = {}
    for route in routes:
        if isinstance(route, Resource):
            pattern = route.path.split("/")
            if len(pattern) == len(parts):
                pattern = [mine if theirs[:1] == "{" else theirs for mine, theirs in zip(parts, pattern, strict=True)]
            known["/".join(pattern)] = route
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.7)
    hint = f"did you mean {close[0]}?" if close else "/docs lists what there is"
    return Problem(404, f"{method} {path}: there is nothing here; {hint}", "NO_ROUTE")
