"""Messages read from JSON and query parameters, with errors in the words of whoever wrote them.

JSON is protobuf's mapping of the messages with the fields' own names or their camelCase. Besides:

- a Point may be [x, y], a Box [x_min, y_min, x_max, y_max], Logits a list of rows;
- labels of points may stand beside them, as `labels`;
- an enum's value may be its last word in any case: "png" for MASK_FORMAT_PNG;
- fields of the first prompt, of the output options and of the point grid may stand in the message that holds them;
- some fields have SAM2ImagePredictor's names, too (`_ALIASES`);
- a SegmentRequest and the prompts of a stream may have what is no field of them and for the gateway itself (`BESIDE`).
"""

import contextlib
import functools
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from maskwire import MaskwireError
from maskwire.suggest import no_such
from maskwire.v1 import types_pb2
from maskwire_core.http.large_json import in_turn
from maskwire_core.http.problems import Problem

from maskwire_gateway.rest.json_codec import join, load
from maskwire_gateway.rest.json_values import WrongValue, read_logits, read_parameter, read_value, shown

AMessage = TypeVar("AMessage", bound=Message)

COMPACT = {"Point": ("x_px", "y_px"), "Box": ("x_min_px", "y_min_px", "x_max_px", "y_max_px")}
"""Messages that a list of numbers may stand for, and the fields that the numbers are."""

LABELS = "labels"
"""What the JSON of a message with points has besides its fields: the labels of its points, in their order."""

BESIDE: Mapping[str, Sequence[str]] = {"SegmentRequest": ("region",), "StreamPrompts": ("region",)}
"""What the JSON of messages has besides, which is not checked here but returned with `Places`."""

_ALIASES = {
    "Prompt": {"point_coords": "points", "point_labels": LABELS, "mask_input": "mask"},
    "TrackPoints": {"point_coords": "points", "point_labels": LABELS},
    "OutputOptions": {"multimask_output": "multimask"},
    "GenerateMasksRequest": {"multimask_output": "multimask"},
}
_LABELS = (LABELS, "point_labels")
_POINTED = ("Prompt", "TrackPoints")  # messages that have them
_INSTEAD = {
    "boxes": """no field 'boxes'; several objects are several prompts: {"prompts": [{"box": [...]}, {"box": [...]}]}""",
}
_INLINE = ("Prompt", "OutputOptions", "PointGrid")


class Member(NamedTuple):
    """What a name in a message's JSON stands for."""

    field: str  # name of a field of the message or of its `holder`, or `LABELS`
    holder: str = ""  # name of the message's field whose own field it is; empty: the message's


@functools.cache
def members_of(message: Descriptor) -> Mapping[str, Member]:
    """The names that a message's JSON may have, in the spelling of .proto files."""
    members = {name: Member(name) for name in (*(each.name for each in message.fields), *BESIDE.get(message.name, ()))}
    if message.name in _POINTED:
        members[LABELS] = Member(LABELS)
    members |= {alias: members[name] for alias, name in _ALIASES.get(message.name, {}).items()}
    for holder in message.fields:
        if holder.message_type is not None and holder.message_type.name in _INLINE:
            for name, member in members_of(holder.message_type).items():
                members.setdefault(name, Member(member.field, holder.name))
    return members


@functools.cache
def _camel_case(message: Descriptor) -> Mapping[str, str]:
    return {field.json_name: field.name for field in message.fields}


def _member(message: Descriptor, name: str) -> Member | None:
    """What a name in a message's JSON stands for, in either spelling; None if there is no such name."""
    return members_of(message).get(_camel_case(message).get(name, name))


class Places:
    """Where in the caller's JSON the fields of a message came from.

    The JSON is read again when a server names a field, large JSON in its turn: to note the place of each would take
    many times its memory. Whoever keeps this counts what it takes then, `memory_of_values`.

    Args:
        data: The JSON; empty for a message that was not JSON, whose fields are called by their own names.
        kind: What it was read as.
        beside: What it has besides.

    Attributes:
        beside: As given, by name (`BESIDE`).
    """

    def __init__(
        self, data: str | bytes = b"", kind: type[Message] = Message, beside: Mapping[str, Any] | None = None
    ) -> None:
        self._data = data
        self._kind = kind
        self.beside = beside or {}

    async def find(self, field: str) -> str:
        """The path of a message's field as the caller wrote it."""
        return await in_turn(self._find, self._data, field) if field and self._data else field

    def _find(self, data: str | bytes, field: str) -> str:
        message: Any = self._kind.DESCRIPTOR
        value = load(data)
        place = label = ""
        for step in re.finditer(r"(\w+)(?:\[(\d+)\])?", field):
            name, index = step.groups()
            if name in BESIDE.get(message.name, ()):
                return join(place, name)
            if isinstance(value, list) and name in COMPACT.get(message.name, ()):
                return f"{place}[{COMPACT[message.name].index(name)}]"
            given = value.items() if isinstance(value, dict) else ()
            keys = {_member(message, key): key for key, part in given if part is not None}
            if Member(name) in keys:
                if Member(LABELS) in keys:
                    label = f"{join(place, keys[Member(LABELS)])}[{index}]"
                place, value = join(place, keys[Member(name)]), value[keys[Member(name)]]
                if index is not None:
                    items = value if isinstance(value, list) else []
                    place, value = f"{place}[{index}]", items[int(index)] if int(index) < len(items) else None
            elif name == "label" and label:
                return label
            elif not any(member and member.holder == name for member in keys):
                return join(place, field[step.start() :])
            message = message.fields_by_name[name].message_type
        return place

    @contextlib.asynccontextmanager
    async def named(self) -> AsyncIterator[None]:
        """Puts the caller's path into errors of the servers that the body of `with` raises."""
        try:
            yield
        except MaskwireError as error:
            error.field = await self.find(error.field)
            raise


