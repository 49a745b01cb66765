"""The interface as an OpenAPI document: made of the messages' descriptors and the forms of /sam2."""

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor
from maskwire.v1 import decoder_pb2, encoder_pb2
from pydantic.json_schema import models_json_schema

from maskwire_gateway.rest.examples import EXAMPLES, IMAGE_ID
from maskwire_gateway.rest.rest_v1 import LIST_PARAMETERS, UPLOAD_PARAMETERS
from maskwire_gateway.rest.schemas import Json, Schemas
from maskwire_gateway.roboflow.forms import EmbedForm, SegmentForm

_ABOUT = """Encode an image once with `POST /v1/images`, then ask for masks of it with `POST
/v1/images/{image_id}/segment`. Coordinates are pixels of the image as a viewer shows it, x then y, from its top left
corner. Open a call below and press *Try it out*: the examples work on the image named in them.

Bytes are base64, 64-bit integers are strings, and a field that is left out has its default. A wrong request is
answered with what is wrong, a stable `reason`, the `field`, and when to try again. Interactive sessions use the
WebSocket `/v1/stream`, whose frames are the messages SegmentStreamRequest and SegmentStreamResponse as JSON."""

_PROBLEM: Json = {
    "type": "object",
    "required": ["message"],
    "properties": {
        "message": {"type": "string", "description": "What is wrong, and the remedy."},
        "reason": {"type": "string", "description": "Stable name of the cause."},
        "field": {"type": "string", "description": "Path of the wrong field; often empty."},
        "retry_after_s": {"type": "number", "description": "When a retry may succeed."},
    },
}
_REASONS = {
    400: "The request is wrong.",
    401: "No token, or a wrong one.",
    403: "The web page's origin is not allowed.",
    404: "There is no such image or model (any more).",
    408: "The body came too slowly.",
    413: "Too large.",
    415: "The body is of another type.",
    422: "The body has not the right form.",
    429: "Too much at once; Retry-After says when to try again.",
    500: "A fault of the servers.",
    503: "Nobody answers, or too much at once; Retry-After says when to try again.",
    504: "No answer in time.",
}
_ALWAYS = (400, 401, 403, 404, 500, 503, 504)


def describe(version: str) -> Json:
    """The document.

    Args:
        version: Of the gateway.
    """
    schemas = Schemas()
    paths = {**_native(schemas), **_sam2(), **_plain()}
    _add_examples(paths)
    _add_tags(paths)
    for name in ("SegmentStreamRequest", "SegmentStreamResponse"):
        schemas.of(decoder_pb2.DESCRIPTOR.message_types_by_name[name])
    return {
        "openapi": "3.1.0",
        "info": {"title": "Maskwire", "version": version, "description": _ABOUT, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM, "Invalid": _invalid(), **schemas.all, **_forms()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _native(schemas: Schemas) -> Json:
    encoder, decoder = encoder_pb2.DESCRIPTOR.message_types_by_name, decoder_pb2.DESCRIPTOR.message_types_by_name
    named = {
        "name": "image_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
        "example": IMAGE_ID,
    }

    def query(message: Descriptor, *names: str) -> list[Json]:
        return [{"name": name, "in": "query", "schema": schemas.field(message.fields_by_name[name])} for name in names]

    def body(message: str) -> Json:
        schema = schemas.of(decoder[message], ["image_id"])
        return {"content": {"application/json": {"schema": schema}}}

    header, get, delete = (
        encoder[f"{name}"] for name in ("EncodeImageHeader", "GetImageRequest", "DeleteImageRequest")
    )
    file = {"type": "string", "format": "binary"}
    more = {name: schemas.field(header.fields_by_name[name]) for name in UPLOAD_PARAMETERS}
    form = {"type": "object", "required": ["file"], "properties": {"file": file, **more}}
    upload = {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form},
            "application/octet-stream": {"schema": file},
            "image/*": {"schema": file},
        },
    }
    events = {"text/event-stream": {"schema": {"type": "string"}}}
    return {
        "/v1/images": {
            "get": _operation(
                "Lists the images of a namespace, a page at a time; next_page_token of an answer asks for the next.",
                schemas.of(encoder["ListImagesResponse"]),
                parameters=query(encoder["ListImagesRequest"], *LIST_PARAMETERS),
            ),
            "post": _operation(
                "Makes an image ready for prompts. One that is stored already is not encoded again.",
                schemas.of(encoder["EncodeImageResponse"]),
                (408, 413, 415, 429),
                parameters=query(header, *UPLOAD_PARAMETERS),
                requestBody=upload,
            ),
        },
        "/v1/images/{image_id}": {
            "get": _operation(
                "What is stored under a name.",
                schemas.of(encoder["GetImageResponse"]),
                parameters=[named, *query(get, "namespace")],
            ),
            "delete": _operation(
                "Forgets a name.",
                schemas.of(encoder["DeleteImageResponse"]),
                parameters=[named, *query(delete, "namespace", "delete_embedding")],
            ),
        },
        "/v1/images/{image_id}/segment": {
            "post": _operation(
                "Segments objects of an image: a SegmentRequest without image_id.",
                schemas.of(decoder["SegmentResponse"]),
                (408, 413, 415, 429),
                parameters=[named],
                requestBody=body("SegmentRequest"),
            )
        },
        "/v1/images/{image_id}/masks": {
            "post": _operation(
                "Segments everything: a GenerateMasksRequest without image_id. Each event's data is a "
                "GenerateMasksResponse; an event named error ends the stream with a problem.",
                None,
                (408, 413, 415, 429),
                content=events,
                parameters=[named],
                requestBody=body("GenerateMasksRequest"),
            )
        },
        "/v1/models": {"get": _operation("The models.", schemas.of(encoder["ListModelsResponse"]))},
    }


