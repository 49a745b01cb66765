"""Messages as JSON: protobuf's mapping, with the fields' own names."""

import asyncio
import re
from collections.abc import Mapping
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.responses import Response

from maskwire_gateway.problems import Problem

AMessage = TypeVar("AMessage", bound=Message)

_LARGE_BYTES = 1 << 17  # from here on, work on JSON leaves the event loop
_FLAGS = {"true": True, "1": True, "false": False, "0": False, "": False}


def parse(data: str | bytes, message: AMessage) -> AMessage:
    """Reads JSON into a message; nothing at all is an empty object.

    Raises:
        Problem: It is not JSON, or has an unknown field or a value of the wrong type.
    """
    try:
        return json_format.Parse(data or "{}", message)
    except (json_format.Error, UnicodeDecodeError, RecursionError) as error:
        raise _bad("BAD_JSON", error) from error


async def read(data: bytes, message: AMessage) -> AMessage:
    """As `parse`, of a request's body."""
    return parse(data, message) if len(data) < _LARGE_BYTES else await asyncio.to_thread(parse, data, message)


def read_query(query: Mapping[str, str], message: AMessage) -> AMessage:
    """Reads the parameters of an address into a message.

    Raises:
        Problem: There is no such parameter, or its value has the wrong type.
    """
    values: dict[str, object] = dict(query)
    for name, value in query.items():
        descriptor = message.DESCRIPTOR.fields_by_name.get(name)
        if descriptor is not None and descriptor.type == descriptor.TYPE_BOOL:
            values[name] = _FLAGS.get(value.lower(), value)
    try:
        return json_format.ParseDict(values, message)
    except json_format.Error as error:
        raise _bad("BAD_PARAMETER", error) from error


def text(message: Message) -> str:
    """A message in one line of JSON; fields without presence always, others where they are set."""
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
    )


async def respond(message: Message) -> Response:
    """A response that holds a message."""
    large = message.ByteSize() >= _LARGE_BYTES
    body = await asyncio.to_thread(text, message) if large else text(message)
    return Response(body, media_type="application/json")


def _bad(reason: str, error: Exception) -> Problem:
    said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    place = re.search(r'at "\w+\.([^"]+)"', said)
    path = place[1] if place else ".".join(re.findall(r"Failed to parse (\w+) field", said))
    return Problem(400, said, reason, path)
