"""/v1: the services' own messages as JSON."""

import json
from collections.abc import AsyncIterator
from typing import TypeVar

from maskwire import MaskwireError
from maskwire.regions import check_region
from maskwire.transport import Caller
from maskwire.v1 import decoder_pb2, encoder_pb2
from maskwire_core.http.bodies import Bodies, Body
from maskwire_core.http.large_json import memory_of_values
from maskwire_core.http.memory import hold_answer
from maskwire_core.http.problems import Problem, problem_of
from maskwire_core.runtime.in_thread import in_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from maskwire_gateway.http.doorkeeper import bearer
from maskwire_gateway.http.media_types import NOT_JSON, check_media_type
from maskwire_gateway.http.routing import ERRORS, JSON, Json, Operation, check_names, fields_of
from maskwire_gateway.rest.form_parts import boundary_of
from maskwire_gateway.rest.image_form import FORM_BYTES, read_image_form
from maskwire_gateway.rest.json_codec import respond, text
from maskwire_gateway.rest.message_reader import Places, read_body, read_parameters
from maskwire_gateway.rest.regions import segment_in_region
from maskwire_gateway.upstream import Upstream

_MAX_JSON_BYTES = 16 << 20
_COPIES = 2  # of a message until it is answered: itself, and the bytes that are sent

_IMAGE = "/v1/images/{image_id}"
_ERRORS_OF_BODIES = (*ERRORS, 408, 409, 413, 415, 429)
_FILE: Json = {"type": "string", "format": "binary"}
# Digest and size are those of the file.
_UPLOAD_FIELDS = fields_of(encoder_pb2.EncodeImageHeader, without=("sha256", "size_bytes"))
_FORM: Json = {"type": "object", "required": ["file"], "properties": {"file": _FILE, **_UPLOAD_FIELDS}}

RequestOfImage = TypeVar(
    "RequestOfImage",
    encoder_pb2.GetImageRequest,
    encoder_pb2.DeleteImageRequest,
    decoder_pb2.SegmentRequest,
    decoder_pb2.GenerateMasksRequest,
)


