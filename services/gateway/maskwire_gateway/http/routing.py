"""Routes, declared with what the API's description says of them; and errors for paths and parameters that do not exist.

Handlers are methods that an `Operation` decorates. `resources` makes Starlette's routes of them, and `rest.openapi` the
API's description.
"""

import difflib
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from maskwire.suggest import no_such, shortened
from maskwire_core.http.problems import Problem
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

Json = dict[str, Any]
Content = Mapping[str, Any]
"""Types by media type. A type is a message, a pydantic model, a TypedDict, or a JSON schema itself."""

Handler = Callable[[Request], Awaitable[Response]]
Decorated = TypeVar("Decorated", bound=Callable[..., Awaitable[Response]])

JSON = "application/json"
EXAMPLE_IMAGE_ID = "example"
"""Name of the image that the examples are about; the one for /sam2/embed_image makes it."""

ERRORS = (400, 401, 403, 404, 500, 503, 504)
"""Statuses that any call of the servers may be answered with."""


@dataclass(frozen=True, eq=False)
class Operation:
    """What a method does at a path: a decorator of the handler, whose docstring is the summary.

    Attributes:
        method: GET, POST or DELETE.
        path: With parameters in braces. Fields of a message that are in the path are not in the body.
        query: The query's parameters by name: a message's fields, or JSON schemas; None: any are accepted.
        accepted: Names of further parameters, which the API's description leaves out.
        body: Content of the request's body; None: there is none.
        needs_body: Whether the body may not be empty.
        example: A JSON body that works as it stands.
        answer: Content of the successful answer; None: the API's description leaves the operation out.
        errors: Statuses of other answers.
    """

    method: str
    path: str
    query: Mapping[str, FieldDescriptor | Json] | None = None
    accepted: Sequence[str] = ()
    body: Content | None = None
    needs_body: bool = True
    example: Any = None
    answer: Content | None = None
    errors: Sequence[int] = ERRORS

    def __call__(self, handler: Decorated) -> Decorated:
        setattr(handler, _OPERATION, self)
        return handler

    @property
    def path_parameters(self) -> list[str]:
        """Names of the path's parameters."""
        return re.findall(r"\{(\w+)\}", self.path)


_OPERATION = "operation"  # attribute of handlers


def fields_of(message: type[Message], *, without: Sequence[str] = ()) -> dict[str, FieldDescriptor | Json]:
    """A message's fields as parameters of a query."""
    fields: Any = message.DESCRIPTOR.fields  # the stubs have two kinds of descriptors
    return {field.name: field for field in fields if field.name not in without}


class Resource(Route):
    """A path, and what each method does there.

    The path is matched as it was sent: `%2F` belongs to a name, and `/` does not.

    Args:
        path: With parameters in braces.
        handlers: What to call, by operation.
        tag: The group in which the API's description shows the operations.
    """

    def __init__(self, path: str, handlers: Mapping[Operation, Handler], tag: str) -> None:
        self.handlers = handlers
        self.tag = tag
        by_method = {operation.method: operation for operation in handlers}
        allowed = ", ".join(sorted({*by_method, *(["HEAD"] if "GET" in by_method else [])}))

        async def endpoint(request: Request) -> Response:
            operation = by_method.get("GET" if request.method == "HEAD" else request.method)
            if operation is None:
                said = f"{request.url.path} takes {allowed}, not {request.method}"
                raise Problem(405, said, "NO_METHOD", more_headers={"Allow": allowed})
            if operation.query is not None:
                given = [name for name, _ in request.query_params.multi_items()]
                check_names(given, [*operation.query, *operation.accepted])
            return await handlers[operation](request)

        super().__init__(path, endpoint)
        self.methods = set()  # any

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Matches the path before its percent-encoding is decoded."""
        if scope["type"] != "http":
            return Match.NONE, {}
        match, found = super().matches({**scope, "path": scope["raw_path"].decode("latin-1")})
        if match != Match.NONE:
            found["path_params"] = {name: unquote(value) for name, value in found["path_params"].items()}
        return match, found


def resources(owner: object, tag: str = "") -> list[Resource]:
    """Makes the resources of an object's handlers: its methods that an `Operation` decorates."""
    by_path: dict[str, dict[Operation, Handler]] = {}
    for name, member in vars(type(owner)).items():
        operation: Operation | None = getattr(member, _OPERATION, None)
        if operation is not None:
            by_path.setdefault(operation.path, {})[operation] = getattr(owner, name)
    return [Resource(path, handlers, tag) for path, handlers in by_path.items()]


def no_such_path(method: str, path: str, routes: Iterable[BaseRoute]) -> Problem:
    """The answer to a request of a path that does not exist, with the most similar one of those that do."""
    parts = path.split("/")
    known = []
    for route in routes:
        if isinstance(route, Resource):
            pattern = route.path.split("/")
            if len(pattern) == len(parts):
                pattern = [mine if theirs[:1] == "{" else theirs for mine, theirs in zip(parts, pattern, strict=True)]
            known.append("/".join(pattern))
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.7)
    hint = f"did you mean {close[0]}?" if close else "/docs lists what there is"
    return Problem(404, f"{method} {path}: there is nothing here; {hint}", "NO_ROUTE")


def check_names(given: Sequence[str], known: Iterable[str], kind: str = "parameter") -> None:
    """Refuses names that do not exist, or that are given twice.

    Args:
        given: Names, each as often as it was given.
        known: Names that exist.
        kind: What the names are of, for the error.

    Raises:
        Problem: BAD_PARAMETER.
    """
    names = set(known)
    for name in given:
        if name not in names:
            short = shortened(name)
            said = no_such(kind, name, names) if names else f"no {kind} {short!r}; there are none here"
            raise Problem(400, said, "BAD_PARAMETER", short)
        if given.count(name) > 1:
            raise Problem(400, f"{name}: it is given twice", "BAD_PARAMETER", name)
