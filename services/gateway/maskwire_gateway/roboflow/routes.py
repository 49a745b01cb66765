"""/sam2 and /sam3: where clients of Roboflow's inference server send images and prompts (docs/reference/http.md)."""

import hashlib
import sys
import time
from functools import partial
from typing import TypeVar

from maskwire import ImageNotFound, MaskwireError
from maskwire.transport import Caller
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2
from maskwire_core.config import GatewaySettings
from maskwire_core.http.bodies import Bodies, Body
from maskwire_core.http.images import decode_image
from maskwire_core.http.large_json import body_in_turn
from maskwire_core.http.problems import Problem
from maskwire_core.runtime.in_thread import in_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from maskwire_gateway.http.doorkeeper import token_of
from maskwire_gateway.http.fetching import Fetcher
from maskwire_gateway.http.media_types import NOT_JSON, check_media_type
from maskwire_gateway.http.routing import EXAMPLE_IMAGE_ID, JSON, Json, Operation
from maskwire_gateway.roboflow import model_versions, responses
from maskwire_gateway.roboflow.checked_prompts import CheckedPrompts, check_prompts, memory_of_messages
from maskwire_gateway.roboflow.form_reader import read_form
from maskwire_gateway.roboflow.forms import (
    ERRORS_OF_FORMS,
    NO_TEXT,
    QUERY,
    WITHOUT_EFFECT,
    EmbedForm,
    ImageForm,
    Picture,
    SegmentForm,
)
from maskwire_gateway.upstream import Upstream

AForm = TypeVar("AForm", bound=ImageForm)

_JSON_BYTES = 4 << 20  # what a body may hold beside the image
_DISC = (  # a PNG of 64x48 px: a disc with a radius of 14 px around (32, 24)
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAAAwCAIAAAAuKetIAAAAjUlEQVR42u3Y2w2AMAxDUc/EEB2CIRiWiWCCIpFAHr2SB/CR+tFY"
    "49hLRwAAAAAAAACASc6xFQPcjefJC3is/gVDIe0dDYpq72VQYHsXg2Lb2w0Kb280LAxwbG8xAAAAIEf71waeEAAAywL4zCUAlL8H"
    "OlxkHW7iDqtEh12owzLXZBtlXgcAAAAAAD/mAjRtOHCHFfAFAAAAAElFTkSuQmCC"
)
_EXAMPLE_IMAGE = {"image": {"type": "base64", "value": _DISC}, "image_id": EXAMPLE_IMAGE_ID}
_EXAMPLE_PROMPT = {"points": [{"x": 32, "y": 24, "positive": True}]}
_EXAMPLE_SEGMENT = {**_EXAMPLE_IMAGE, "prompts": [_EXAMPLE_PROMPT], "format": "rle"}
_MASKS: Json = {JSON: responses.Predictions, "application/octet-stream": {"type": "string", "format": "binary"}}

# What the routes of both generations say of themselves, which each completes with its path.
_taking_form = partial(Operation, "POST", query=QUERY, accepted=WITHOUT_EFFECT, errors=ERRORS_OF_FORMS)
_embedding = partial(_taking_form, body={JSON: EmbedForm}, example=_EXAMPLE_IMAGE, answer={JSON: responses.Embedded})
_segmenting = partial(_taking_form, body={JSON: SegmentForm}, example=_EXAMPLE_SEGMENT, answer=_MASKS)


