"""Counts the fields of a message, before it is parsed: an empty message within another has two bytes on the wire, and a
hundred in memory."""

from functools import cache
from typing import Any

from google.protobuf.message import Message

MOST_FIELDS = 100_000
"""Fields that a message may have, counting each part of a repeated one. The largest that decoders answer have half."""

FIELD_BYTES = 96
"""Memory that a field takes beside its bytes on the wire, at most: that of an empty message."""

_TINY = 1 << 12  # bytes of one whose memory is not counted, but taken to be the most that it could be

_VARINT, _FIXED64, _BYTES, _FIXED32, _GROUPS = 0, 1, 2, 5, (3, 4)

_Inner = dict[int, Any]
"""By number the fields of a message type that are messages themselves, each with its own such fields."""


def count_fields(data: bytes, kind: Any, most: int = MOST_FIELDS) -> int:
    """Counts the fields of a serialized message.

    Args:
        data: The message. If it is damaged, the part before the damage is counted.
        kind: Its descriptor.
        most: Where to stop.

    Returns:
        The number of fields, at most `most`; 0 for a message of so few bytes that it does not matter.
    """
    return _count(data, kind, most) if len(data) > _TINY else 0


def memory_of_fields(nbytes: int, count: int) -> int:
    """Returns about how many bytes of memory a message takes, by its size on the wire and its `count_fields`."""
    return nbytes + FIELD_BYTES * count if nbytes > _TINY else nbytes * FIELD_BYTES // 2


def memory_of(message: Message) -> int:
    """Returns about how many bytes of memory a message takes."""
    data = message.SerializeToString()
    return memory_of_fields(len(data), count_fields(data, message.DESCRIPTOR))


def _count(data: bytes, kind: Any, most: int) -> int:
    """Returns the number of fields up to the first damage, and at most `most`."""
    count = 0
    waiting = [(0, len(data), _inner(kind))]
    try:
        while waiting:
            at, end, inner = waiting.pop()
            while at < end:
                count += 1
                if count == most:
                    return count
                tag, at = _varint(data, at)
                wire = tag & 7
                if wire == _BYTES:
                    size, at = _varint(data, at)
                    below = inner.get(tag >> 3)
                    if below:
                        waiting.append((at, min(at + size, end), below))
                    at += size
                elif wire == _VARINT:
                    _, at = _varint(data, at)
                elif wire in (_FIXED64, _FIXED32):
                    at += 8 if wire == _FIXED64 else 4
                elif wire not in _GROUPS:
                    return count  # the parser will say so
    except IndexError:  # it ends within a number
        return count
    return count


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            return value, at + 1
        shift += 7


@cache
def _inner(kind: Any) -> _Inner:
    """Returns what must be looked into: messages that hold messages. Those of plain values count as one field."""
    found: _Inner = {}
    _fill(found, kind, {})
    return found


def _fill(found: _Inner, kind: Any, known: dict[str, _Inner]) -> None:
    known[kind.full_name] = found
    for field in kind.fields:
        inner = field.message_type
        if inner is None:
            continue
        if inner.full_name not in known:
            _fill({}, inner, known)
        if any(each.message_type is not None for each in inner.fields):
            found[field.number] = known[inner.full_name]
