"""What the adapters share: an application over one client, requests read as forms, and error answers."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from maskwire import AsyncClient, MaskwireError
from maskwire_core.http.bodies import Bodies
from maskwire_core.http.large_json import body_in_turn
from maskwire_core.http.problems import Problem, problem_of
from maskwire_core.scheduling.shares import Shares
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from maskwire_adapters.status_line import MESSAGE_HEADER

log = logging.getLogger(__name__)

_BODY_BYTES = 64 << 20
_BODIES = Bodies(Shares(512 << 20), timeout_s=60)  # of all routes
_HEADER_CHARACTERS = 500


class ToolForm(BaseModel):
    """A JSON object of a tool's request.

    Tools and their versions differ in how they leave an optional field out: it may be absent, null, an empty list or an
    empty object. Unknown fields are ignored: tools send many that Maskwire does not need, and add more.
    """

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, content: Any) -> Any:
        if content in (None, []):
            return {}
        if not isinstance(content, dict):
            return content
        required = {field.alias or name for name, field in cls.model_fields.items() if field.is_required()}
        return {key: value for key, value in content.items() if key in required or value not in (None, [], {})}


Form = TypeVar("Form", bound=ToolForm)


def post(path: str, form: type[Form], answer: Callable[[Form], Awaitable[Any]]) -> Route:
    """Makes a route whose answer is JSON. Requests that do not fit the form are answered with 400 and the field that is
    wrong."""

    async def endpoint(request: Request) -> Response:
        async with _BODIES.receive(request, _BODY_BYTES) as body:
            content = await answer(await body_in_turn(_parse, body, form))
            return await asyncio.to_thread(JSONResponse, content)  # a mask as nested lists takes long

    return Route(path, endpoint, methods=["POST"])


def get(path: str, answer: Callable[[Request], Awaitable[Any]]) -> Route:
    """Makes a route without a body, whose answer is JSON."""

    async def endpoint(request: Request) -> Response:
        return JSONResponse(await answer(request))

    return Route(path, endpoint)


def application(
    routes: Sequence[BaseRoute],
    client: AsyncClient,
    error_content: Callable[[Problem], Any] = Problem.content,
    beside: contextlib.AbstractAsyncContextManager[Any] | None = None,
) -> Starlette:
    """Makes an adapter's application.

    Args:
        routes: What the tool asks for.
        client: Connected to the servers; closed when the adapter stops.
        error_content: Makes an error's JSON as the tool expects it.
        beside: What runs for as long as the application does, and ends before the client is closed.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with client, beside or contextlib.nullcontext():
            yield

    async def answer_error(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):  # Starlette's own
            error = Problem(
                error.status_code, f"{request.method} {request.url.path}: {error.detail.lower()}", "NO_ROUTE"
            )
        return refused(request, problem_of(error), error_content)

    kinds: tuple[Any, ...] = (Problem, MaskwireError, HTTPException, Exception)
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=dict.fromkeys(kinds, answer_error))


def refused(request: Request, problem: Problem, error_content: Callable[[Problem], Any] = Problem.content) -> Response:
    """Logs and makes the answer to a request that failed."""
    log.warning("%s %s: %d %s", request.method, request.url.path, problem.status, problem)
    one_line = " ".join(str(problem).encode("ascii", "replace").decode().split())[:_HEADER_CHARACTERS]
    return JSONResponse(error_content(problem), problem.status, {**problem.headers, MESSAGE_HEADER: one_line})


def misfit(error: ValidationError, within: str = "") -> Problem:
    """The answer to a value that does not fit its form.

    Args:
        error: What pydantic raised; only its first complaint is told.
        within: Path of the value in the request.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    path = within + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    return Problem(400, first["msg"], "BAD_REQUEST", path.lstrip("."))


def _parse(data: str | bytes, form: type[Form]) -> Form:
    try:
        return form.model_validate_json(data)
    except ValidationError as error:
        raise misfit(error) from error
