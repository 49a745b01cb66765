"""Messages read from JSON and query parameters, with errors in the words of who wrote them.

JSON is protobuf's mapping of the messages with the fields' own names, and these besides:

- a Point may be [x, y], a Box [x_min, y_min, x_max, y_max], Logits a list of rows;
- labels of points may stand beside them, as `labels`;
- an enum's value may be its last word in any case: "png" for MASK_FORMAT_PNG;
- fields of the first prompt, of the output options and of the point grid may stand in the message that holds them;
- what SAM2ImagePredictor calls otherwise (`_ALIASES`) may be called so here.
"""

import asyncio
import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from maskwire import MaskwireError
from maskwire.suggest import no_such
from maskwire.v1 import types_pb2
from maskwire_core.http.problems import Problem

from maskwire_gateway.rest.json_codec import LARGE_BYTES, join, load
from maskwire_gateway.rest.json_values import WrongValue, read_value, shown

AMessage = TypeVar("AMessage", bound=Message)

COMPACT = {"Point": ("x_px", "y_px"), "Box": ("x_min_px", "y_min_px", "x_max_px", "y_max_px")}
"""Messages that a list of numbers may stand for, and the fields that those are."""

LABELS = "labels"
"""Of a Prompt: the labels of its points, in their order."""

_ALIASES = {
    "Prompt": {"point_coords": "points", "point_labels": LABELS, "mask_input": "mask"},
    "OutputOptions": {"multimask_output": "multimask"},
    "GenerateMasksRequest": {"multimask_output": "multimask"},
}
_INSTEAD = {
    "boxes": """no field 'boxes'; several objects are several prompts: {"prompts": [{"box": [...]}, {"box": [...]}]}""",
}
_INLINE = ("Prompt", "OutputOptions", "PointGrid")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class Places:
    """Where in what the caller wrote a message's fields came from."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}

    def note(self, field: str, place: str) -> None:
        """Says that a field of the message came from a place that is called otherwise."""
        if field != place:
            self._places[field] = place

    def of(self, field: str) -> str:
        """A field's path as the caller wrote it."""
        for end in range(len(field), 0, -1):
            whole = end == len(field) or field[end] in ".["
            if whole and (place := self._places.get(field[:end])) is not None:
                return f"{place}{field[end:]}".removeprefix(".")
        return field

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Renames the field of a server's error."""
        try:
            yield
        except MaskwireError as error:
            error.field = self.of(error.field)
            raise


def read_message(data: str | bytes, kind: type[AMessage]) -> tuple[AMessage, Places]:
    """Reads JSON as a message; nothing at all is an empty object.

    Raises:
        Problem: BAD_JSON, with the path of what is wrong: not JSON, no such field, or a value of another type.
    """
    message, reader = kind(), _Reader("BAD_JSON")
    reader.fill(message, load(data), "", "")
    return message, reader.places


async def read_body(data: bytes, kind: type[AMessage]) -> tuple[AMessage, Places]:
    """As `read_message`, of a request's body."""
    if len(data) < LARGE_BYTES:
        return read_message(data, kind)
    return await asyncio.to_thread(read_message, data, kind)


def read_parameters(values: Mapping[str, str], kind: type[AMessage]) -> AMessage:
    """Reads texts as a message's fields: parameters of a query or parts of a form, whose names were checked.

    Raises:
        Problem: BAD_PARAMETER: a value has another type.
    """
    message, reader = kind(), _Reader("BAD_PARAMETER")
    descriptor: Any = kind.DESCRIPTOR  # the stubs have two kinds of descriptors
    for name, value in values.items():
        field = descriptor.fields_by_name[name]
        if value or field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            reader.put(message, field, _typed(field, value), name, name)
    return message


def names_of(message: Descriptor) -> dict[str, FieldDescriptor | None]:
    """What a message's JSON may hold without what stands inline: names of fields; None is for what is no field."""
    return dict(_names(message))


