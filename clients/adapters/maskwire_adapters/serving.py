"""What the adapters share: an application over one client, reading requests, answering errors."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from maskwire import AsyncClient, MaskwireError
from maskwire_core.http.bodies import Bodies
from maskwire_core.http.problems import Problem, problem_of
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from maskwire_adapters.status_line import MESSAGE_HEADER

log = logging.getLogger(__name__)

Form = TypeVar("Form", bound=BaseModel)

_BODY_BYTES = 64 << 20
_MEMORY_BYTES = 512 << 20
_BODY_TIMEOUT_S = 60
_HEADER_CHARACTERS = 500


class Reader:
    """Reads JSON requests and answers them in JSON."""

    def __init__(self) -> None:
        self._bodies = Bodies(_MEMORY_BYTES, _BODY_TIMEOUT_S)

    def post(self, path: str, form: type[Form], answer: Callable[[Form], Awaitable[Any]]) -> Route:
        """A route; requests that do not fit the form are answered with 400 and the field that is wrong."""

        async def endpoint(request: Request) -> Response:
            async with self._bodies.receive(request, _BODY_BYTES) as body:
                content = await answer(await asyncio.to_thread(_parse, form, body.data))
                return await asyncio.to_thread(JSONResponse, content)  # a mask as nested lists takes its time

        return Route(path, endpoint, methods=["POST"])


def get(path: str, answer: Callable[[Request], Awaitable[Any]]) -> Route:
    """A route that answers in JSON."""

    async def endpoint(request: Request) -> Response:
        return JSONResponse(await answer(request))

    return Route(path, endpoint)


def application(
    routes: Sequence[BaseRoute], client: AsyncClient, tell: Callable[[Problem], Any] = Problem.content
) -> Starlette:
    """An adapter.

    Args:
        routes: What the tool asks for.
        client: Closed when the adapter stops.
        tell: Makes an error's body, as the tool expects it.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    def told(request: Request, problem: Problem) -> Response:
        log.warning("%s %s: %d %s", request.method, request.url.path, problem.status, problem)
        return JSONResponse(tell(problem), problem.status, {**problem.headers, MESSAGE_HEADER: _header(str(problem))})

    async def failed(request: Request, error: Exception) -> Response:
        return told(request, problem_of(error))

    async def no_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path}: {error.detail.lower()}"
        return told(request, Problem(error.status_code, message, "NO_ROUTE"))

    handlers: dict[Any, Any] = {
        Problem: failed,
        MaskwireError: failed,
        HTTPException: no_route,
        Exception: failed,
    }
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


def unfit(error: ValidationError, within: str = "") -> Problem:
    """What is wrong with a value that does not fit its form.

    Args:
        error: From pydantic; its first complaint is told.
        within: Path of the value in the request.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    path = within + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    return Problem(400, first["msg"], "BAD_REQUEST", path.lstrip("."))


def _header(message: str) -> str:
    """A message as the value of a header: ASCII, one line."""
    return " ".join(message.encode("ascii", "replace").decode().split())[:_HEADER_CHARACTERS]


def _parse(form: type[Form], data: bytes) -> Form:
    try:
        return form.model_validate_json(data)
    except ValidationError as error:
        raise unfit(error) from error
