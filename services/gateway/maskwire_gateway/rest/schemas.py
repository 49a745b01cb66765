"""JSON schemas of messages, from their descriptors, the comments of protos/, and what the reader accepts besides."""

import ast
import functools
import inspect
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from maskwire.v1 import decoder_pb2, encoder_pb2, tracker_pb2, types_pb2
from pydantic import TypeAdapter

from maskwire_gateway.http.routing import Content, Json
from maskwire_gateway.rest.json_values import words_of
from maskwire_gateway.rest.message_reader import BESIDE, COMPACT, LABELS, members_of

_KNOWN: dict[str, Json] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Empty": {"type": "object", "additionalProperties": False},
    "google.protobuf.Any": {"type": "object"},
}
_NUMBERS: Json = {"type": "array", "items": {"type": "number", "minimum": 0}}
_LABEL: Json = {"type": "integer", "enum": [0, 1]}
_LABELS: Json = {"type": "array", "items": _LABEL, "description": "1 (inside) or 0 (outside) for each point."}
_REGION: Json = {
    "anyOf": [
        {"const": "auto"},
        {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 4, "maxItems": 4},
    ],
    "description": "The part of the image to look at, [x_min, y_min, x_max, y_max] in whole pixels, or auto: one "
    "around the object of the only prompt. It is cut from the file that was kept of the image (keep_source). Logits "
    "are the region's, all else is in pixels of the whole image. Errors: FAILED_PRECONDITION (SOURCE_NOT_KEPT); "
    "INVALID_ARGUMENT (BAD_REGION, OUT_OF_REGION).",
}
_BESIDE = {"region": _REGION}
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
    **{f"{message}.{name}": {"minimum": 0} for message, names in COMPACT.items() for name in names},
    "Point.label": _LABEL,
    "ListImagesRequest.page_size": {"maximum": 1000},
    "SegmentRequest.wait_ms": {"maximum": 60_000},
    "SetImage.wait_ms": {"maximum": 60_000},
    "GenerateMasksRequest.wait_ms": {"maximum": 60_000},
    "PointGrid.points_per_side": {"maximum": 512},
}


class Schemas:
    """Schemas of types, each made when it is first referred to.

    Attributes:
        all: The schemas by name.
    """

    def __init__(self) -> None:
        self.all: dict[str, Json] = {}

    def of(self, kind: Any, leave_out: Iterable[str] = ()) -> Json:
        """The schema of a type, or a reference to it.

        Args:
            kind: A message, a field of one, a pydantic model, a TypedDict, or a JSON schema with types as properties.
            leave_out: Fields of a message that its schema is not to have.
        """
        if isinstance(kind, FieldDescriptor):
            return self._field(kind)
        if isinstance(kind, Mapping):
            properties = {name: self.of(part) for name, part in kind.get("properties", {}).items()}
            return {**kind, "properties": properties} if properties else dict(kind)
        if issubclass(kind, Message):
            return self._message(kind.DESCRIPTOR, leave_out)
        schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
        self.all |= schema.pop("$defs", {})
        self.all[kind.__name__] = schema
        return {"$ref": f"#/components/schemas/{kind.__name__}"}

    def content(self, content: Content, leave_out: Iterable[str] = ()) -> Json:
        """The schemas of a body's types, by media type."""
        return {media: {"schema": self.of(kind, leave_out)} for media, kind in content.items()}

    def _message(self, message: Descriptor, leave_out: Iterable[str]) -> Json:
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

    def _field(self, field: FieldDescriptor) -> Json:
        name = field.full_name.removeprefix("maskwire.v1.")
        value = self._message(field.message_type, ()) if field.message_type is not None else _scalar(field)
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
            if name in BESIDE.get(message.name, ()):
                properties[name] = _BESIDE[name]
                continue
            owner: Any = message.fields_by_name[member.holder].message_type if member.holder else message
            schema = _LABELS if member.field == LABELS else self._field(owner.fields_by_name[member.field])
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
    for module in (types_pb2, encoder_pb2, decoder_pb2, tracker_pb2):
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