class Roboflow:
    """Handlers of the routes.

    Args:
        settings: Limits, and what answers for models that are not served.
        upstream: Encoders and decoders.
        bodies: Receives request bodies.
        fetcher: Fetches images by URL; None where they are not allowed.
    """

    def __init__(self, settings: GatewaySettings, upstream: Upstream, bodies: Bodies, fetcher: Fetcher | None) -> None:
        self._other_model = settings.other_model
        self._max_image_bytes = settings.max_image_bytes
        self._max_body_bytes = settings.max_image_bytes * 4 // 3 + _JSON_BYTES
        self._upstream = upstream
        self._bodies = bodies
        self._fetcher = fetcher

    @_embedding("/sam2/embed_image")
    async def embed_image(self, request: Request) -> Response:
        """Makes an image ready for prompts."""
        return await self._embed_image(request, model_versions.VERSIONS[-1])

    @_embedding("/sam3/embed_image")
    async def embed_image_3(self, request: Request) -> Response:
        """Makes an image ready for prompts, as code for SAM 3 asks for it."""
        return await self._embed_image(request, model_versions.SAM3)

    @_segmenting("/sam2/segment_image")
    async def segment_image(self, request: Request) -> Response:
        """Segments objects of an image."""
        return await self._segment_image(request, model_versions.VERSIONS[-1])

    @_segmenting("/sam3/visual_segment")
    async def visual_segment(self, request: Request) -> Response:
        """Segments objects of an image by clicks and boxes, with SAM 2, as code for SAM 3 asks for it."""
        return await self._segment_image(request, model_versions.SAM3)

    @Operation("POST", "/sam3/concept_segment")
    async def concept_segment(self, request: Request) -> Response:
        """Refuses what only SAM 3 can do."""
        async with self._bodies.receive(request, self._max_body_bytes):
            raise Problem(400, NO_TEXT, "NO_TEXT_PROMPTS", "prompts")

    async def _embed_image(self, request: Request, model: str) -> Response:
        started = time.perf_counter()
        async with self._bodies.receive(request, self._max_body_bytes) as body:
            form = await _read(request, body, EmbedForm)
            image, _ = await self._find_image(self._caller(request, form), form, body, model)
        took_s = time.perf_counter() - started
        content: responses.Embedded = {**responses.IDENTITY, "image_id": image.image_id, "time": took_s}
        return JSONResponse(content, headers=_headers(image.model, took_s))

    async def _segment_image(self, request: Request, model: str) -> Response:
        started = time.perf_counter()
        async with self._bodies.receive(request, self._max_body_bytes) as body:
            form = await _read(request, body, SegmentForm)
            caller = self._caller(request, form)
            image, data = await self._find_image(caller, form, body, model)
            body.hold(memory_of_messages(form))
            prompts = check_prompts(form, image.width_px, image.height_px)
            if form.format == "binary":
                # The logits, and once more while they are compressed.
                body.hold(2 * responses.logits_bytes(prompts.count, image.width_px, image.height_px))
            try:
                response = await self._segment(caller, _segment_request(form, prompts, image), image, data)
            except MaskwireError as error:
                error.field = prompts.place(error.field)
                raise
            if form.format == "binary":
                logits = await in_thread(responses.compressed_logits, response, prompts.refused)
                headers = _headers(image.model, time.perf_counter() - started)
                return Response(logits, media_type="application/octet-stream", headers=headers)
            predictions = await in_thread(responses.predictions, response, form.format, prompts.refused)
        took_s = time.perf_counter() - started
        content: responses.Predictions = {**responses.IDENTITY, "predictions": predictions, "time": took_s}
        return JSONResponse(content, headers=_headers(image.model, took_s))

    def _caller(self, request: Request, form: ImageForm | None = None) -> Caller:
        """The caller, whose key is the token."""
        in_body = form.api_key if form is not None else None
        return self._upstream.caller(token_of(request) or in_body or "")

    async def _segment(
        self, caller: Caller, wanted: decoder_pb2.SegmentRequest, image: types_pb2.ImageInfo, data: bytes | None
    ) -> decoder_pb2.SegmentResponse:
        """Calls a decoder; if the image has just left the store, embeds `data` again, unless that is None."""
        try:
            return await self._upstream.servers.segment(wanted, caller)
        except ImageNotFound:
            if data is None:
                raise
            image = await self._embed(caller, data, image.image_id, image.model)
            wanted.content_key = image.content_key
            return await self._upstream.servers.segment(wanted, caller)

    async def _find_image(
        self, caller: Caller, form: ImageForm, body: Body, model: str
    ) -> tuple[types_pb2.ImageInfo, bytes | None]:
        """Finds the stored image that a form names, or embeds the one that it holds.

        Args:
            caller: On whose behalf.
            form: What was sent.
            body: The body that it came in.
            model: The model that answers if the form names none.

        Returns:
            What is stored, and the image's file if the form holds it.
        """
        models = await self._upstream.models(caller)
        named = [model_versions.choose(name, models, self._other_model, field) for name, field in form.models]
        if form.image is None:
            if not form.image_id:
                raise Problem(400, "give an image, or the image_id of one that was sent before", "NO_IMAGE", "image")
            request = encoder_pb2.GetImageRequest(image_id=form.image_id)
            image = (await self._upstream.servers.get_image(request, caller)).image
            if named and named[0].name != image.model and model_versions.find(form.models[0][0], models):
                raise Problem(
                    404,
                    f"{form.image_id!r} was embedded by {image.model}; send the image to have {named[0].name}",
                    "OTHER_MODEL",
                    "image_id",
                )
            return image, None
        if not named:
            named = [model_versions.choose(model, models, self._other_model, "sam2_version_id")]
        data = await self._read_image(form.image, body)
        body.give_back(sys.getsizeof(form.image.value))
        form.image = None  # frees the memory of its base64
        digest = (await in_thread(hashlib.sha256, data)).digest()
        # Equal images get equal names, so that a client that sends its image with each click leaves one name behind.
        name = form.image_id or f"img_{digest.hex()[:40]}_{named[0].name}"
        return await self._embed(caller, data, name, named[0].name, digest), data

    async def _read_image(self, picture: Picture, body: Body) -> bytes:
        """Returns the image file, whose memory counts for the body of its request. A URL may come with type base64 too,
        as in a widespread how-to."""
        if picture.type == "url" or picture.value[:8].lower().startswith(("http://", "https://")):
            if self._fetcher is None:
                raise Problem(
                    400,
                    "images by URL are not allowed here: send the file as base64, or start the gateway with --urls",
                    "URLS_OFF",
                    "image.value",
                )
            return await self._fetcher.fetch(picture.value, self._max_image_bytes, body)
        estimate = len(picture.value) * 3 // 4
        body.hold(estimate)
        data = await in_thread(decode_image, picture.value)
        body.add(len(data) - estimate)
        return data

    async def _embed(
        self, caller: Caller, data: bytes, image_id: str, model: str, digest: bytes = b""
    ) -> types_pb2.ImageInfo:
        header = encoder_pb2.EncodeImageHeader(image_id=image_id, model=model, sha256=digest)
        return (await self._upstream.embed(data, header, caller, "image.value")).image


async def _read(request: Request, body: Body, kind: type[AForm]) -> AForm:
    check_media_type(request, "JSON", NOT_JSON)
    form: AForm = await body_in_turn(read_form, body, kind)
    return form


def _segment_request(
    form: SegmentForm, prompts: CheckedPrompts, image: types_pb2.ImageInfo
) -> decoder_pb2.SegmentRequest:
    """What a form asks of a decoder."""
    is_binary = form.format == "binary"
    return decoder_pb2.SegmentRequest(
        image_id=image.image_id,
        content_key=image.content_key,
        prompts=prompts.messages,
        output=types_pb2.OutputOptions(
            formats=[types_pb2.MASK_FORMAT_LOGITS if is_binary else types_pb2.MASK_FORMAT_RLE],
            multimask=form.multimask_output,
            logits_type=types_pb2.DATA_TYPE_FP32,
            unclamped_logits=True,
        ),
        save_logits=form.save_logits_to_cache,
        load_logits=form.load_logits_from_cache,
    )


def _headers(model: str, took_s: float) -> dict[str, str]:
    return {"X-Processing-Time": f"{took_s:.6f}", "X-Maskwire-Model": model}
