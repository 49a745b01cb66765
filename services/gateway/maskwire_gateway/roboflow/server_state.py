"""What clients of Roboflow's inference server ask it about itself and its models.

Encoders are started with their models: what is to be loaded or removed here changes nothing, and is answered with the
models that there are.
"""

import uuid
from collections.abc import Sequence
from functools import partial

from maskwire import NotAuthenticated, __version__
from maskwire.transport import Caller
from maskwire.v1 import encoder_pb2 as pb
from maskwire_core.config import GatewaySettings
from maskwire_core.http.bodies import Bodies
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from maskwire_gateway.http.doorkeeper import token_of
from maskwire_gateway.http.media_types import NOT_JSON, check_media_type
from maskwire_gateway.http.routing import JSON, Operation
from maskwire_gateway.roboflow import model_versions
from maskwire_gateway.roboflow.form_reader import read_form
from maskwire_gateway.roboflow.forms import ERRORS_OF_FORMS, QUERY, WITHOUT_EFFECT, ModelForm
from maskwire_gateway.upstream import Upstream

_MAX_BODY_BYTES = 1 << 16
_TASK = "unsupervised-segmentation"


class ServerInfo(TypedDict):
    """Which server it is."""

    name: str
    version: str
    uuid: str


class ModelDescription(TypedDict):
    """A model; its input is square."""

    model_id: str
    task_type: str
    batch_size: int | None
    input_height: int | None
    input_width: int | None
    vram_bytes: int | None
    request_aliases: list[str]
    request_paths: list[str]


class Models(TypedDict):
    """The models that are served."""

    models: list[ModelDescription]


_naming_model = partial(
    Operation,
    "POST",
    query=QUERY,
    accepted=WITHOUT_EFFECT,
    body={JSON: ModelForm},
    example={"model_id": "sam2/hiera_tiny"},
    answer={JSON: Models},
    errors=ERRORS_OF_FORMS,
)


class ServerState:
    """Handlers of the routes.

    Args:
        settings: What answers for models that are not served.
        upstream: Encoders, which know the models.
        bodies: Receives request bodies.
    """

    def __init__(self, settings: GatewaySettings, upstream: Upstream, bodies: Bodies) -> None:
        self._other_model = settings.other_model
        self._upstream = upstream
        self._bodies = bodies
        self._info: ServerInfo = {"name": "Maskwire", "version": __version__, "uuid": str(uuid.uuid4())}

    @Operation("GET", "/info", answer={JSON: ServerInfo}, errors=())
    async def info(self, request: Request) -> Response:
        """Name and version of the server, and an id of this process."""
        return JSONResponse(self._info)

    @Operation("GET", "/model/registry", query=QUERY, accepted=WITHOUT_EFFECT, answer={JSON: Models})
    async def registry(self, request: Request) -> Response:
        """Lists the models that are served."""
        models = await self._upstream.models(self._caller(request))
        return _answer([_described(model) for model in models])

    @_naming_model("/model/add")
    async def add(self, request: Request) -> Response:
        """Lists the models that are served, with the one that answers for a name under that name. Loads nothing: the
        encoder's settings say which models there are."""
        form = await self._read(request)
        models = await self._upstream.models(self._caller(request, form))
        asked = form.model_id or model_versions.VERSIONS[-1]
        chosen = model_versions.choose(asked, models, self._other_model, "model_id")
        described = [_described(model) for model in models]
        if asked not in (one["model_id"] for one in described):
            described.append(_described(chosen, asked))
        return _answer(described)

    @_naming_model("/model/remove")
    async def remove(self, request: Request) -> Response:
        """Removes nothing, and lists the models that are served."""
        return await self._still_there(request, await self._read(request))

    @Operation("POST", "/model/clear", query=QUERY, accepted=WITHOUT_EFFECT, answer={JSON: Models})
    async def clear(self, request: Request) -> Response:
        """Removes nothing, and lists the models that are served."""
        return await self._still_there(request, None)

    async def _still_there(self, request: Request, form: ModelForm | None) -> Response:
        try:
            models = await self._upstream.models(self._caller(request, form))
        except NotAuthenticated:
            # inference-sdk sends no token here by default. Who has none may tidy up as well, and is told of no model.
            if token_of(request) or (form and form.api_key):
                raise
            models = []
        return _answer([_described(model) for model in models])

    async def _read(self, request: Request) -> ModelForm:
        async with self._bodies.receive(request, _MAX_BODY_BYTES) as body:
            check_media_type(request, "JSON", NOT_JSON)
            return read_form(body.data, ModelForm)

    def _caller(self, request: Request, form: ModelForm | None = None) -> Caller:
        """The caller, whose key is the token."""
        return self._upstream.caller(token_of(request) or (form.api_key if form else None) or "")


def _described(model: pb.ModelInfo, asked: str = "") -> ModelDescription:
    """Describes a model.

    Args:
        model: The model.
        asked: The name to describe it under; by default Roboflow's for a published one, else its own.
    """
    known = model_versions.name_of(model)
    name = asked or known
    return {
        "model_id": name,
        "task_type": _TASK,
        "batch_size": None,
        "input_height": model.image_size_px or None,
        "input_width": model.image_size_px or None,
        "vram_bytes": None,
        "request_aliases": [other for other in dict.fromkeys((known, model.name)) if other != name],
        "request_paths": [],
    }


def _answer(models: Sequence[ModelDescription]) -> Response:
    content: Models = {"models": list(models)}
    return JSONResponse(content)
