"""/v1: the services' own messages as JSON."""

import json
from collections.abc import AsyncIterator
from typing import TypeVar

from maskwire import MaskwireError
from maskwire.transport import Caller
from maskwire.v1 import decoder_pb2, encoder_pb2
from maskwire_core.http.bodies import Bodies
from maskwire_core.http.problems import Problem, problem_of
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from maskwire_gateway.http.media_types import NO_JSON, check_media_type
from maskwire_gateway.http.middleware import bearer
from maskwire_gateway.http.routing import Call, Resource
from maskwire_gateway.metrics import Telemetry
from maskwire_gateway.rest.json_codec import respond, text
from maskwire_gateway.rest.message_reader import Places, check_names, read_body, read_parameters
from maskwire_gateway.upstream import Upstream

_MAX_JSON_BYTES = 16 << 20
_FORM_BYTES = 1 << 16  # what multipart/form-data adds to a file

AboutAnImage = TypeVar(
    "AboutAnImage",
    encoder_pb2.GetImageRequest,
    encoder_pb2.DeleteImageRequest,
    decoder_pb2.SegmentRequest,
    decoder_pb2.GenerateMasksRequest,
)

UPLOAD_PARAMETERS = [
    field.name
    for field in encoder_pb2.EncodeImageHeader.DESCRIPTOR.fields
    if field.name not in ("sha256", "size_bytes")
]
"""What may be said of an image that is sent; its digest and size are found out from the file."""

LIST_PARAMETERS = [field.name for field in encoder_pb2.ListImagesRequest.DESCRIPTOR.fields]
"""What may be said of the images that are listed."""


