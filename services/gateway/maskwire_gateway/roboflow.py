"""/sam2: the HTTP interface that clients of Roboflow's inference server speak; docs/http.md describes it."""

import asyncio
import hashlib
import time
from typing import TypeVar

from maskwire import ImageNotFound
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2
from maskwire_core.config import GatewaySettings
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from maskwire_gateway import answers, versions
from maskwire_gateway.bodies import Bodies, Body
from maskwire_gateway.forms import VERSION, EmbedForm, ImageForm, SegmentForm
from maskwire_gateway.front import Keys, bearer
from maskwire_gateway.pictures import Pictures
from maskwire_gateway.problems import Problem
from maskwire_gateway.services import Services
from maskwire_gateway.telemetry import Telemetry

Form = TypeVar("Form", bound=ImageForm)

_JSON_BYTES = 4 << 20  # what a body may hold beside the image


class Roboflow:
    """The routes' handlers.

    Args:
        settings: Limits, and what answers for models that are not served.
        services: Encoders and decoders.
        bodies: Receives requests' bodies.
        pictures: Gets images.
        keys: Of which a request needs one.
        telemetry: Counts.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        services: Services,
        bodies: Bodies,
        pictures: Pictures,
        keys: Keys,
        telemetry: Telemetry,
    ) -> None:
        self._other_model = settings.other_model
        self._max_body_bytes = settings.max_image_bytes * 4 // 3 + _JSON_BYTES
        self._services = services
        self._bodies = bodies
        self._pictures = pictures
        self._keys = keys
        self._telemetry = telemetry

    def routes(self) -> list[Route]:
        return [
            Route("/sam2/embed_image", self.embed_image, methods=["POST"]),
            Route("/sam2/segment_image", self.segment_image, methods=["POST"]),
            Route("/model/clear", self.clear, methods=["POST"]),
        ]

    async def clear(self, request: Request) -> Response:
        """Asked for by tests written for other servers; which models there are, the encoder's settings say."""
        self._check_key(request, None)
        return JSONResponse({"models": []})

    async def embed_image(self, request: Request) -> Response:
        started = time.perf_counter()
        async with self._bodies.receive(request, self._max_body_bytes) as body:
            form = await self._read(request, body, EmbedForm)
            image, _ = await self._image(form, body)
        took_s = time.perf_counter() - started
        return JSONResponse({"image_id": image.image_id, "time": took_s}, headers=_headers(image.model, took_s))

    async def segment_image(self, request: Request) -> Response:
        started = time.perf_counter()
        async with self._bodies.receive(request, self._max_body_bytes) as body:
            form = await self._read(request, body, SegmentForm)
            image, data = await self._image(form, body)
            wanted = self._request(form, image)
            if form.format == "binary":
                # As arrays, and once more while they are compressed.
                body.hold(2 * answers.array_bytes(len(wanted.prompts), image.width_px, image.height_px))
            try:
                response = await self._services.connection.call_decoder(wanted)
            except ImageNotFound:  # it has left the store just now
                if data is None:
                    raise
                image = await self._embed(data, image.image_id, image.model)
                wanted.content_key = image.content_key
                response = await self._services.connection.call_decoder(wanted)
            if form.format == "binary":
                content = await asyncio.to_thread(answers.arrays, response)
                headers = _headers(image.model, time.perf_counter() - started)
                return Response(content, media_type="application/octet-stream", headers=headers)
            found = await asyncio.to_thread(answers.predictions, response, form.format)
        took_s = time.perf_counter() - started
        return JSONResponse({"predictions": found, "time": took_s}, headers=_headers(image.model, took_s))

    def _request(self, form: SegmentForm, image: types_pb2.ImageInfo) -> decoder_pb2.SegmentRequest:
        prompts = form.wanted(image.width_px, image.height_px)
        binary = form.format == "binary"
        return decoder_pb2.SegmentRequest(
            image_id=image.image_id,
            content_key=image.content_key,
            prompts=[prompt.message(f"prompts[{index}]") for index, prompt in enumerate(prompts)],
            output=types_pb2.OutputOptions(
                formats=[types_pb2.MASK_FORMAT_LOGITS if binary else types_pb2.MASK_FORMAT_RLE],
                multimask=form.multimask_output,
                logits_type=types_pb2.DATA_TYPE_FP32,
                unclamped_logits=True,
            ),
            save_logits=form.save_logits_to_cache,
            load_logits=form.load_logits_from_cache,
        )

    async def _read(self, request: Request, body: Body, kind: type[Form]) -> Form:
        form = await asyncio.to_thread(kind.model_validate_json, body.data)
        body.data = b""  # the form has it
        self._check_key(request, form.api_key)
        return form

    def _check_key(self, request: Request, in_body: str | None) -> None:
        self._keys.check(request.query_params.get("api_key") or bearer(request.headers) or in_body or "")

    async def _image(self, form: ImageForm, body: Body) -> tuple[types_pb2.ImageInfo, bytes | None]:
        """The stored image, and its file where the request brought it."""
        models = await self._services.models()
        if form.image is None:
            if not form.image_id:
                raise Problem(400, "give an image, or the image_id of one that was sent before", "NO_IMAGE", "image")
            stored = await self._services.get(encoder_pb2.GetImageRequest(image_id=form.image_id))
            asked = versions.choose(form.version, models, self._other_model) if form.version else None
            if asked is not None and versions.served(form.version or "", models) and asked.name != stored.image.model:
                raise Problem(
                    404,
                    f"{form.image_id!r} was embedded by {stored.image.model}; send the image to have {asked.name}",
                    "OTHER_MODEL",
                    "image_id",
                )
            return stored.image, None
        model = versions.choose(form.version or VERSION, models, self._other_model)
        data = await self._pictures.read(form.image, body)
        form.image = None  # its base64 is not needed any more
        digest = (await asyncio.to_thread(hashlib.sha256, data)).digest()
        # Equal images get equal names, so that a caller that sends its image with each click leaves one name.
        name = form.image_id or f"img_{digest.hex()[:40]}_{model.name}"
        return await self._embed(data, name, model.name, digest), data

    async def _embed(self, data: bytes, image_id: str, model: str, digest: bytes = b"") -> types_pb2.ImageInfo:
        header = encoder_pb2.EncodeImageHeader(image_id=image_id, model=model, sha256=digest)
        response = await self._services.embed(data, header, "image.value")
        self._telemetry.embedded(response.cached)
        return response.image


def _headers(model: str, took_s: float) -> dict[str, str]:
    return {"X-Processing-Time": f"{took_s:.6f}", "X-Maskwire-Model": model}


async def invalid(request: Request, error: Exception) -> Response:
    """What is wrong with a body, place by place, as pydantic says it."""
    assert isinstance(error, ValidationError)
    detail = error.errors(include_url=False, include_context=False, include_input=False)
    return JSONResponse({"detail": [{**one, "loc": ["body", *one["loc"]]} for one in detail]}, 422)


FORMS: dict[str, type[BaseModel]] = {"/sam2/embed_image": EmbedForm, "/sam2/segment_image": SegmentForm}
"""What the routes take, for the description of the interface."""
