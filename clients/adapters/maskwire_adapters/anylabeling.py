"""The interface of X-AnyLabeling-Server, for X-AnyLabeling's remote models."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import numpy as np
from maskwire import Result
from maskwire.exports import simplified
from maskwire.suggest import no_such
from maskwire_core.http.images import decode_image
from maskwire_core.http.problems import Problem
from pydantic import Field, FiniteFloat
from starlette.applications import Starlette
from starlette.requests import Request

from maskwire_adapters.marks import Click, Marks, Rectangle
from maskwire_adapters.segmenter import Segmenter
from maskwire_adapters.serving import ToolForm, application, get, post

_LABEL = "AUTOLABEL_OBJECT"  # X-AnyLabeling puts the chosen label in its place when the object is finished
_WIDGETS: dict[str, Any] = {
    "button_add_point": None,
    "button_remove_point": None,
    "button_add_rect": None,
    "button_clear": None,
    "button_finish_object": None,
    "mask_fineness_slider": 10,
    "mask_fineness_value_label": None,
    # "Replace (Off)". While it is on, X-AnyLabeling deletes all shapes of the image when a request fails.
    "toggle_preserve_existing_annotations": True,
}
_EPSILON = 0.001


class _Mark(ToolForm):
    """A click, x and y, or a rectangle, two opposite corners, in pixels."""

    type: Literal["point", "rectangle"]
    data: list[FiniteFloat]
    label: Literal[0, 1] = 1


class _Params(ToolForm):
    marks: list[_Mark] = Field(default_factory=list)
    epsilon_factor: Annotated[FiniteFloat, Field(ge=0)] = _EPSILON
    text_prompt: str = ""


class _Predict(ToolForm):
    model: str
    image: str
    params: _Params = _Params()


class AnyLabeling:
    """Answers X-AnyLabeling's marks.

    Args:
        segmenter: Makes the masks.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    def application(self) -> Starlette:
        """Makes the application."""
        routes = [
            get("/health", self.health),
            get("/v1/models", self.models),
            get("/v1/models/{name}/info", self.model),
            post("/v1/predict", _Predict, self.predict),
        ]
        return application(routes, self._segmenter.client, _error_content)

    async def health(self, request: Request) -> dict[str, Any]:
        """Answers that the server is up."""
        return {"status": "healthy", "models_loaded": 1, "timestamp": datetime.now(UTC).isoformat()}

    async def models(self, request: Request) -> dict[str, Any]:
        """Lists the one model that is offered, with its controls in X-AnyLabeling."""
        name = await self._segmenter.model()
        return {"success": True, "data": {name: _description(name)}}

    async def model(self, request: Request) -> dict[str, Any]:
        """Describes the model of a name."""
        name = await self._served(request.path_params["name"])
        return {"success": True, "data": {"model_id": name, **_description(name)}}

    async def predict(self, form: _Predict) -> dict[str, Any]:
        """Answers the outer contours of the marked objects as polygons; none if nothing is marked."""
        await self._served(form.model)
        if form.params.text_prompt:
            raise Problem(400, "SAM 2 understands no text; click or draw a rectangle", "NO_TEXT", "params.text_prompt")
        data = await asyncio.to_thread(decode_image, form.image, "image")
        objects = _objects(form.params.marks)
        shapes: list[dict[str, Any]] = []
        if objects:
            image = await self._segmenter.embed(data, "image")
            results = await self._segmenter.segment(image, objects, "polygons", field="params.marks")
            shapes = [shape for result in results for shape in _shapes(result, form.params.epsilon_factor)]
        # Without "replace" each answer deletes the image's other shapes.
        return {"success": True, "data": {"shapes": shapes, "description": "", "replace": False}}

    async def _served(self, name: str) -> str:
        served = await self._segmenter.model()
        if name != served:
            raise Problem(404, no_such("model", name, [served]), "MODEL_NOT_FOUND", "model")
        return served


def _description(name: str) -> dict[str, Any]:
    return {
        "display_name": f"Maskwire: {name}",
        "widgets": [{"name": widget, "value": value} for widget, value in _WIDGETS.items()],
        "params": {"epsilon_factor": _EPSILON},
        "batch_processing_mode": None,
    }


def _error_content(problem: Problem) -> dict[str, Any]:
    return {"success": False, "error": {"code": problem.reason, "message": str(problem)}}


def _objects(marks: list[_Mark]) -> list[Marks]:
    """Groups marks by the objects that they belong to.

    Without a rectangle all clicks mark one object, and with one rectangle they refine it. Each of several rectangles is
    an object: a click belongs to the smallest rectangle that contains it. Clicks outside all of them mark one more
    object; if all of these are negative, they hold for every rectangle.
    """
    clicks: list[Click] = []
    rectangles: list[Rectangle] = []
    for index, mark in enumerate(marks):
        field = f"params.marks[{index}]"
        wanted = 2 if mark.type == "point" else 4
        if len(mark.data) != wanted:
            raise Problem(400, f"a {mark.type} has {wanted} numbers, not {len(mark.data)}", "BAD_MARK", f"{field}.data")
        if mark.type == "point":
            x, y = mark.data
            clicks.append(Click(x, y, bool(mark.label), field))
        elif mark.label:
            x0, y0, x1, y1 = mark.data
            rectangles.append(Rectangle(x0, y0, x1, y1, field))
        else:
            raise Problem(
                400,
                "SAM 2 understands no rectangles around what does not belong to the object; use clicks",
                "NEGATIVE_RECTANGLE",
                f"{field}.label",
            )
    if len(rectangles) < 2:
        return [Marks(clicks, next(iter(rectangles), None))] if marks else []
    owned: list[list[Click]] = [[] for _ in rectangles]
    loose: list[Click] = []
    for click in clicks:
        around = [at for at, rectangle in enumerate(rectangles) if rectangle.contains(click)]
        (owned[min(around, key=lambda at: rectangles[at].area)] if around else loose).append(click)
    if any(click.inside for click in loose):
        return [*map(Marks, owned, rectangles), Marks(loose)]
    return [Marks([*own, *loose], rectangle) for own, rectangle in zip(owned, rectangles, strict=True)]


def _shapes(result: Result, epsilon_factor: float) -> list[dict[str, Any]]:
    """Makes closed polygons, simplified with a tolerance of `epsilon_factor` times their length."""
    shapes = []
    for polygon in result.polygons():
        closed = np.concatenate([polygon, polygon[:1]])
        length = float(np.linalg.norm(np.diff(closed, axis=0), axis=1).sum())
        corners = simplified(polygon, epsilon_factor * length)
        points = np.concatenate([corners, corners[:1]]).astype(float).tolist()
        shapes.append(
            {"label": _LABEL, "shape_type": "polygon", "points": points, "score": min(1, max(0, result.score))}
        )
    return shapes
