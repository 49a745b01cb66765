"""Frames of WebSockets: messages as JSON in text frames, in protobuf's form in binary ones."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from maskwire import InvalidRequest, MaskwireError, Overloaded, ServerUnavailable
from maskwire.transport import to_status
from maskwire.v1 import decoder_pb2, tracker_pb2
from maskwire_core.http.large_json import LARGE_BYTES, in_turn, memory_of_values
from maskwire_core.http.memory import Held
from maskwire_core.http.problems import RETRY_S, Problem
from maskwire_core.http.sockets import drained
from maskwire_core.runtime.in_thread import in_thread
from starlette.websockets import WebSocket

from maskwire_gateway.rest.json_codec import text
from maskwire_gateway.rest.message_reader import Places, read_body

Request = TypeVar("Request", decoder_pb2.SegmentStreamRequest, tracker_pb2.TrackRequest)

PROTOCOL = "maskwire.v1"
"""The subprotocol of both."""

MAX_REQUEST_ID = 128
"""Characters, as the servers allow."""

_COPIES = 2  # of a frame: as it came and as a message, then as a message and as bytes that are sent to a server


class BadFrame(Exception):
    """A frame that is not the message that it should be, or for which there is no memory.

    Attributes:
        error: What is wrong.
        request_id: The request_id of the frame, as far as it can be read.
    """

    def __init__(self, error: MaskwireError, request_id: str = "") -> None:
        super().__init__(str(error))
        self.error = error
        self.request_id = request_id


async def hold_frame(frame: str | bytes, memory: Held) -> int:
    """Counts the memory that a frame takes while it is passed on. Returns how many bytes that is.

    Raises:
        BadFrame: TOO_MUCH_IN_PROGRESS: there is not as much for what is in it now. TOO_MANY_VALUES: there never is.
    """
    is_wide = isinstance(frame, str) and not frame.isascii()
    size = _COPIES * len(frame) * (4 if is_wide else 1)
    memory.add(size)  # it is there already, also while its values are counted
    if isinstance(frame, bytes):
        return size
    try:
        values = await memory_of_values(frame)
        if not memory.fits(values):
            raise await _no_room(frame, memory.could_fit(values))
    except BaseException:
        memory.give_back(size)
        raise
    memory.add(values)
    return size + values


async def _no_room(frame: str, could_fit: bool) -> BadFrame:
    """The refusal of a frame whose values would take more memory than there is now, or ever."""
    name = await _request_id(frame) if len(frame) < LARGE_BYTES else ""
    if not could_fit:
        said = "the values of the frame would take more memory than one frame may have; send fewer at once"
        return BadFrame(Overloaded(said, "TOO_MANY_VALUES"), name)
    said = "requests in progress take all the memory that this frame may have; send smaller ones, or try again"
    return BadFrame(Overloaded(said, "TOO_MUCH_IN_PROGRESS", retry_after_s=RETRY_S), name)


async def read_frame(frame: str | bytes, kind: type[Request]) -> tuple[Request, Places]:
    """Reads a frame as a request.

    Raises:
        BadFrame: It is none, or its name is too long.
    """
    try:
        if isinstance(frame, bytes):
            request, places = kind.FromString(frame), Places()
        else:
            request, places = await read_body(frame, kind)
    except DecodeError as error:
        raise BadFrame(InvalidRequest(f"the frame is no {kind.__name__}", "BAD_FRAME")) from error
    except Problem as problem:
        wrong = InvalidRequest(problem.message, "BAD_FRAME", problem.field)
        raise BadFrame(wrong, await _request_id(frame)) from problem
    if len(request.request_id) > MAX_REQUEST_ID:
        said = f"request_id is longer than {MAX_REQUEST_ID} characters, the first of which the answer repeats"
        raise BadFrame(InvalidRequest(said, "BAD_REQUEST_ID", await places.find("request_id")), request.request_id)
    return request, places


def event_frame(event: Mapping[str, Any]) -> str | bytes:
    """The frame that an event of a WebSocket brought."""
    frame = event["text"] if event.get("bytes") is None else event["bytes"]
    assert isinstance(frame, str | bytes)
    return frame


async def send_frame(socket: WebSocket, message: Message, is_binary: bool) -> None:
    """Sends a message, and waits until the other end has read what was sent."""
    if is_binary:
        await socket.send_bytes(message.SerializeToString())
    elif message.ByteSize() >= LARGE_BYTES:
        await socket.send_text(await in_thread(text, message))
    else:
        await socket.send_text(text(message))
    await drained(socket.scope)


def status_of(error: MaskwireError) -> Status:
    """An error as answers have it."""
    if isinstance(error, ServerUnavailable) and not error.retry_after_s:
        error.retry_after_s = RETRY_S
    return to_status(error)


async def _request_id(frame: str | bytes) -> str:
    """The request_id of a frame that is otherwise wrong; empty where none can be read."""
    try:
        members = await in_turn(json.loads, frame)
    except (Problem, ValueError, RecursionError):
        return ""
    name = members.get("request_id", members.get("requestId")) if isinstance(members, dict) else None
    return name if isinstance(name, str) and name.isprintable() else ""
