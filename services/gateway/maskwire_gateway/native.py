"""/v1: the services' own messages as JSON."""

from collections.abc import AsyncIterator

from maskwire import MaskwireError
from maskwire.generation import responses
from maskwire.v1 import decoder_pb2, encoder_pb2
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from maskwire_gateway import wire
from maskwire_gateway.bodies import Bodies
from maskwire_gateway.problems import Problem, problem_of
from maskwire_gateway.services import Services
from maskwire_gateway.telemetry import Telemetry

_MAX_JSON_BYTES = 16 << 20
_FORM_BYTES = 1 << 16  # what multipart/form-data adds to a file


class Native:
    """The routes' handlers.

    Args:
        services: Encoders and decoders.
        bodies: Receives requests' bodies.
        telemetry: Counts.
        max_image_bytes: Largest image file.
    """

    def __init__(self, services: Services, bodies: Bodies, telemetry: Telemetry, max_image_bytes: int) -> None:
        self._services = services
        self._bodies = bodies
        self._telemetry = telemetry
        self._max_image_bytes = max_image_bytes

    def routes(self) -> list[Route]:
        image = "/v1/images/{image_id:path}"
        return [
            Route("/v1/images", self.embed, methods=["POST"]),
            Route(f"{image}/segment", self.segment, methods=["POST"]),
            Route(f"{image}/masks", self.masks, methods=["POST"]),
            Route(image, self.get, methods=["GET"]),
            Route(image, self.delete, methods=["DELETE"]),
            Route("/v1/models", self.models, methods=["GET"]),
        ]

    async def embed(self, request: Request) -> Response:
        header = wire.read_query(request.query_params, encoder_pb2.EncodeImageHeader())
        for name in ("sha256", "size_bytes"):
            if name in request.query_params:
                raise Problem(400, f"{name} is found out from the body; leave it out", "BAD_PARAMETER", name)
        async with self._bodies.receive(request, self._max_image_bytes + _FORM_BYTES) as body:
            data = await _file_of(request, body.data)
            if len(data) > self._max_image_bytes:
                raise Problem(413, f"the image is larger than {self._max_image_bytes} bytes", "IMAGE_TOO_LARGE")
            if not data:
                raise Problem(400, "the body is empty; send an image file", "EMPTY_IMAGE", "body")
            response = await self._services.embed(data, header, "body")
        self._telemetry.embedded(response.cached)
        return await wire.respond(response)

    async def get(self, request: Request) -> Response:
        message = wire.read_query(request.query_params, encoder_pb2.GetImageRequest())
        message.image_id = _named(request, message.image_id)
        return await wire.respond(await self._services.get(message))

    async def delete(self, request: Request) -> Response:
        message = wire.read_query(request.query_params, encoder_pb2.DeleteImageRequest())
        message.image_id = _named(request, message.image_id)
        return await wire.respond(await self._services.delete(message))

    async def segment(self, request: Request) -> Response:
        async with self._bodies.receive(request, _MAX_JSON_BYTES) as body:
            message = await wire.read(body.data, decoder_pb2.SegmentRequest())
        message.image_id = _named(request, message.image_id)
        return await wire.respond(await self._services.connection.call_decoder(message))

    async def masks(self, request: Request) -> Response:
        async with self._bodies.receive(request, _MAX_JSON_BYTES) as body:
            message = await wire.read(body.data, decoder_pb2.GenerateMasksRequest())
        message.image_id = _named(request, message.image_id)
        following = responses(self._services.connection, message)
        first = await anext(following)  # what is wrong from the start has a status of its own
        return StreamingResponse(
            _events(first, following), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async def models(self, request: Request) -> Response:
        return await wire.respond(encoder_pb2.ListModelsResponse(models=await self._services.models()))


async def _events(
    first: decoder_pb2.GenerateMasksResponse, following: AsyncIterator[decoder_pb2.GenerateMasksResponse]
) -> AsyncIterator[str]:
    try:
        yield f"data: {wire.text(first)}\n\n"
        async for response in following:
            yield f"data: {wire.text(response)}\n\n"
    except MaskwireError as error:
        content = problem_of(error).response().body
        yield f"event: error\ndata: {bytes(content).decode()}\n\n"
    finally:
        await following.aclose()  # type: ignore[attr-defined]  # it is a generator: ends the work in the decoder


def _named(request: Request, said: str) -> str:
    """The image of the address."""
    image_id = str(request.path_params["image_id"])
    if said not in ("", image_id):
        raise Problem(400, "image_id is in the address already; leave it out here", "TWO_IMAGE_IDS", "image_id")
    return image_id


async def _file_of(request: Request, body: bytes) -> bytes:
    """The image file: the body, or its part named "file"."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return body

    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        form = await MultiPartParser(request.headers, stream(), max_files=1, max_fields=8).parse()  # type: ignore[arg-type]
    except (MultiPartException, KeyError, ValueError) as error:
        raise Problem(400, f"the form cannot be read: {error}", "BAD_FORM", "body") from error
    try:
        part = form.get("file")
        if not isinstance(part, UploadFile):
            raise Problem(400, 'the form has no file in a part named "file"', "NO_FILE", "file")
        return await part.read()
    finally:
        await form.close()
