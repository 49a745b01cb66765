"""JSON values as the types of messages' fields."""

import base64
import json
import math
from typing import Any

import numpy as np
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from maskwire.suggest import no_such

_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_URL_SAFE = str.maketrans("-_", "+/")
_SHOWN = 60


class WrongValue(Exception):
    """A value does not fit; the message says what was expected."""


def words_of(enum: EnumDescriptor) -> dict[str, int]:
    """Short words for an enum's values: "png" for MASK_FORMAT_PNG."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values if value.number}


def read_value(field: FieldDescriptor, value: Any) -> Any:
    """A JSON value as a field takes it.

    Raises:
        WrongValue: It has another type, or is out of the type's range.
    """
    if field.enum_type is not None:
        return _enum(field.enum_type, value)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            if isinstance(value, bool):
                return value
            raise _wrong("true or false", value)
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return _number(field, value)
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return _bytes(value)
        case FieldDescriptor.CPPTYPE_STRING:
            return _text(value)
    return _whole(field, value)


def _number(field: FieldDescriptor, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    single = field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT
    if not math.isfinite(number) or (single and abs(number) > _LARGEST_FLOAT):
        raise _wrong("a finite number", value)
    return number


def _whole(field: FieldDescriptor, value: Any) -> int:
    long = field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
    bits = 64 if long else 32
    signed = field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
    if long and isinstance(value, str) and value.removeprefix("-").isascii() and value.removeprefix("-").isdigit():
        value = int(value[:_SHOWN])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _wrong("a whole number" if signed else "a whole number, not negative", value)
    return value


def _enum(enum: EnumDescriptor, value: Any) -> int:
    words = words_of(enum)
    if isinstance(value, str):
        if value.lower() in words:
            return words[value.lower()]
        if value in enum.values_by_name:
            return int(enum.values_by_name[value].number)
        raise WrongValue(no_such("value", value, words))
    if isinstance(value, int) and not isinstance(value, bool) and value in enum.values_by_number:
        return value
    raise _wrong(f"one of {', '.join(words)}", value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong("text", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise WrongValue("the text has half of a surrogate pair, which is no character") from error
    return value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        raise _wrong("base64", value)
    plain = value.translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError as error:
        raise _wrong("base64", value) from error


def _wrong(expected: str, value: Any) -> WrongValue:
    return WrongValue(f"expected {expected}, got {shown(value)}")


def shown(value: Any) -> str:
    """A value as an error shows it: JSON, cut short."""
    text = (
        json.dumps(value) if not isinstance(value, dict | list) or len(value) <= _SHOWN else json.dumps(type(value)())
    )
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