def inline_of(message: Descriptor) -> list[tuple[FieldDescriptor, Descriptor]]:
    """The fields of a message whose own fields may stand in it."""
    return [
        (field, field.message_type)
        for field in message.fields
        if field.message_type is not None and field.message_type.name in _INLINE
    ]


@functools.cache
def _names(message: Descriptor) -> dict[str, FieldDescriptor | None]:
    names: dict[str, FieldDescriptor | None] = {field.name: field for field in message.fields}
    if message.name == "Prompt":
        names[LABELS] = None
    names |= {alias: names[name] for alias, name in _ALIASES.get(message.name, {}).items()}
    return names


@functools.cache
def _camel(message: Descriptor) -> dict[str, str]:
    return {field.json_name: field.name for field in message.fields}


@functools.cache
def _all_names(message: Descriptor) -> frozenset[str]:
    """With those that stand inline, as they are written in .proto files."""
    return frozenset(_names(message)).union(*(_names(inner) for _, inner in inline_of(message)))


class _Reader:
    """Fills messages.

    Args:
        reason: Of errors.
    """

    def __init__(self, reason: str) -> None:
        self.places = Places()
        self._reason = reason

    def fill(self, message: Message, value: Any, path: str, inner: str) -> None:
        """Fills a message.

        Args:
            message: An empty one.
            value: JSON.
            path: Of the value, in the caller's words.
            inner: Of the message.
        """
        descriptor: Any = message.DESCRIPTOR
        compact = COMPACT.get(descriptor.name)
        if compact and isinstance(value, list) and len(value) == len(compact):
            for index, (name, part) in enumerate(zip(compact, value, strict=True)):
                self.put(message, descriptor.fields_by_name[name], part, f"{path}[{index}]", join(inner, name))
        elif isinstance(message, types_pb2.Logits) and isinstance(value, list):
            self._fill_logits(message, value, path)
        elif isinstance(value, dict):
            self._fill_members(message, value, path, inner)
        else:
            self._refuse(path, _expected(descriptor), value)

    def _fill_members(self, message: Message, members: Mapping[str, Any], path: str, inner: str) -> None:
        descriptor: Any = message.DESCRIPTOR
        own, seen = dict[str, Any](), dict[FieldDescriptor | None, str]()
        inline: list[tuple[FieldDescriptor, dict[str, Any]]] = [(field, {}) for field, _ in inline_of(descriptor)]
        for name, part in members.items():
            known = _camel(descriptor).get(name, name)
            if known in _names(descriptor):
                own[name] = part
                continue
            holder = next((part for part in inline if name in _names(part[0].message_type)), None)
            if holder is None:
                said = _INSTEAD.get(name) or no_such("field", name, _all_names(descriptor))
                self._fail(join(path, name), said)
            holder[1][name] = part
        for field, parts in inline:
            if parts:
                name = next(iter(parts))
                if own.get(field.name) is not None:
                    place = join(path, f"{field.name}[0]" if field.is_repeated else field.name)
                    self._fail(join(path, name), f"{field.name} is there too; move {name} to {place}")
                target = getattr(message, field.name)
                deeper = join(inner, f"{field.name}[0]" if field.is_repeated else field.name)
                self.places.note(deeper, path)
                self.fill(target.add() if field.is_repeated else target, parts, path, deeper)
        labels: tuple[str, Any] | None = None
        for name, part in own.items():
            if part is None:
                continue  # as if it were not there
            field_ = _names(descriptor)[_camel(descriptor).get(name, name)]
            here = join(path, name)
            if field_ in seen:
                self._fail(here, f"it means the same as {seen[field_]}; give one of them")
            seen[field_] = name
            if field_ is None:
                labels = here, part
            else:
                self.put(message, field_, part, here, join(inner, field_.name))
        if labels is not None:
            self._fill_labels(message, *labels, inner)

    def put(self, message: Message, field: FieldDescriptor, value: Any, path: str, inner: str) -> None:
        """Sets a field; arguments as of `fill`."""
        self.places.note(inner, path)
        if field.containing_oneof is not None and (other := message.WhichOneof(field.containing_oneof.name)):
            self._fail(path, f"{other} is there too; send one of them")
        if not field.is_repeated:
            if field.message_type is not None:
                part: Message = getattr(message, field.name)
                part.SetInParent()
                self.fill(part, value, path, inner)
            else:
                setattr(message, field.name, self._value(field, value, path))
            return
        if field.enum_type is not None and isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            self._refuse(path, "a list", value)
        target = getattr(message, field.name)
        for index, item in enumerate(value):
            if field.message_type is not None:
                self.fill(target.add(), item, f"{path}[{index}]", f"{inner}[{index}]")
            else:
                target.append(self._value(field, item, f"{path}[{index}]"))

    def _fill_labels(self, message: Any, path: str, value: Any, inner: str) -> None:
        if not isinstance(value, list):
            self._refuse(path, "a list of 1 (inside the object) and 0 (outside)", value)
        if len(value) != len(message.points):
            self._fail(path, f"{len(value)} labels for {len(message.points)} points; give one for each")
        for index, (label, point) in enumerate(zip(value, message.points, strict=True)):
            if point.HasField("label"):
                self._fail(f"{path}[{index}]", "the point has a label of its own; give one of them")
            self.put(
                point,
                point.DESCRIPTOR.fields_by_name["label"],
                label,
                f"{path}[{index}]",
                join(inner, f"points[{index}].label"),
            )

    def _fill_logits(self, message: types_pb2.Logits, rows: list[Any], path: str) -> None:
        """Rows of numbers, or a list of one such mask as SAM2ImagePredictor has it."""
        expected = "rows of finite numbers, SxS or 1xSxS"
        try:
            logits = np.array(rows, np.float32)
        except (ValueError, TypeError, OverflowError):
            self._refuse(path, expected, rows)
        if logits.ndim == 3 and len(logits) == 1:
            logits = logits[0]
        if logits.ndim != 2 or not np.isfinite(logits).all():
            self._refuse(path, expected, rows)
        message.height, message.width = logits.shape
        message.data_type = types_pb2.DATA_TYPE_FP32
        message.data = logits.astype("<f4").tobytes()

    def _value(self, field: FieldDescriptor, value: Any, path: str) -> Any:
        try:
            return read_value(field, value)
        except WrongValue as error:
            self._fail(path, str(error))

    def _refuse(self, path: str, expected: str, value: Any) -> NoReturn:
        self._fail(path, f"expected {expected}, got {shown(value)}")

    def _fail(self, path: str, said: str) -> NoReturn:
        raise Problem(400, f"{path or 'the request'}: {said}", self._reason, path)


