"""Files for pages and programs that decode by themselves: embeddings and exported decoders."""

from maskwire.transport import Caller
from maskwire.v1 import decoder_pb2 as pb
from maskwire_core.http.problems import Problem
from starlette.requests import Request
from starlette.responses import Response

from maskwire_gateway.http import file_answers
from maskwire_gateway.http.doorkeeper import bearer
from maskwire_gateway.http.routing import ERRORS, Json, Operation, fields_of
from maskwire_gateway.rest.message_reader import read_parameters
from maskwire_gateway.upstream import Upstream

_FILE: Json = {"type": "string", "format": "binary"}
_GRAPHS: Json = {"type": "string", "description": "Graphs that the caller has, separated by commas."}
_ERRORS = (*ERRORS, 416, 429)
_NOT_WEIGHTS = ("decoder", "graphs", "without", "part", "known_etags")
_NOT_IN_QUERY = ("image_id", "part", "known_etags")


class Downloads:
    """Handlers of the routes.

    Args:
        upstream: The servers.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    @Operation(
        "GET",
        "/v1/images/{image_id}/embedding",
        query=fields_of(pb.GetEmbeddingRequest, without=_NOT_IN_QUERY),
        answer={"application/octet-stream": _FILE},
        errors=_ERRORS,
    )
    async def embedding(self, request: Request) -> Response:
        """The stored embedding of an image, to decode prompts on it elsewhere. Understands Range and If-None-Match."""
        message, part = read_parameters(request.query_params, pb.GetEmbeddingRequest), file_answers.wanted_part(request)
        message.image_id = str(request.path_params["image_id"])
        message.known_etags.extend(file_answers.known_etags(request))
        message.part.CopyFrom(part or pb.FilePart())
        responses = self._upstream.servers.get_embedding(message, self._caller(request))
        # A name may be given to another image: whoever keeps the file asks whether it is still the one.
        return await file_answers.answer(request, responses, part, "application/octet-stream", "private, no-cache")

    @Operation(
        "GET",
        "/v1/decoders/{decoder}/{graphs}",
        query={"without": _GRAPHS, **fields_of(pb.GetDecoderRequest, without=_NOT_WEIGHTS)},
        answer={"application/zip": _FILE},
        errors=_ERRORS,
    )
    async def decoder(self, request: Request) -> Response:
        """Graphs of an exported decoder and their weights, as a zip archive without compression. Several graphs are
        separated by commas. Never changes. Understands Range and If-None-Match."""
        part, without = file_answers.wanted_part(request), request.query_params.get("without", "")
        message = pb.GetDecoderRequest(
            decoder=str(request.path_params["decoder"]),
            graphs=_names(str(request.path_params["graphs"]), "graphs"),
            without=_names(without, "without") if without else [],
            part=part,
            weights=request.query_params.get("weights", ""),
            known_etags=file_answers.known_etags(request),
        )
        responses = self._upstream.servers.get_decoder(message, self._caller(request))
        cache_control = "private, max-age=31536000, immutable"
        return await file_answers.answer(request, responses, part, "application/zip", cache_control)

    def _caller(self, request: Request) -> Caller:
        return self._upstream.caller(bearer(request))


def _names(text: str, field: str) -> list[str]:
    """Names that are separated by commas."""
    names = text.split(",")
    if "" in names or len(set(names)) < len(names):
        raise Problem(400, f"{field}: a name is empty or given twice", "NO_SUCH_GRAPH", field)
    return names
