"""The interface of X-AnyLabeling-Server, for X-AnyLabeling's remote models."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import numpy as np
from maskwire import InvalidRequest, Prompt
from maskwire.exports import simplified
from maskwire.results import Result
from maskwire_gateway.pictures import decode
from maskwire_gateway.problems import Problem
from pydantic import BaseModel, Field, FiniteFloat
from starlette.applications import Starlette
from starlette.requests import Request

from maskwire_adapters.segmenter import Segmenter
from maskwire_adapters.serving import Reader, application, get

_LABEL = "AUTOLABEL_OBJECT"  # what X-AnyLabeling replaces with the chosen label when the object is finished
_WIDGETS: dict[str, Any] = {
    "button_add_point": None,
    "button_remove_point": None,
    "button_add_rect": None,
    "button_clear": None,
    "button_finish_object": None,
    "mask_fineness_slider": 10,
    "mask_fineness_value_label": None,
    "toggle_preserve_existing_annotations": False,
}
_EPSILON = 0.001
_MIN_CORNERS = 3


class _Mark(BaseModel):
    """A point, x and y, or a rectangle, two corners, in pixels."""

    type: Literal["point", "rectangle"]
    data: list[FiniteFloat]
    label: Literal[0, 1] = 1


class _Params(BaseModel):
    marks: list[_Mark] = []
    epsilon_factor: Annotated[FiniteFloat, Field(ge=0)] = _EPSILON
    text_prompt: str = ""


class _Predict(BaseModel):
    model: str
    image: str
    params: _Params = _Params()


class AnyLabeling:
    """Answers X-AnyLabeling's marks.

    Args:
        segmenter: Of the servers.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    def application(self) -> Starlette:
        reader = Reader()
        routes = [
            get("/health", self.health),
            get("/v1/models", self.models),
            get("/v1/models/{name}/info", self.model),
            reader.post("/v1/predict", _Predict, self.predict),
        ]
        return application(routes, self._segmenter.client, _told)

    async def health(self, request: Request) -> dict[str, Any]:
        return {"status": "healthy", "models_loaded": 1, "timestamp": datetime.now(UTC).isoformat()}

    async def models(self, request: Request) -> dict[str, Any]:
        name = await self._segmenter.model()
        return {"success": True, "data": {name: _description(name)}}

    async def model(self, request: Request) -> dict[str, Any]:
        name = await self._served(request.path_params["name"])
        return {"success": True, "data": {"model_id": name, **_description(name)}}

    async def predict(self, form: _Predict) -> dict[str, Any]:
        """The mask of the marks as polygons, its outer contours; nothing where there are no marks."""
        await self._served(form.model)
        if form.params.text_prompt:
            raise Problem(400, "SAM 2 knows no text; set points or a rectangle", "NO_TEXT", "params.text_prompt")
        image = await asyncio.to_thread(decode, form.image, "image")
        shapes: list[dict[str, Any]] = []
        if form.params.marks:
            prompt = _prompt(form.params.marks)
            result = await self._segmenter.segment(image, lambda _: prompt, "polygons")
            shapes = _shapes(result, form.params.epsilon_factor)
        return {"success": True, "data": {"shapes": shapes, "description": ""}}

    async def _served(self, name: str) -> str:
        served = await self._segmenter.model()
        if name != served:
            raise Problem(404, f"there is no model {name!r}; this serves {served!r}", "MODEL_NOT_FOUND", "model")
        return served


def _description(name: str) -> dict[str, Any]:
    return {
        "display_name": f"Maskwire: {name}",
        "widgets": [{"name": widget, "value": value} for widget, value in _WIDGETS.items()],
        "params": {"epsilon_factor": _EPSILON},
        "batch_processing_mode": None,
    }


def _told(problem: Problem) -> dict[str, Any]:
    message = f"{problem.field}: {problem.message}" if problem.field else problem.message
    return {"success": False, "error": {"code": problem.reason, "message": message}}


def _prompt(marks: list[_Mark]) -> Prompt:
    """All points, and the latest rectangle.

    Raises:
        InvalidRequest: A mark has too few numbers, or too many.
    """
    points, labels, box = [], [], None
    for index, mark in enumerate(marks):
        wanted = 2 if mark.type == "point" else 4
        if len(mark.data) != wanted:
            raise InvalidRequest(f"a {mark.type} has {wanted} numbers", "BAD_MARK", f"params.marks[{index}].data")
        if mark.type == "point":
            points.append(tuple(mark.data))
            labels.append(mark.label)
        else:
            (x0, x1), (y0, y1) = sorted(mark.data[::2]), sorted(mark.data[1::2])
            box = (x0, y0, x1, y1)
    return Prompt(points or None, labels or None, box)


def _shapes(result: Result, epsilon_factor: float) -> list[dict[str, Any]]:
    """Closed polygons whose tolerance is a share of their length, as X-AnyLabeling asks for it."""
    shapes = []
    for polygon in result.polygons():
        closed = np.concatenate([polygon, polygon[:1]])
        length = float(np.linalg.norm(np.diff(closed, axis=0), axis=1).sum())
        corners = simplified(polygon, epsilon_factor * length)
        if len(corners) >= _MIN_CORNERS:
            points = np.concatenate([corners, corners[:1]]).astype(float).tolist()
            shape = {"label": _LABEL, "shape_type": "polygon", "points": points, "score": min(1, max(0, result.score))}
            shapes.append(shape)
    return shapes