class RestV1:
    """Handlers of the routes.

    Args:
        upstream: Encoders and decoders.
        bodies: Receives request bodies.
        max_image_bytes: Largest image file.
    """

    def __init__(self, upstream: Upstream, bodies: Bodies, max_image_bytes: int) -> None:
        self._upstream = upstream
        self._bodies = bodies
        self._max_image_bytes = max_image_bytes

    @Operation(
        "GET",
        "/v1/images",
        query=fields_of(encoder_pb2.ListImagesRequest),
        answer={JSON: encoder_pb2.ListImagesResponse},
    )
    async def list_images(self, request: Request) -> Response:
        """Lists the images of a namespace, a page at a time; next_page_token of an answer asks for the next."""
        message = read_parameters(request.query_params, encoder_pb2.ListImagesRequest)
        return await respond(await self._upstream.servers.list_images(message, self._caller(request)), request)

    @Operation(
        "POST",
        "/v1/images",
        query=_UPLOAD_FIELDS,
        body={"multipart/form-data": _FORM, "application/octet-stream": _FILE, "image/*": _FILE},
        answer={JSON: encoder_pb2.EncodeImageResponse},
        errors=_ERRORS_OF_BODIES,
    )
    async def embed(self, request: Request) -> Response:
        """Makes an image ready for prompts. One that is stored already is not encoded again."""
        parameters = list(request.query_params.multi_items())
        async with self._bodies.receive(request, self._max_image_bytes + FORM_BYTES) as body:
            data, field, parts = await _file_of(request, body)
            check_names([name for name, _ in parameters + parts], _UPLOAD_FIELDS)
            header = read_parameters(dict(parameters + parts), encoder_pb2.EncodeImageHeader)
            response = await self._upstream.embed(data, header, self._caller(request), field)
        return await respond(response, request)

    @Operation(
        "GET",
        _IMAGE,
        query=fields_of(encoder_pb2.GetImageRequest, without=("image_id",)),
        accepted=("image_id",),
        answer={JSON: encoder_pb2.GetImageResponse},
    )
    async def get(self, request: Request) -> Response:
        """What is stored under a name."""
        message = _read_query(request, encoder_pb2.GetImageRequest)
        return await respond(await self._upstream.servers.get_image(message, self._caller(request)), request)

    @Operation(
        "DELETE",
        _IMAGE,
        query=fields_of(encoder_pb2.DeleteImageRequest, without=("image_id",)),
        accepted=("image_id",),
        answer={JSON: encoder_pb2.DeleteImageResponse},
    )
    async def delete(self, request: Request) -> Response:
        """Forgets a name."""
        message = _read_query(request, encoder_pb2.DeleteImageRequest)
        return await respond(await self._upstream.servers.delete_image(message, self._caller(request)), request)

    @Operation(
        "POST",
        f"{_IMAGE}/segment",
        query={},
        body={JSON: decoder_pb2.SegmentRequest},
        needs_body=False,
        example={"points": [[32, 24]], "labels": [1], "formats": ["rle", "polygons"]},
        answer={JSON: decoder_pb2.SegmentResponse},
        errors=_ERRORS_OF_BODIES,
    )
    async def segment(self, request: Request) -> Response:
        """Segments objects of an image: a SegmentRequest without image_id, with a region if the object is small."""
        message, places = await self._read_json(request, decoder_pb2.SegmentRequest)
        servers, caller = self._upstream.servers, self._caller(request)
        async with places.named():
            region = check_region(places.beside.get("region"))
            if region is None:
                answer = await servers.segment(message, caller)
            else:
                answer = await segment_in_region(servers, message, region, caller)
            return await respond(answer, request)

    @Operation(
        "POST",
        f"{_IMAGE}/masks",
        query={},
        body={JSON: decoder_pb2.GenerateMasksRequest},
        needs_body=False,
        example={"points_per_side": 4, "pred_iou_thresh": 0.5},
        answer={"text/event-stream": {"type": "string"}},
        errors=_ERRORS_OF_BODIES,
    )
    async def masks(self, request: Request) -> Response:
        """Segments everything: a GenerateMasksRequest without image_id. Each event's data is a GenerateMasksResponse;
        an event named error ends the stream with a problem."""
        message, places = await self._read_json(request, decoder_pb2.GenerateMasksRequest)
        responses = self._upstream.servers.generate_masks(message, self._caller(request))
        async with places.named():
            first = await anext(responses)  # an error at the start has a status of its own
        return StreamingResponse(
            _events(first, responses, places), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    @Operation("GET", "/v1/models", query={}, answer={JSON: encoder_pb2.ListModelsResponse})
    async def models(self, request: Request) -> Response:
        """The models."""
        models = await self._upstream.models(self._caller(request))
        return await respond(encoder_pb2.ListModelsResponse(models=models), request)

    async def _read_json(self, request: Request, kind: type[RequestOfImage]) -> tuple[RequestOfImage, Places]:
        check_media_type(request, "JSON", NOT_JSON)
        async with self._bodies.receive(request, _MAX_JSON_BYTES) as body:
            values = await memory_of_values(body.data)
            body.hold(values)
            message, places = await read_body(body.data, kind)
            # The JSON is kept for errors, which name places in it: it is parsed again for that.
            kept = body.size + values + _COPIES * message.ByteSize()
        hold_answer(request.scope, kept)
        message.image_id = _image_id(request, message.image_id)
        return message, places

    def _caller(self, request: Request) -> Caller:
        return self._upstream.caller(bearer(request))


async def _events(
    first: decoder_pb2.GenerateMasksResponse,
    responses: AsyncIterator[decoder_pb2.GenerateMasksResponse],
    places: Places,
) -> AsyncIterator[str]:
    try:
        yield f"data: {text(first)}\n\n"
        async with places.named():
            async for response in responses:
                yield f"data: {text(response)}\n\n"
    except MaskwireError as error:
        yield f"event: error\ndata: {json.dumps(problem_of(error).content())}\n\n"
    finally:
        await responses.aclose()  # type: ignore[attr-defined]  # it is a generator: ends the work in the decoder


def _read_query(request: Request, kind: type[RequestOfImage]) -> RequestOfImage:
    """Reads a request that consists of its path and query."""
    message = read_parameters(request.query_params, kind)
    message.image_id = _image_id(request, message.image_id)
    return message


def _image_id(request: Request, given: str) -> str:
    """The image's name in the path."""
    image_id = str(request.path_params["image_id"])
    if given not in ("", image_id):
        raise Problem(400, "image_id is in the address already; leave it out here", "TWO_IMAGE_IDS", "image_id")
    return image_id


async def _file_of(request: Request, body: Body) -> tuple[bytes, str, list[tuple[str, str]]]:
    """Finds the image file, which is the body or its part named "file", and whose memory counts for the body.

    Returns:
        The file, its field for errors, and the other parts of a form.
    """
    check_media_type(request, "an image file", ["application/json"])
    boundary = boundary_of(request.headers.get("content-type", ""))
    if boundary is None:
        return body.data, "body", []
    form_bytes = body.size
    with body.holding(form_bytes):
        file, parts = await in_thread(read_image_form, body.take(), boundary, _UPLOAD_FIELDS)
    body.give_back(form_bytes - len(file))
    return file, "file", parts
