"""/sam2: the HTTP interface that clients of Roboflow's inference server speak; docs/http.md describes it."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from typing import TypeVar

from maskwire import ImageNotFound, InvalidRequest, MaskwireError
from maskwire.transport import Caller
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2
from maskwire_core.config import GatewaySettings
from maskwire_core.http.bodies import Bodies, Body
from maskwire_core.http.problems import Problem
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from maskwire_gateway.http.media_types import NO_JSON, check_media_type
from maskwire_gateway.http.middleware import bearer
from maskwire_gateway.http.routing import Call, Resource
from maskwire_gateway.metrics import Telemetry
from maskwire_gateway.roboflow import model_versions, responses
from maskwire_gateway.roboflow.form_reader import read_form
from maskwire_gateway.roboflow.forms import VERSION, EmbedForm, ImageForm, SegmentForm
from maskwire_gateway.roboflow.images import ImageReader
from maskwire_gateway.upstream import Upstream

AForm = TypeVar("AForm", bound=ImageForm)

PARAMETERS = ("api_key", "countinference", "service_secret", "source", "source_info", "disable_model_monitoring")
"""Of these routes' queries. Only the first has an effect."""

_JSON_BYTES = 4 << 20  # what a body may hold beside the image


class Roboflow:
    """The routes' handlers.

    Args:
        settings: Limits, and what answers for models that are not served.
        upstream: Encoders and decoders.
        bodies: Receives requests' bodies.
        images: Reads images from requests.
        telemetry: Counts.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        upstream: Upstream,
        bodies: Bodies,
        images: ImageReader,
        telemetry: Telemetry,
    ) -> None:
        self._other_model = settings.other_model
        self._max_body_bytes = settings.max_image_bytes * 4 // 3 + _JSON_BYTES
        self._upstream = upstream
        self._bodies = bodies
        self._images = images
        self._telemetry = telemetry

    def routes(self) -> list[BaseRoute]:
        return [
            Resource("/sam2/embed_image", POST=Call(self.embed_image, PARAMETERS)),
            Resource("/sam2/segment_image", POST=Call(self.segment_image, PARAMETERS)),
            Resource("/model/clear", POST=Call(self.clear, None)),
        ]

    async def clear(self, request: Request) -> Response:
        """Asked for by tests written for other servers; which models there are, the encoder's settings say."""
        await self._upstream.models(self._caller(request))  # it needs a token like the others
        return JSONResponse({"models": []})

    async def embed_image(self, request: Request) -> Response:
        started = time.perf_counter()
        async with self._bodies.receive(request, self._max_body_bytes) as body:
            form = await self._read(request, body, EmbedForm)
            image, _ = await self._image(self._caller(request, form), form, body)
        took_s = time.perf_counter() - started
        return JSONResponse({"image_id": image.image_id, "time": took_s}, headers=_headers(image.model, took_s))

    async def segment_image(self, request: Request) -> Response:
        started = time.perf_counter()
        async with self._bodies.receive(request, self._max_body_bytes) as body:
            form = await self._read(request, body, SegmentForm)
            caller = self._caller(request, form)
            image, data = await self._image(caller, form, body)
            wanted = _request(form, image)
            if form.format == "binary":
                # As arrays, and once more while they are compressed.
                body.hold(2 * responses.array_bytes(len(wanted.prompts), image.width_px, image.height_px))
            try:
                response = await self._decode(caller, wanted, image, data)
            except MaskwireError as error:
                error.field = form.place(error.field)
                raise
            if form.format == "binary":
                content = await asyncio.to_thread(responses.arrays, response)
                headers = _headers(image.model, time.perf_counter() - started)
                return Response(content, media_type="application/octet-stream", headers=headers)
            found = await asyncio.to_thread(responses.predictions, response, form.format)
        took_s = time.perf_counter() - started
        return JSONResponse({"predictions": found, "time": took_s}, headers=_headers(image.model, took_s))

    async def _decode(
        self,
        caller: Caller,
        wanted: decoder_pb2.SegmentRequest,
        image: types_pb2.ImageInfo,
        data: bytes | None,
    ) -> decoder_pb2.SegmentResponse:
        try:
            return await self._upstream.servers.segment(wanted, caller)
        except ImageNotFound:  # it has left the store just now
            if data is None:
                raise
            image = await self._embed(caller, data, image.image_id, image.model)
            wanted.content_key = image.content_key
            return await self._upstream.servers.segment(wanted, caller)

    async def _read(self, request: Request, body: Body, kind: type[AForm]) -> AForm:
        check_media_type(request, "JSON", NO_JSON)
        form = await read_form(body.data, kind)
        body.data = b""  # the form has it
        return form

    def _caller(self, request: Request, form: ImageForm | None = None) -> Caller:
        """The caller, whose key is the token."""
        in_body = form.api_key if form is not None else None
        return self._upstream.caller(request.query_params.get("api_key") or bearer(request) or in_body or "")

    async def _image(self, caller: Caller, form: ImageForm, body: Body) -> tuple[types_pb2.ImageInfo, bytes | None]:
        """The stored image, and its file where the request brought it."""
        models = await self._upstream.models(caller)
        if form.image is None:
            if not form.image_id:
                raise Problem(400, "give an image, or the image_id of one that was sent before", "NO_IMAGE", "image")
            request = encoder_pb2.GetImageRequest(image_id=form.image_id)
            stored = await self._upstream.servers.get_image(request, caller)
            asked = self._model(form, models)
            if (
                asked is not None
                and model_versions.served(form.version or "", models)
                and asked.name != stored.image.model
            ):
                raise Problem(
                    404,
                    f"{form.image_id!r} was embedded by {stored.image.model}; send the image to have {asked.name}",
                    "OTHER_MODEL",
                    "image_id",
                )
            return stored.image, None
        model = self._model(form, models) or model_versions.choose(
            VERSION, models, self._other_model, "sam2_version_id"
        )
        data = await self._images.read(form.image, body)
        form.image = None  # its base64 is not needed any more
        digest = (await asyncio.to_thread(hashlib.sha256, data)).digest()
        # Equal images get equal names, so that a caller that sends its image with each click leaves one name.
        name = form.image_id or f"img_{digest.hex()[:40]}_{model.name}"
        return await self._embed(caller, data, name, model.name, digest), data

    def _model(self, form: ImageForm, models: Sequence[encoder_pb2.ModelInfo]) -> encoder_pb2.ModelInfo | None:
        """The model that answers; None where none is named. Both names are checked, and the first counts."""
        named = [(form.sam2_version_id, "sam2_version_id")] if "sam2_version_id" in form.model_fields_set else []
        named.append((form.model_id, "model_id"))
        found = [model_versions.choose(name, models, self._other_model, field) for name, field in named if name]
        return found[0] if found else None

    async def _embed(
        self, caller: Caller, data: bytes, image_id: str, model: str, digest: bytes = b""
    ) -> types_pb2.ImageInfo:
        header = encoder_pb2.EncodeImageHeader(image_id=image_id, model=model, sha256=digest)
        response = await self._upstream.embed(data, header, caller, "image.value")
        self._telemetry.embedded(response.cached)
        return response.image


def _request(form: SegmentForm, image: types_pb2.ImageInfo) -> decoder_pb2.SegmentRequest:
    """What a form asks of a decoder.

    Raises:
        InvalidRequest: A prompt is wrong.
    """
    try:
        messages = [prompt.message() for prompt in form.wanted(image.width_px, image.height_px)]
    except InvalidRequest as error:
        error.field = form.place(error.field)
        raise
    binary = form.format == "binary"
    return decoder_pb2.SegmentRequest(
        image_id=image.image_id,
        content_key=image.content_key,
        prompts=messages,
        output=types_pb2.OutputOptions(
            formats=[types_pb2.MASK_FORMAT_LOGITS if binary else types_pb2.MASK_FORMAT_RLE],
            multimask=form.multimask_output,
            logits_type=types_pb2.DATA_TYPE_FP32,
            unclamped_logits=True,
        ),
        save_logits=form.save_logits_to_cache,
        load_logits=form.load_logits_from_cache,
    )


def _headers(model: str, took_s: float) -> dict[str, str]:
    return {"X-Processing-Time": f"{took_s:.6f}", "X-Maskwire-Model": model}
