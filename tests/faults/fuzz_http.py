"""Sends damaged and random HTTP requests and WebSocket frames to a running gateway.

Schemathesis generates some of them, valid and invalid, from the gateway's OpenAPI document. The others are valid
requests with damaged bodies, queries, paths and headers.
"""

import asyncio
import base64
import contextlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import requests
import schemathesis
import websockets
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from maskwire.v1 import decoder_pb2, tracker_pb2
from schemathesis import Case, GenerationMode

from testing.wire import picture

from .fuzz_messages import clicked, conversation, track
from .mutations import changed_json, mutated, random_message

_FINE = {200, 204, 400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 429, 504}
_UNSENDABLE = (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, UnicodeError, ValueError)
_TIMEOUT_S = 30
# What is no HTTP is answered with 400 at once, and the answer is lost with the connection if more was being written.
_CUT_SHORT = "closed while being written"

_MULTIPART = "multipart/form-data; boundary=x"

Told = tuple[Counter[str], list[str]]
"""Counts of outcomes, and what went wrong."""
Request = tuple[str, str, Any]
"""Method, path with its query, and content: JSON, the bytes of a form or an image, or None."""


def by_schema(address: str, count: int, number: int) -> Told:
    """Sends requests to each route that follow its schema, and requests that violate it.

    Args:
        address: Address of the gateway.
        count: Number of requests to all routes.
        number: Seed.
    """
    outcomes, wrong = Counter[str](), list[str]()
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    each = -(-count // (len(modes) * len(operations)))
    with requests.Session() as session:
        for operation in operations:
            for mode in modes:

                @seed(number)
                @settings(
                    max_examples=each,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=operation.as_strategy(generation_mode=mode))
                def ask(case: Case) -> None:
                    try:
                        answer = case.call(base_url=address, session=session, timeout=_TIMEOUT_S)
                    except _UNSENDABLE:
                        return
                    except requests.exceptions.ConnectionError:
                        outcomes[_CUT_SHORT] += 1
                        return
                    _tell(outcomes, wrong, f"{case.method} {answer.request.url}", answer)

                with contextlib.suppress(Unsatisfiable):  # where a route has nothing that could be wrong
                    ask()
    return outcomes, wrong


def to_gateway(large: str) -> list[Request]:
    """Returns requests that a gateway answers. There is an image named "fuzz", and one named "fuzz-large", of 600 x 400
    pixels, whose content key is given and whose file is kept."""
    image = {"type": "base64", "value": base64.b64encode(picture(400)).decode()}
    points = [{"x": 30, "y": 20, "positive": True}]
    prompt = {"points": [{"x_px": 30, "y_px": 20, "label": 1}], "box": {"x_max_px": 50, "y_max_px": 35}}
    small = {"points": [{"x_px": 300, "y_px": 200}]}
    of = f"region_of={large}&from_source=true"
    return [
        ("POST", "/v1/images/fuzz-large/segment", {**small, "region": "auto"}),
        ("POST", "/v1/images/fuzz-large/segment", {"prompts": [small, prompt], "region": "auto", "candidates": "all"}),
        ("POST", "/v1/images/fuzz-large/segment", {**small, "region": [200, 100, 456, 356], "formats": ["rle"]}),
        ("POST", f"/v1/images?image_id=region&region=10,20,310,320&{of}", None),
        ("POST", "/sam2/embed_image", {"image": image, "image_id": "fuzz-http"}),
        ("POST", "/sam2/segment_image", {"image": image, "sam2_version_id": "hiera_tiny", "prompts": points}),
        (
            "POST",
            "/sam2/segment_image",
            {"image_id": "fuzz-http", "format": "rle", "prompts": {"prompts": [{"points": points}]}},
        ),
        ("POST", "/sam3/embed_image", {"image": image, "image_id": "fuzz-http"}),
        (
            "POST",
            "/sam3/visual_segment",
            {"image_id": "fuzz-http", "point_coords": [[30, 20]], "point_labels": [1], "format": "binary"},
        ),
        ("POST", "/sam3/concept_segment", {"image": image, "prompts": [{"type": "text", "text": "a cup"}]}),
        ("GET", "/info", None),
        ("GET", "/model/registry?api_key=x", None),
        ("POST", "/model/add", {"model_id": "sam2/hiera_tiny", "model_type": "core", "api_key": ""}),
        ("POST", "/model/remove", {"model_id": "sam2/hiera_tiny"}),
        ("POST", "/model/clear", None),
        ("POST", "/v1/images?image_id=sent", picture(400)),
        ("POST", "/v1/images/fuzz/segment", {"prompts": [prompt]}),
        ("POST", "/v1/images/fuzz/masks", {"grid": {"points_per_side": 2}}),
        ("GET", "/v1/images/fuzz", None),
        ("DELETE", "/v1/images/sent", None),
        ("GET", "/v1/models", None),
        ("POST", "/v1/clips?clip_id=fuzz&frames=2&width_px=60&height_px=40", _form(picture(400), picture(401))),
        ("DELETE", "/v1/clips/sent", None),
        ("GET", "/v1/tracks/fuzz", None),
        ("DELETE", "/v1/tracks/sent", None),
    ]


class Requests:
    """A source of damaged requests.

    Args:
        pick: Source of random choices.
        real: Requests as they should be.
    """

    def __init__(self, pick: random.Random, real: Sequence[Request]) -> None:
        self._pick = pick
        self._real = real

    def next(self) -> tuple[str, str, dict[str, str], bytes]:
        """Returns the method, the path with its query, the headers and the body of a request."""
        pick = self._pick
        method, path, content = pick.choice(self._real)
        headers = {"content-type": "application/json"}
        if isinstance(content, bytes):
            body = mutated(pick, content)
            headers["content-type"] = pick.choice(("image/png", "application/octet-stream", _MULTIPART, _MULTIPART))
        elif content is None:
            body = b""
        elif pick.random() < 0.6:
            body = json.dumps(changed_json(pick, content)).encode()
        else:
            body = mutated(pick, json.dumps(content).encode())
        match pick.randrange(12):
            case 0:
                headers["content-type"] = pick.choice(
                    ("", "text/plain", "multipart/form-data", "a" * 5000, "image/png")
                )
            case 1:
                path += pick.choice(
                    ("?", "&", "?namespace=%00", "?model=x", "/..", "%2e%2e", "?image_id=" + "a" * 9000, "%ff")
                )
            case 2:
                method = pick.choice(("PUT", "PATCH", "HEAD", "OPTIONS", "GET", "POST", "BREW"))
            case 3:
                headers[pick.choice(("authorization", "x-request-id", "traceparent", "origin", "accept"))] = (
                    pick.choice(("Bearer x", "a b", "00-0-0-0", "null", "*/*;q=x", "x" * 3000))
                )
            case 4:
                headers["content-encoding"] = pick.choice(("gzip", "br", "x"))
        return method, path, headers, body


async def send_requests(address: str, pick: random.Random, count: int, real: Sequence[Request]) -> Told:
    """Sends damaged requests, eight at a time."""
    outcomes, wrong = Counter[str](), list[str]()
    made = Requests(pick, real)

    async def sender(number: int) -> None:
        for _ in range(number, count, 8):
            method, path, headers, body = made.next()
            try:
                answer = await client.request(method, path, headers=headers, content=body)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                outcomes[_CUT_SHORT] += 1
                continue
            _tell(outcomes, wrong, f"{method} {path[:200]} {body[:300]!r}", answer)

    async with httpx.AsyncClient(base_url=address, timeout=_TIMEOUT_S) as client:
        await asyncio.gather(*(sender(number) for number in range(8)))
    return outcomes, wrong


async def send_frames(address: str, pick: random.Random, count: int) -> Told:
    """Sends damaged and random frames of both kinds of sockets, half of each."""
    asked = decoder_pb2.SegmentStreamRequest(set_image=decoder_pb2.SetImage(image_id="fuzz"))
    segments = _Talk("/v1/stream", conversation(), asked, decoder_pb2.SegmentStreamResponse)
    tracks = [_Talk("/v1/track", track(of_clip), clicked(""), tracker_pb2.TrackResponse) for of_clip in (True, False)]
    outcomes, wrong = Counter[str](), list[str]()
    for talk, share in ((segments, count // 2), (tracks[0], count // 4), (tracks[1], count - count // 2 - count // 4)):
        outcomes[talk.path] += share
        wrong += await _send_frames(address, pick, share, talk)
    return outcomes, wrong


@dataclass(frozen=True)
class _Talk:
    """What is sent on a WebSocket."""

    path: str
    real: Sequence[Message]  # the first of them opens it
    last: Message  # is answered, whatever came before
    answers: type[Message]


async def _send_frames(address: str, pick: random.Random, count: int, talk: _Talk) -> list[str]:
    """Sends damaged frames, after the first, which is whole. The gateway must answer a last valid request, or close
    with a reason. Returns what went wrong."""
    wrong, sent = list[str](), 0
    while sent < count:
        async with websockets.connect(f"ws{address[4:]}{talk.path}", max_size=None, open_timeout=_TIMEOUT_S) as socket:
            await socket.send(talk.real[0].SerializeToString())
            for _ in range(min(20, count - sent)):
                message = type(talk.last)()
                message.CopyFrom(pick.choice(talk.real))
                if pick.random() < 0.5:
                    random_message(pick, message)
                await socket.send(mutated(pick, message.SerializeToString()))
                sent += 1
            last = type(talk.last)()
            last.CopyFrom(talk.last)
            last.request_id, last.masks_seen = "alive", 1_000_000  # so that nothing more waits for this reader
            await socket.send(last.SerializeToString())
            try:
                await asyncio.wait_for(_until_answered(socket, talk.answers), _TIMEOUT_S)
            except (TimeoutError, websockets.ConnectionClosed) as error:
                wrong.append(f"{talk.path} ended: {type(error).__name__}: {error}")
    return wrong


async def _until_answered(socket: websockets.ClientConnection, answers: type[Any]) -> None:
    async for frame in socket:
        assert isinstance(frame, bytes)
        if answers.FromString(frame).request_id == "alive":
            return


def _form(*files: bytes) -> bytes:
    """Returns the frames of a clip as a form whose boundary is "x"."""
    head = b'--x\r\nContent-Disposition: form-data; name="frame"; filename="a"\r\n\r\n'
    return b"".join(head + file + b"\r\n" for file in files) + b"--x--\r\n"


def _tell(outcomes: Counter[str], wrong: list[str], asked: str, answer: Any) -> None:
    """Counts a response of httpx or requests. A 503 is fine if it has Retry-After."""
    code = answer.status_code
    outcomes[str(code)] += 1
    if code not in _FINE and not (code == 503 and "retry-after" in answer.headers):
        wrong.append(f"{asked} answered {code}: {answer.text[:200]}")