def read_message(data: str | bytes, kind: type[AMessage]) -> tuple[AMessage, Places]:
    """Reads JSON as a message; an empty text is an empty object.

    Raises:
        Problem: BAD_JSON, with the path of what is wrong: a field that does not exist, or a value of another type.
    """
    message, reader = kind(), _Reader("BAD_JSON")
    reader.read(message, load(data), "")
    return message, Places(data, kind, reader.beside)


async def read_body(data: str | bytes, kind: type[AMessage]) -> tuple[AMessage, Places]:
    """Reads a body or a frame as `read_message` does, a large one in another thread, in its turn (`in_turn`).

    Raises:
        Problem: BAD_JSON or TOO_MANY_VALUES.
    """
    return await in_turn(read_message, data, kind)


def read_parameters(values: Mapping[str, str], kind: type[AMessage]) -> AMessage:
    """Reads parameters of a query or parts of a form as a message's fields. Their names must have been checked."""
    message, reader = kind(), _Reader("BAD_PARAMETER")
    descriptor: Any = kind.DESCRIPTOR  # the stubs have two kinds of descriptors
    for name, value in values.items():
        field = descriptor.fields_by_name[name]
        if value or field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            reader.set_field(message, field, read_parameter(field, value), name)
    return message


class _Reader:
    """Reads JSON values into messages. Methods take a value's `path` in the caller's JSON.

    Args:
        reason: Reason of the errors.

    Attributes:
        beside: What was there besides fields, by name (`BESIDE`).
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self.beside: dict[str, Any] = {}

    def read(self, message: Message, value: Any, path: str) -> None:
        """Reads a value into an empty message."""
        descriptor: Any = message.DESCRIPTOR
        compact = COMPACT.get(descriptor.name)
        if compact and isinstance(value, list) and len(value) == len(compact):
            for index, (name, part) in enumerate(zip(compact, value, strict=True)):
                self.set_field(message, descriptor.fields_by_name[name], part, f"{path}[{index}]")
        elif isinstance(message, types_pb2.Logits) and isinstance(value, list):
            message.CopyFrom(self._checked(path, read_logits, value))
        elif isinstance(value, dict):
            self._read_members(message, value, path)
        else:
            self._refuse(path, _expected(descriptor), value)

    def _read_members(self, message: Message, members: Mapping[str, Any], path: str) -> None:
        descriptor: Any = message.DESCRIPTOR
        given: dict[Member, str] = {}
        held: dict[str, Any] = {"": message}  # messages, by the field that holds them
        # Labels are read last: they belong to points that must have been read.
        for name in sorted(members, key=lambda name: name in _LABELS):
            value, here = members[name], join(path, name)
            member = _member(descriptor, name)
            if member is None:
                self._fail(here, _INSTEAD.get(name) or no_such("field", name, members_of(descriptor)))
            if member.holder not in held:
                holder = descriptor.fields_by_name[member.holder]
                within = f"{holder.name}[0]" if holder.is_repeated else holder.name
                if any(members.get(other) is not None for other in (holder.name, holder.json_name)):
                    self._fail(here, f"{holder.name} is there too; move {name} to {join(path, within)}")
                target = getattr(message, holder.name)
                held[holder.name] = target.add() if holder.is_repeated else target
            if value is None:
                continue  # as if it were not there
            if member in given:
                self._fail(here, f"it means the same as {given[member]}; give one of them")
            given[member] = name
            target = held[member.holder]
            if member.field == LABELS:
                self._set_labels(target, value, here)
            elif member.field in BESIDE.get(descriptor.name, ()):
                self.beside[member.field] = value
            else:
                self.set_field(target, target.DESCRIPTOR.fields_by_name[member.field], value, here)

    def set_field(self, message: Message, descriptor: FieldDescriptor, value: Any, path: str) -> None:
        """Reads a value into a message's field."""
        oneof = descriptor.containing_oneof
        if oneof is not None and (other := message.WhichOneof(oneof.name)):
            self._fail(path, f"{other} is there too; send one of them")
        if not descriptor.is_repeated:
            if descriptor.message_type is not None:
                part: Message = getattr(message, descriptor.name)
                part.SetInParent()
                self.read(part, value, path)
            else:
                setattr(message, descriptor.name, self._checked(path, read_value, descriptor, value))
            return
        if descriptor.enum_type is not None and isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            self._refuse(path, "a list", value)
        target = getattr(message, descriptor.name)
        for index, item in enumerate(value):
            if descriptor.message_type is not None:
                self.read(target.add(), item, f"{path}[{index}]")
            else:
                target.append(self._checked(f"{path}[{index}]", read_value, descriptor, item))

    def _set_labels(self, prompt: Any, value: Any, path: str) -> None:
        if not isinstance(value, list):
            self._refuse(path, "a list of 1 (inside the object) and 0 (outside)", value)
        if len(value) != len(prompt.points):
            self._fail(path, f"{len(value)} labels for {len(prompt.points)} points; give one for each")
        label_field: Any = types_pb2.Point.DESCRIPTOR.fields_by_name["label"]
        for index, (label, point) in enumerate(zip(value, prompt.points, strict=True)):
            here = f"{path}[{index}]"
            if point.HasField("label"):
                self._fail(here, "the point has a label of its own; give one of them")
            self.set_field(point, label_field, label, here)

    def _checked(self, path: str, read: Any, *arguments: Any) -> Any:
        try:
            return read(*arguments)
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
