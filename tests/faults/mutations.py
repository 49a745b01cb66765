"""Damages bytes and JSON, and fills messages with random values."""

import random
import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_SPECIAL_FLOATS = [0.0, -0.0, 1.0, -1.0, 1e30, -1e30, 1e-30, float("nan"), float("inf"), float("-inf"), 0.5, 31.5]
_SPECIAL_INTS = [0, 1, 2, 3, 127, 128, 255, 256, 65_535, 2**31 - 1]
_ODD: list[Any] = [None, True, 0, -1, 1e308, "", "fuzz", "\0", "é" * 200, [], {}, [[]], {"a": [1]}, 2**63, "NaN", -0.5]
_NAMES = ["", "fuzz", "another", "a" * 300, "\0", "é}{", "../../x", "object-1"]


def mutated(pick: random.Random, data: bytes) -> bytes:
    """Returns the bytes with a few changes: flipped bits, overwritten, cut or repeated parts, or extreme lengths."""
    changed = bytearray(data)
    for _ in range(pick.choice((1, 1, 2, 4, 16))):
        if not changed:
            break
        at = pick.randrange(len(changed))
        match pick.randrange(7):
            case 0:
                changed[at] ^= 1 << pick.randrange(8)
            case 1:
                changed[at] = pick.randrange(256)
            case 2:
                del changed[at : at + pick.choice((1, 4, 100, len(changed)))]
            case 3:
                piece = changed[at : at + pick.choice((1, 4, 100))]
                changed[at:at] = piece * pick.choice((1, 2, 20))
            case 4:
                extreme = pick.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 65_535))
                changed[at : at + 4] = struct.pack(pick.choice((">I", "<I")), extreme)
            case 5:
                changed[at : at + pick.choice((1, 8, 64))] = pick.randbytes(pick.choice((1, 8, 64)))
            case 6:
                at = pick.randrange(min(len(changed), 128))  # where formats say what they are
                changed[at] = pick.randrange(256)
    return bytes(changed)


def changed_json(pick: random.Random, value: Any, chance: float = 0.3, most: int = 40) -> Any:
    """Returns a JSON value with some parts replaced, left out or added, and lists repeated `most` times at most."""
    if pick.random() < chance / 3:
        return pick.choice(_ODD)
    if isinstance(value, dict):
        changed = {
            name: changed_json(pick, part, chance, most) for name, part in value.items() if pick.random() > chance / 5
        }
        if pick.random() < chance / 3:
            changed[pick.choice(("format", "output", "prompts", "image", "a", "multimask_output"))] = pick.choice(_ODD)
        return changed
    if isinstance(value, list):
        times = pick.choice((2, most)) if pick.random() < chance else 1
        return [changed_json(pick, part, chance, most) for part in value] * times
    return value


def random_message(pick: random.Random, message: Message, depth: int = 0) -> None:
    """Sets some fields of a message to ordinary and extreme values."""
    chosen: set[str] = set()
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is not None and field.containing_oneof.name in chosen:
            continue
        if pick.random() < (0.4 if depth < 4 else 0.9):
            continue
        if field.containing_oneof is not None:
            chosen.add(field.containing_oneof.name)
        if field.is_repeated:
            for _ in range(pick.choice((1, 1, 2, 3, 12))):
                if field.type == FieldDescriptor.TYPE_MESSAGE:
                    random_message(pick, getattr(message, field.name).add(), depth + 1)
                else:
                    getattr(message, field.name).append(_value(pick, field))
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(message, field.name).SetInParent()
            random_message(pick, getattr(message, field.name), depth + 1)
        else:
            setattr(message, field.name, _value(pick, field))


def damage_field(pick: random.Random, message: Message) -> None:
    """Changes one field that is set, at any depth: bytes and text as `mutated` does, numbers to others, and lists by an
    element that is missing or there twice."""
    found = [(field, value) for field, value in message.ListFields() if not field.is_repeated or len(value)]
    if not found:
        return
    field, value = pick.choice(found)
    if field.is_repeated:
        index = pick.randrange(len(value))
        if pick.random() < 0.2:
            value.append(value[index])
        elif pick.random() < 0.2:
            del value[index]
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            damage_field(pick, value[index])
        else:
            value[index] = _changed(pick, field, value[index])
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        damage_field(pick, value)
    else:
        setattr(message, field.name, _changed(pick, field, value))


def _changed(pick: random.Random, field: Any, value: Any) -> Any:
    if isinstance(value, bytes):
        return mutated(pick, value)
    if isinstance(value, str):
        return mutated(pick, value.encode()).decode("utf-8", pick.choice(("ignore", "replace")))
    return _value(pick, field)


def _value(pick: random.Random, field: Any) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return pick.choice((b"", pick.randbytes(32), pick.randbytes(2048)))
            return pick.choice(_NAMES)
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return pick.choice((*_SPECIAL_FLOATS, pick.uniform(-10, 70), pick.uniform(0, 30)))
        case FieldDescriptor.CPPTYPE_BOOL:
            return pick.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return pick.randrange(8)
    value = pick.choice((*_SPECIAL_INTS, pick.randrange(100)))
    if field.name in ("wait_ms", "points_per_side", "points_per_batch", "crop_n_layers"):
        return pick.choice((0, 1, 2, 2**31 - 1))  # what is allowed may take long, which is no mistake
    return value
