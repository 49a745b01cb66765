"""/v1/clips and /v1/tracks: what TrackerService has beside the stream, as JSON."""

from typing import TypeVar

from google.protobuf.empty_pb2 import Empty
from maskwire import MaskwireError
from maskwire.transport import Caller
from maskwire.v1 import tracker_pb2 as pb
from maskwire_core.http.bodies import Bodies
from maskwire_core.http.problems import Problem
from starlette.requests import Request
from starlette.responses import Response

from maskwire_gateway.http.doorkeeper import bearer
from maskwire_gateway.http.routing import ERRORS, JSON, Json, Operation, fields_of
from maskwire_gateway.rest.frame_form import FrameForm
from maskwire_gateway.rest.json_codec import respond
from maskwire_gateway.rest.message_reader import read_parameters
from maskwire_gateway.upstream import Upstream

_FRAMES: Json = {
    "type": "object",
    "required": ["frame"],
    "properties": {
        "frame": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "description": "The file of each frame, in their order; JPEG is usual.",
        }
    },
}

Named = TypeVar("Named", pb.GetTrackRequest, pb.DeleteTrackRequest, pb.DeleteClipRequest)


class Videos:
    """Handlers of the routes.

    Args:
        upstream: The servers.
        bodies: Receives request bodies.
    """

    def __init__(self, upstream: Upstream, bodies: Bodies) -> None:
        self._upstream = upstream
        self._bodies = bodies

    @Operation(
        "POST",
        "/v1/clips",
        query=fields_of(pb.ClipHeader),
        body={"multipart/form-data": _FRAMES},
        answer={JSON: pb.ClipInfo},
        errors=(*ERRORS, 408, 413, 415, 429),
    )
    async def upload_clip(self, request: Request) -> Response:
        """Stores the frames of a clip, for tracks that name it. Frames are passed on as they come; if the tracker is
        lost meanwhile, the answer is 503: send them again."""
        header = read_parameters(request.query_params, pb.ClipHeader)
        form, caller = FrameForm(request.headers.get("content-type", "")), self._caller(request)
        async with self._bodies.passing(request) as body:
            try:
                once = self._upstream.without_retries(caller)
                info = await self._upstream.servers.upload_clip(header, lambda: form.parts(body), once)
            except MaskwireError as error:
                error.field = error.field.removeprefix("header.")
                raise
        return await respond(info, request)

    @Operation(
        "DELETE",
        "/v1/clips/{clip_id}",
        query=fields_of(pb.DeleteClipRequest, without=("clip_id",)),
        accepted=("clip_id",),
        answer={JSON: Empty},
    )
    async def delete_clip(self, request: Request) -> Response:
        """Deletes the frames of a clip. Deleting one that does not exist is not an error."""
        message = _read_query(request, pb.DeleteClipRequest, "clip_id")
        await self._upstream.servers.delete_clip(message, self._caller(request))
        return await respond(Empty(), request)

    @Operation(
        "GET",
        "/v1/tracks/{track_id}",
        query=fields_of(pb.GetTrackRequest, without=("track_id",)),
        accepted=("track_id",),
        answer={JSON: pb.TrackInfo},
    )
    async def get_track(self, request: Request) -> Response:
        """What is stored of a track."""
        message = _read_query(request, pb.GetTrackRequest, "track_id")
        return await respond(await self._upstream.servers.get_track(message, self._caller(request)), request)

    @Operation(
        "DELETE",
        "/v1/tracks/{track_id}",
        query=fields_of(pb.DeleteTrackRequest, without=("track_id",)),
        accepted=("track_id",),
        answer={JSON: Empty},
    )
    async def delete_track(self, request: Request) -> Response:
        """Deletes a track; a stream that has it open ends. Deleting one that does not exist is not an error."""
        message = _read_query(request, pb.DeleteTrackRequest, "track_id")
        await self._upstream.servers.delete_track(message, self._caller(request))
        return await respond(Empty(), request)

    def _caller(self, request: Request) -> Caller:
        return self._upstream.caller(bearer(request))


def _read_query(request: Request, kind: type[Named], name: str) -> Named:
    """Reads a request that consists of its path, which has the `name` field, and its query."""
    message = read_parameters(request.query_params, kind)
    here = str(request.path_params[name])
    if getattr(message, name) not in ("", here):
        raise Problem(400, f"{name} is in the address already; leave it out here", "TWO_NAMES", name)
    setattr(message, name, here)
    return message
