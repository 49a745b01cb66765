"""JSON in both directions: strict parsing of bodies, and messages as JSON."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from maskwire.suggest import shortened
from maskwire_core.http.large_json import LARGE_BYTES
from maskwire_core.http.memory import hold_answer
from maskwire_core.http.problems import Problem
from maskwire_core.runtime.in_thread import in_thread
from starlette.requests import Request
from starlette.responses import Response

_PACKAGE = "maskwire.v1"
_REPEATED: Any = object()  # the value of a name that an object has more than once
_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


def load(data: str | bytes) -> Any:
    """Parses JSON; an empty text is an empty object.

    NaN and Infinity, which JSON does not have, become floats, so that the caller can say where they are.

    Raises:
        Problem: BAD_JSON: the text is not JSON, or an object has a name twice.
    """
    is_repeating = False

    def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal is_repeating
        members = dict(pairs)
        if len(members) < len(pairs):
            is_repeating = True
            counts = Counter(name for name, _ in pairs)
            members |= {name: _REPEATED for name, count in counts.items() if count > 1}
        return members

    try:
        value = json.loads(data or "{}", object_pairs_hook=make_object)
    except json.JSONDecodeError as error:
        said = f"{error.msg[:1].lower()}{error.msg[1:]} at line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError:
        said = "it is not UTF-8"
    except RecursionError:
        said = "it is nested too deeply"
    except ValueError:  # thousands of digits
        said = "it has a number that is too long"
    else:
        if is_repeating:
            place = next(_repeated(value, ""))
            raise Problem(400, f"{place}: it is given twice", "BAD_JSON", place)
        return value
    raise Problem(400, f"invalid JSON: {said}", "BAD_JSON")


def join(path: str, name: str) -> str:
    """The path of a member of the object at `path`."""
    name = shortened(name)
    return f"{path}.{name}" if path else name


def _repeated(value: Any, path: str) -> Iterator[str]:
    """The paths of names that are given more than once."""
    if value is _REPEATED:
        yield path
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _repeated(part, join(path, name))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _repeated(part, f"{path}[{index}]")


def text(message: Message) -> str:
    """Writes a message as one line of JSON: fields without presence always, others if they are set.

    NaN and the infinities, which JSON does not have, become null.
    """
    members = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    _replace_non_finite(message, members)
    return json.dumps(members, allow_nan=False)


def _replace_non_finite(message: Message, members: dict[str, Any]) -> None:
    for field, value in message.ListFields():
        if field.message_type is not None:
            if field.message_type.file.package == _PACKAGE:
                inner = members[field.name]
                for part, shown in zip(value, inner, strict=True) if field.is_repeated else [(value, inner)]:
                    _replace_non_finite(part, shown)
        elif field.cpp_type in _FLOATS:
            if field.is_repeated:
                members[field.name] = [number if math.isfinite(number) else None for number in value]
            elif not math.isfinite(value):
                members[field.name] = None


async def respond(message: Message, request: Request) -> Response:
    """Makes the response of a request that holds a message as JSON.

    Raises:
        Problem: TOO_MUCH_IN_PROGRESS: the caller has not read earlier answers.
    """
    size = message.ByteSize()
    large = size >= LARGE_BYTES
    if large:
        hold_answer(request.scope, size)
    body = await in_thread(text, message) if large else text(message)
    return Response(body, media_type="application/json")