def _sam2() -> Json:
    key = {"name": "api_key", "in": "query", "schema": {"type": "string"}}
    seconds = {"type": "number", "description": "Seconds."}

    def body(form: str) -> Json:
        return {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{form}"}}}}

    point = {"type": "array", "items": {"type": "integer"}}
    polygon = {"type": "array", "items": point}
    rle = {
        "type": "object",
        "properties": {"size": {"type": "array", "items": {"type": "integer"}}, "counts": {"type": "string"}},
    }
    prediction = {
        "type": "object",
        "properties": {
            "masks": {"anyOf": [{"type": "array", "items": polygon}, rle]},
            "confidence": {"type": "number"},
            "format": {"enum": ["polygon", "rle"]},
        },
    }
    masks = {
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": prediction}, "time": seconds},
    }
    return {
        "/sam2/embed_image": {
            "post": _operation(
                "Makes an image ready for prompts.",
                {"type": "object", "properties": {"image_id": {"type": "string"}, "time": seconds}},
                (408, 413, 415, 422),
                parameters=[key],
                requestBody=body("EmbedForm"),
            )
        },
        "/sam2/segment_image": {
            "post": _operation(
                "Segments objects of an image.",
                None,
                (408, 413, 415, 422),
                content={
                    "application/json": {"schema": masks},
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                },
                parameters=[key],
                requestBody=body("SegmentForm"),
            )
        },
        "/model/clear": {"post": _operation("Does nothing.", {"type": "object"}, parameters=[key])},
    }


def _plain() -> Json:
    def get(summary: str, *errors: int) -> Json:
        responses = {"200": {"description": "Yes.", "content": {"text/plain": {"schema": {"type": "string"}}}}}
        return {"get": {"summary": summary, "responses": {**responses, **_errors(errors)}}}

    return {
        "/healthz": get("Whether the process lives."),
        "/readyz": get("Whether encoder and decoder answer.", 503),
        "/metrics": get("Counters for Prometheus."),
    }


def _operation(
    summary: str, schema: Json | None, errors: Iterable[int] = (), content: Json | None = None, **more: Any
) -> Json:
    answer = content or {"application/json": {"schema": schema}}
    responses = {"200": {"description": "Done.", "content": answer}, **_errors((*_ALWAYS, *errors))}
    return {"summary": summary, **more, "responses": responses}


def _errors(statuses: Iterable[int]) -> Json:
    def response(status: int) -> Json:
        name = "Invalid" if status == 422 else "Problem"
        schema = {"$ref": f"#/components/schemas/{name}"}
        return {"description": _REASONS[status], "content": {"application/json": {"schema": schema}}}

    return {str(status): response(status) for status in sorted(statuses)}


def _forms() -> dict[str, Json]:
    _, schemas = models_json_schema(
        [(EmbedForm, "validation"), (SegmentForm, "validation")], ref_template="#/components/schemas/{model}"
    )
    return dict(schemas["$defs"])


def _invalid() -> Json:
    detail = {
        "type": "object",
        "properties": {
            "type": {"type": "string"},
            "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
            "msg": {"type": "string"},
        },
    }
    return {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "array", "items": detail}}}


def _add_examples(paths: Json) -> None:
    for (method, path), example in EXAMPLES.items():
        paths[path][method]["requestBody"]["content"]["application/json"]["example"] = example


def _add_tags(paths: Json) -> None:
    """Groups for pages that show the document."""
    for path, methods in paths.items():
        tag = "Images" if path.startswith("/v1") else "For clients of Roboflow" if "/sam2" in path else "Server"
        for operation in methods.values():
            operation["tags"] = [tag]
