"""JSON values as the types of messages' fields."""

import json
import math
from typing import Any

import numpy as np
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from maskwire.suggest import no_such
from maskwire.v1 import types_pb2
from maskwire_core.http.images import decode_base64

_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_SHOWN = 60  # characters or items
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}
"""Least and largest values by type."""


class WrongValue(ValueError):
    """A value does not fit; the message says what was expected."""


def words_of(enum: EnumDescriptor) -> dict[str, int]:
    """An enum's values by their short words: "png" for MASK_FORMAT_PNG."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values if value.number}


def read_value(field: FieldDescriptor, value: Any) -> Any:
    """Reads a JSON value as a field's type.

    Raises:
        WrongValue: It has another type, or is out of the type's range.
    """
    if field.enum_type is not None:
        return _read_enum(field.enum_type, value)
    if field.cpp_type in _INTEGERS:
        return _read_integer(field.cpp_type, value)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            if not isinstance(value, bool):
                raise _wrong("true or false", value)
            return value
        case FieldDescriptor.CPPTYPE_STRING:
            return _read_bytes(value) if field.type == FieldDescriptor.TYPE_BYTES else _read_text(value)
    return _read_float(value, math.inf if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE else _LARGEST_FLOAT)


def read_parameter(field: FieldDescriptor, text: str) -> Any:
    """Reads a query parameter's text as JSON would have the value; a box is four numbers with commas between them. A
    text that does not fit is returned as it is."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _FLAGS.get(text.lower(), text)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING or field.enum_type is not None:
        return text
    try:
        if field.message_type is not None:
            return [float(number) for number in text.split(",")]
        return int(text) if field.cpp_type in _INTEGERS else float(text)
    except ValueError:
        return text


def read_logits(value: Any) -> types_pb2.Logits:
    """Reads rows of finite numbers, SxS, or a list of one such mask as SAM2ImagePredictor has it.

    Raises:
        WrongValue: The value has another shape, or numbers that are not finite.
    """
    try:
        logits = np.array(value, np.float32)
    except (ValueError, TypeError, OverflowError):
        logits = np.empty(0, np.float32)
    if logits.ndim == 3 and len(logits) == 1:
        logits = logits[0]
    if logits.ndim != 2 or not np.isfinite(logits).all():
        raise _wrong("rows of finite numbers, SxS or 1xSxS", value)
    height, width = logits.shape
    data = logits.astype("<f4").tobytes()
    return types_pb2.Logits(height=height, width=width, data_type=types_pb2.DATA_TYPE_FP32, data=data)


def _read_float(value: Any, largest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or abs(number) > largest:
        raise _wrong("a finite number", value)
    return number


def _read_integer(cpp_type: int, value: Any) -> int:
    least, largest = _INTEGERS[cpp_type]
    digits = value.removeprefix("-") if isinstance(value, str) else ""
    if largest >= 1 << 32 and digits.isascii() and digits.isdigit():  # protobuf's JSON has 64-bit integers as text
        value = int(value[:_SHOWN])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= largest:
        raise _wrong("a whole number" if least else "a whole number, not negative", value)
    return value


def _read_enum(enum: EnumDescriptor, value: Any) -> int:
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


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong("text", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise WrongValue("the text has half of a surrogate pair, which is no character") from error
    return value


def _read_bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        raise _wrong("base64", value)
    try:
        return decode_base64(value)
    except ValueError as error:
        raise _wrong("base64", value) from error


def _wrong(expected: str, value: Any) -> WrongValue:
    return WrongValue(f"expected {expected}, got {shown(value)}")


def shown(value: Any) -> str:
    """A value as errors show it: JSON, cut short."""
    if isinstance(value, dict | list) and len(value) > _SHOWN:
        value = type(value)()
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
