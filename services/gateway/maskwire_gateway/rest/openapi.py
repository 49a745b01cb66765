"""The API's description as an OpenAPI document, made from what the routes declare."""

from collections.abc import Iterable

from maskwire.v1 import decoder_pb2, tracker_pb2

from maskwire_gateway.http.routing import EXAMPLE_IMAGE_ID, JSON, Handler, Json, Operation, Resource
from maskwire_gateway.rest.schemas import Schemas

_ABOUT = """Encode an image once with `POST /v1/images`, then ask for masks of it with `POST
/v1/images/{image_id}/segment`. Coordinates are pixels of the image as a viewer shows it, x then y, from its top left
corner. Open a call below and press *Try it out*: the examples work on the image named in them.

Bytes are base64, 64-bit integers are strings, and a field that is left out has its default. A wrong request is
answered with what is wrong, a stable `reason`, the `field`, and when to try again. Interactive sessions use the
WebSocket `/v1/stream`, whose frames are the messages SegmentStreamRequest and SegmentStreamResponse as JSON. Objects
are followed through the frames of a clip over the WebSocket `/v1/track`, with TrackRequest and TrackResponse; `POST
/v1/clips` stores the frames."""

_OF_SOCKETS = (
    decoder_pb2.SegmentStreamRequest,
    decoder_pb2.SegmentStreamResponse,
    tracker_pb2.TrackRequest,
    tracker_pb2.TrackResponse,
)

_PATH_EXAMPLES = {"decoder": "0" * 64, "graphs": "click"}  # digests differ: /v1/models tells them

_PROBLEM: Json = {
    "type": "object",
    "required": ["message"],
    "properties": {
        "message": {"type": "string", "description": "What is wrong, and the remedy."},
        "reason": {"type": "string", "description": "Stable name of the cause."},
        "field": {"type": "string", "description": "Path of the wrong field; often empty."},
        "retry_after_s": {"type": "number", "description": "Seconds after which a retry may succeed."},
    },
}
_INVALID: Json = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"type": "string"},
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                },
            },
        }
    },
}
_MEANINGS = {
    400: "The request is wrong.",
    401: "No token, or a wrong one.",
    403: "The web page's origin is not allowed.",
    404: "There is no such image, track or model (any more).",
    408: "The body came too slowly.",
    409: "Something else has to change first.",
    413: "Too large.",
    415: "The body is of another type.",
    416: "The range begins behind the file's end.",
    422: "The body has not the right form.",
    429: "Too much at once; Retry-After says when to try again.",
    500: "A fault of the servers.",
    503: "Nobody answers, or too much at once; Retry-After says when to try again.",
    504: "No answer in time.",
}


def describe(version: str, resources: Iterable[Resource]) -> Json:
    """Makes the document.

    Args:
        version: The gateway's version.
        resources: The routes.
    """
    schemas = Schemas()
    paths: Json = {}
    for resource in resources:
        for operation, handler in resource.handlers.items():
            if operation.answer is not None:
                described = {**_describe(operation, handler, schemas), "tags": [resource.tag]}
                paths.setdefault(operation.path, {})[operation.method.lower()] = described
    for message in _OF_SOCKETS:
        schemas.of(message)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Maskwire", "version": version, "description": _ABOUT, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM, "Invalid": _INVALID, **schemas.all},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _describe(operation: Operation, handler: Handler, schemas: Schemas) -> Json:
    described: Json = {"summary": " ".join((handler.__doc__ or "").split())}
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
            "example": _PATH_EXAMPLES.get(name, EXAMPLE_IMAGE_ID),
        }
        for name in operation.path_parameters
    ]
    query = operation.query or {}
    parameters += [{"name": name, "in": "query", "schema": schemas.of(kind)} for name, kind in query.items()]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        content = schemas.content(operation.body, operation.path_parameters)
        if operation.example is not None:
            content[JSON]["example"] = operation.example
        described["requestBody"] = {"content": content, "required": operation.needs_body}
    described["responses"] = {
        "200": {"description": "Done.", "content": schemas.content(operation.answer or {})},
        **{str(status): _describe_error(status) for status in sorted(operation.errors)},
    }
    return described


def _describe_error(status: int) -> Json:
    schema = {"$ref": f"#/components/schemas/{'Invalid' if status == 422 else 'Problem'}"}
    return {"description": _MEANINGS[status], "content": {JSON: {"schema": schema}}}
