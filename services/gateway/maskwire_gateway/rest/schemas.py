"""JSON schemas of messages: made of their descriptors, their comments, and what the reader takes besides."""

import ast
import functools
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2

from maskwire_gateway.rest.json_values import words_of
from maskwire_gateway.rest.message_reader import COMPACT, LABELS, inline_of, names_of

Json = dict[str, Any]

_KNOWN: dict[str, Json] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Empty": {"type": "object", "additionalProperties": False},
    "google.protobuf.Any": {"type": "object"},
}
_NUMBERS: Json = {"type": "array", "items": {"type": "number", "minimum": 0}}
_LABEL: Json = {"type": "integer", "enum": [0, 1]}
_COORDINATE: Json = {"minimum": 0}
# What comments say in words.
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
    "EditObject.object_id": {"minLength": 1, "maxLength": 256},
}


class Schemas:
    """Schemas of messages, each described when it is first referred to.

    Attributes:
        all: By name.
    """

    def __init__(self) -> None:
        self.all: dict[str, Json] = {}

    def of(self, message: Descriptor, leave_out: Iterable[str] = ()) -> Json:
        """A reference to a message's schema; without some fields, a schema of its own."""
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
        """Schema of a field, with its comment."""
        name = field.full_name.removeprefix("maskwire.v1.")
        value = self.of(field.message_type) if field.message_type is not None else _scalar(field)
        if field.message_type is not None and field.message_type.name == "Logits":
            value = {"anyOf": [value, {"type": "array", "items": {}, "description": "Rows of numbers."}]}
        value = {"type": "array", "items": value} if field.is_repeated else {**value, **_BOUNDS.get(name, {})}
        comment = _comments().get(name)
        return {**value, "description": comment} if comment else value

    def _properties(self, message: Descriptor, left_out: set[str]) -> Json:
        properties: Json = {}
        inline = [(f"The same in {field.name}", inner) for field, inner in inline_of(message)]
        for place, inner in [("", message), *inline]:
            for name, field in names_of(inner).items():
                if name in left_out or name in properties:
                    continue
                if field is None:
                    properties[name] = {
                        "type": "array",
                        "items": _LABEL,
                        "description": "1 (inside) or 0 (outside) for each point.",
                    }
                elif place:
                    properties[name] = {**self.field(field), "description": f"{place}."}
                else:
                    properties[name] = self.field(field)
                other = field.name if field is not None else LABELS
                if name != other:
                    properties[name] = {**properties[name], "description": f"The same as {other}."}
        return properties


@functools.cache
def _comments() -> dict[str, str]:
    """The comments of protos/, by "Message" and "Message.field": docstrings of the stubs for type checkers."""
    found: dict[str, str] = {}
    for module in (types_pb2, encoder_pb2, decoder_pb2):
        tree = ast.parse(Path(inspect.getfile(module)).with_suffix(".pyi").read_text())
        for node in tree.body:
            if not isinstance(node, ast.ClassDef):
                continue
            found[node.name] = _sentence(ast.get_docstring(node) or "")
            for statement, following in zip(node.body, node.body[1:], strict=False):
                if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                    name = _declared(statement)
                    if name:
                        found[f"{node.name}.{name}"] = _sentence(str(following.value.value))
            for statement in node.body:
                if isinstance(statement, ast.FunctionDef) and (said := ast.get_docstring(statement)):
                    found[f"{node.name}.{statement.name}"] = _sentence(said)
    return found


def _declared(statement: ast.stmt) -> str:
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    return ""


def _sentence(comment: str) -> str:
    return " ".join(comment.split())


def _scalar(field: FieldDescriptor) -> Json:
    if field.enum_type is not None:
        return {
            "type": "string",
            "enum": [*words_of(field.enum_type), *(value.name for value in field.enum_type.values)],
        }
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return {"type": "boolean"}
        case FieldDescriptor.CPPTYPE_INT32:
            return {"type": "integer"}
        case FieldDescriptor.CPPTYPE_UINT32:
            return {"type": "integer", "minimum": 0}
        case FieldDescriptor.CPPTYPE_INT64 | FieldDescriptor.CPPTYPE_UINT64:
            return {"type": "string", "pattern": "^[0-9]{1,18}$"}
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return {"type": "number"}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "format": "byte", "contentEncoding": "base64"}
    return {"type": "string"}