class Native:
    """The routes' handlers.

    Args:
        upstream: Encoders and decoders.
        bodies: Receives requests' bodies.
        telemetry: Counts.
        max_image_bytes: Largest image file.
    """

    def __init__(self, upstream: Upstream, bodies: Bodies, telemetry: Telemetry, max_image_bytes: int) -> None:
        self._upstream = upstream
        self._bodies = bodies
        self._telemetry = telemetry
        self._max_image_bytes = max_image_bytes

    def routes(self) -> list[BaseRoute]:
        image = "/v1/images/{image_id}"
        return [
            Resource("/v1/images", GET=Call(self.list_images, LIST_PARAMETERS), POST=Call(self.embed, None)),
            Resource(image, GET=Call(self.get, None), DELETE=Call(self.delete, None)),
            Resource(f"{image}/segment", POST=Call(self.segment)),
            Resource(f"{image}/masks", POST=Call(self.masks)),
            Resource("/v1/models", GET=Call(self.models)),
        ]

    async def embed(self, request: Request) -> Response:
        parameters = list(request.query_params.multi_items())
        async with self._bodies.receive(request, self._max_image_bytes + _FORM_BYTES) as body:
            data, place, fields = await _file_of(request, body.data)
            check_names([name for name, _ in parameters + fields], UPLOAD_PARAMETERS)
            header = read_parameters(dict(parameters + fields), encoder_pb2.EncodeImageHeader)
            if len(data) > self._max_image_bytes:
                raise Problem(413, f"the image is larger than {self._max_image_bytes} bytes", "IMAGE_TOO_LARGE", place)
            if not data:
                raise Problem(400, f"the {place} is empty; send an image file", "EMPTY_IMAGE", place)
            response = await self._upstream.embed(data, header, self._caller(request), place)
        self._telemetry.embedded(response.cached)
        return await respond(response)

    async def list_images(self, request: Request) -> Response:
        message = read_parameters(request.query_params, encoder_pb2.ListImagesRequest)
        return await respond(await self._upstream.servers.list_images(message, self._caller(request)))

    async def get(self, request: Request) -> Response:
        message = _read_query(request, encoder_pb2.GetImageRequest)
        return await respond(await self._upstream.servers.get_image(message, self._caller(request)))

    async def delete(self, request: Request) -> Response:
        message = _read_query(request, encoder_pb2.DeleteImageRequest)
        return await respond(await self._upstream.servers.delete_image(message, self._caller(request)))

    async def segment(self, request: Request) -> Response:
        message, places = await self._read_json(request, decoder_pb2.SegmentRequest)
        with places.told():
            return await respond(await self._upstream.servers.segment(message, self._caller(request)))

    async def masks(self, request: Request) -> Response:
        message, places = await self._read_json(request, decoder_pb2.GenerateMasksRequest)
        following = self._upstream.servers.generate_masks(message, self._caller(request))
        with places.told():
            first = await anext(following)  # what is wrong from the start has a status of its own
        return StreamingResponse(
            _events(first, following, places), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async def models(self, request: Request) -> Response:
        return await respond(encoder_pb2.ListModelsResponse(models=await self._upstream.models(self._caller(request))))

    async def _read_json(self, request: Request, kind: type[AboutAnImage]) -> tuple[AboutAnImage, Places]:
        check_media_type(request, "JSON", NO_JSON)
        async with self._bodies.receive(request, _MAX_JSON_BYTES) as body:
            message, places = await read_body(body.data, kind)
        message.image_id = _named(request, message.image_id)
        return message, places

    def _caller(self, request: Request) -> Caller:
        return self._upstream.caller(bearer(request))


async def _events(
    first: decoder_pb2.GenerateMasksResponse,
    following: AsyncIterator[decoder_pb2.GenerateMasksResponse],
    places: Places,
) -> AsyncIterator[str]:
    try:
        yield f"data: {text(first)}\n\n"
        with places.told():
            async for response in following:
                yield f"data: {text(response)}\n\n"
    except MaskwireError as error:
        yield f"event: error\ndata: {json.dumps(problem_of(error).content())}\n\n"
    finally:
        await following.aclose()  # type: ignore[attr-defined]  # it is a generator: ends the work in the decoder


def _read_query(request: Request, kind: type[AboutAnImage]) -> AboutAnImage:
    """Reads a request that consists of its address."""
    parameters = request.query_params.multi_items()
    check_names([name for name, _ in parameters], kind.DESCRIPTOR.fields_by_name)
    message = read_parameters(dict(parameters), kind)
    message.image_id = _named(request, message.image_id)
    return message


def _named(request: Request, said: str) -> str:
    """The image of the address."""
    image_id = str(request.path_params["image_id"])
    if said not in ("", image_id):
        raise Problem(400, "image_id is in the address already; leave it out here", "TWO_IMAGE_IDS", "image_id")
    return image_id


async def _file_of(request: Request, body: bytes) -> tuple[bytes, str, list[tuple[str, str]]]:
    """The image file, what to call its place in errors, and what else a form holds.

    The file is the body, or its part named "file".
    """
    check_media_type(request, "an image file", ["application/json"])
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return body, "body", []

    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        form = await MultiPartParser(request.headers, stream(), max_files=2, max_fields=16).parse()  # type: ignore[arg-type]
    except (MultiPartException, KeyError, ValueError) as error:
        raise Problem(400, f"the form cannot be read: {error}", "BAD_FORM", "body") from error
    try:
        parts = form.multi_items()
        for name, value in parts:
            if isinstance(value, UploadFile) and name != "file":
                raise Problem(400, f"the image is in a part named {name!r}; name it 'file'", "BAD_PARAMETER", name)
        check_names([name for name, _ in parts], ["file", *UPLOAD_PARAMETERS], "part")
        part = form.get("file")
        if not isinstance(part, UploadFile):
            raise Problem(400, 'the form has no file in a part named "file"', "NO_FILE", "file")
        for name, value in parts:
            if name != "file" and isinstance(value, UploadFile):
                raise Problem(400, f"{name}: it is a file; send it as text", "BAD_FORM", name)
        fields = [(name, value) for name, value in parts if isinstance(value, str)]
        return await part.read(), "file", fields
    finally:
        await form.close()