def _expected(message: Descriptor) -> str:
    names = ", ".join(field.name for field in message.fields)
    if message.name in COMPACT:
        values = ", ".join(name.removesuffix("_px") for name in COMPACT[message.name])
        return f"[{values}] or an object with {names}"
    return f"an object with {names}" if 0 < len(message.fields) <= 8 else "an object"


def _typed(field: FieldDescriptor, value: str) -> Any:
    """A parameter's text as JSON would have it; what cannot be is left to be refused."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _FLAGS.get(value.lower(), value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING or field.enum_type is not None:
        return value
    try:
        return (
            float(value)
            if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
            else int(value)
        )
    except ValueError:
        return value


def check_names(given: Sequence[str], known: Iterable[str], kind: str = "parameter") -> None:
    """Refuses names that do not exist, or that are given twice.

    Args:
        given: Names, each as often as it was given.
        known: Those that there are.
        kind: What they are, for the error.

    Raises:
        Problem: BAD_PARAMETER.
    """
    names = set(known)
    for name in given:
        if name not in names:
            said = no_such(kind, name, names) if names else f"no {kind} {name!r}; there are none here"
            raise Problem(400, said, "BAD_PARAMETER", name)
        if given.count(name) > 1:
            raise Problem(400, f"{name}: it is given twice", "BAD_PARAMETER", name)
