"""Bodies of /sam2 requests read as forms, with errors in the words of whoever wrote them."""

import types
from collections.abc import Sequence
from typing import Any, TypeVar, get_args

from maskwire.suggest import no_such, shortened
from maskwire_core.http.problems import Problem
from pydantic import BaseModel, ValidationError

from maskwire_gateway.rest.json_codec import load
from maskwire_gateway.rest.json_values import shown

Form = TypeVar("Form", bound=BaseModel)
Step = str | int

_EXPECTED = {
    "bool": "true or false",
    "dict": "an object",
    "finite_number": "a finite number",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "model": "an object",
    "string": "text",
}
"""What is expected, by the beginning of pydantic's types of errors."""


def read_form(data: str | bytes, kind: type[Form]) -> Form:
    """Reads a body.

    Raises:
        Problem: With status 422, and everything that is wrong in `detail`, in the form of FastAPI's servers.
    """
    try:
        value = load(data or "null")
    except Problem as problem:
        raise _invalid([(problem.message, "json_invalid", [])]) from problem
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _invalid(
            [(_say(one, kind), one["type"], _place(one["loc"], value)) for one in error.errors(include_url=False)]
        ) from error


def _invalid(wrong: Sequence[tuple[str, str, Sequence[Step]]]) -> Problem:
    """The answer to a body that does not fit.

    Args:
        wrong: What is wrong: a sentence, pydantic's type of the error, and the place in the body.
    """
    short = [(said, kind, [shortened(s) if isinstance(s, str) else s for s in place]) for said, kind, place in wrong]
    detail = [{"type": kind, "loc": ["body", *place], "msg": said} for said, kind, place in short]
    said, _, place = short[0]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")
    return Problem(422, said, "BAD_BODY", path, detail=detail)


def _place(steps: Sequence[Step], value: Any) -> list[Step]:
    """The place of an error in what was sent, where `prompts` may be a list or a single prompt instead of a set."""
    prompts = value.get("prompts") if isinstance(value, dict) else None
    if tuple(steps[:2]) == ("prompts", "prompts") and len(steps) > 2:
        if isinstance(prompts, list):
            return ["prompts", *steps[2:]]
        if isinstance(prompts, dict) and "prompts" not in prompts:
            return ["prompts", *steps[3:]]
    return list(steps)


def _say(error: Any, kind: type[BaseModel]) -> str:
    got = f", got {shown(error['input'])}"
    match error["type"]:
        case "extra_forbidden":
            return no_such("field", error["loc"][-1], _fields(kind, error["loc"][:-1]))
        case "missing":
            return "it is missing"
        case "literal_error":
            return f"expected {error['ctx']['expected']}{got}"
        case "too_short" | "too_long":
            return f"expected {error['ctx'].get('min_length', error['ctx'].get('max_length'))} numbers{got}"
        case "value_error":
            return str(error["ctx"]["error"])
    for beginning, expected in _EXPECTED.items():
        if error["type"].startswith(beginning):
            return f"expected {expected}{got}"
    return str(error["msg"])


def _fields(kind: Any, steps: Sequence[Step]) -> list[str]:
    """Names of the fields that the form at a place has."""
    for step in steps:
        if isinstance(step, str):
            kind = _form_in(kind.model_fields[step].annotation)
    return list(kind.model_fields)


def _form_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for part in get_args(annotation) if (found := _form_in(part)) is not None), None)
