"""JSON schemas of messages, from their descriptors, the comments of protos/, and what the reader accepts besides."""

import ast
import functools
import inspect
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2

from maskwire_gateway.rest.json_values import words_of
from maskwire_gateway.rest.message_reader import COMPACT, LABELS, members_of

Json = dict[str, Any]

_KNOWN: dict[str, Json] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Empty": {"type": "object", "additionalProperties": False},
    "google.protobuf.Any": {"type": "object"},
}
_NUMBERS: Json = {"type": "array", "items": {"type": "number", "minimum": 0}}
_LABEL: Json = {"type": "integer", "enum": [0, 1]}
_LABELS: Json = {"type": "array", "items": _LABEL, "description": "1 (inside) or 0 (outside) for each point."}
_COORDINATE: Json = {"minimum": 0}
_LONG: Json = {"type": "string", "pattern": "^[0-9]{1,18}$"}
_BYTES: Json = {"type": "string", "format": "byte", "contentEncoding": "base64"}
_SCALARS: dict[int, Json] = {
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "minimum": 0},
    FieldDescriptor.CPPTYPE_INT64: _LONG,
    FieldDescriptor.CPPTYPE_UINT64: _LONG,
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}
# Bounds that the comments of protos/ state in words.
_BOUNDS: dict[str, Json] = {
    "Point.x_px": _COORDINATE,
    "Point.y_px": _COORDINATE,
    "Point.label": _LABEL,
    "Box.x_min_px": _COORDINATE,
    "Box.y_min_px": _COORDINATE,
    "Box.x_max_px": _COORDINATE,
    "Box.y_max_px": _COORDINATE,
    "ListImagesRequest.page_size": {"maximum": 1000},
    "SegmentRequest.wait_ms": {"maximum": 60_000},
    "SetImage.wait_ms": {"maximum": 60_000},
    "GenerateMasksRequest.wait_ms": {"maximum": 60_000},
    "PointGrid.points_per_side": {"maximum": 512},
}


class Schemas:
    """Schemas of messages, each made when it is first referred to.

    Attributes:
        all: The schemas by name.
    """

    def __init__(self) -> None:
        self.all: dict[str, Json] = {}

    def of(self, message: Descriptor, leave_out: Iterable[str] = ()) -> Json:
        """Returns a reference to a message's schema; with `leave_out`, the schema itself without those fields."""
        if message.full_name in _KNOWN:
            return _KNOWN[message.full_name]
        left_out = set(leave_out)
        if not left_out and message.name in self.all:
            return {"$ref": f"#/components/schemas/{message.name}"}
        schema: Json = {"type": "object", "additionalProperties": False}
        if not left_out:
            self.all[message.name] = schema
        schema["description"] = _comments().get(message.name, "")
        schema["properties"] = self._properties(message, left_out)
        if message.name in COMPACT:
            count = len(COMPACT[message.name])
            names = ", ".join(name.removesuffix("_px") for name in COMPACT[message.name])
            short = {**_NUMBERS, "minItems": count, "maxItems": count, "description": f"[{names}]"}
            self.all[message.name] = {"anyOf": [dict(schema), short]}
        return schema if left_out else {"$ref": f"#/components/schemas/{message.name}"}

    def field(self, field: FieldDescriptor) -> Json:
        """Returns the schema of a field, with its comment."""
        name = field.full_name.removeprefix("maskwire.v1.")
        value = self.of(field.message_type) if field.message_type is not None else _scalar(field)
        if field.message_type is not None and field.message_type.name == "Logits":
            value = {"anyOf": [value, {"type": "array", "items": {}, "description": "Rows of numbers."}]}
        value = {"type": "array", "items": value} if field.is_repeated else {**value, **_BOUNDS.get(name, {})}
        comment = _comments().get(name)
        return {**value, "description": comment} if comment else value

    def _properties(self, message: Descriptor, left_out: set[str]) -> Json:
        properties: Json = {}
        for name, member in members_of(message).items():
            if name in left_out:
                continue
            owner = message.fields_by_name[member.holder].message_type if member.holder else message
            schema = _LABELS if member.field == LABELS else self.field(owner.fields_by_name[member.field])
            if name != member.field:
                schema = {**schema, "description": f"The same as {member.field}."}
            elif member.holder and member.field != LABELS:
                schema = {**schema, "description": f"The same in {member.holder}."}
            properties[name] = schema
        return properties


@functools.cache
def _comments() -> dict[str, str]:
    """The comments of protos/, by "Message" and "Message.field": docstrings of the stubs for type checkers."""
    found: dict[str, str | None] = {}
    for module in (types_pb2, encoder_pb2, decoder_pb2):
        tree = ast.parse(Path(inspect.getfile(module)).with_suffix(".pyi").read_text())
        for message in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            found[message.name] = ast.get_docstring(message)
            for statement, following in itertools.pairwise([*message.body, ast.Pass()]):
                match statement, following:
                    case ast.FunctionDef(name=name), _:  # a field that is a message, or repeated
                        found[f"{message.name}.{name}"] = ast.get_docstring(statement)
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(comment))):
                        found[f"{message.name}.{name}"] = comment
    return {name: " ".join(comment.split()) for name, comment in found.items() if comment}


def _scalar(field: FieldDescriptor) -> Json:
    if field.enum_type is not None:
        names = [value.name for value in field.enum_type.values]
        return {"type": "string", "enum": [*words_of(field.enum_type), *names]}
    return _BYTES if field.type == FieldDescriptor.TYPE_BYTES else _SCALARS[field.cpp_type]
