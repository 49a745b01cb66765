"""CVAT's serverless functions: one interactor, where CVAT expects Nuclio's dashboard."""

import asyncio
from typing import Annotated, Any

from maskwire import Prompt
from maskwire_gateway.pictures import decode
from maskwire_gateway.problems import Problem
from pydantic import BaseModel, Field, FiniteFloat
from starlette.applications import Starlette
from starlette.requests import Request

from maskwire_adapters.segmenter import Segmenter
from maskwire_adapters.serving import Reader, application, get

NAME = "maskwire"

_Point = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]


class _Invocation(BaseModel):
    """An image in base64, clicks in pixels, and the corners of a box."""

    image: str
    pos_points: list[_Point] = []
    neg_points: list[_Point] = []
    obj_bbox: Annotated[list[_Point], Field(min_length=2, max_length=2)] | None = None


class Cvat:
    """Answers CVAT's "AI tools": interactors.

    Args:
        segmenter: Of the servers.
        port: Where this listens; CVAT goes there if it calls functions directly.
    """

    def __init__(self, segmenter: Segmenter, port: int) -> None:
        self._segmenter = segmenter
        self._port = port

    def application(self) -> Starlette:
        reader = Reader()
        routes = [
            get("/api/functions", self.functions),
            get("/api/functions/{name}", self.function),
            reader.post("/api/function_invocations", _Invocation, self.invoke),
            reader.post("/", _Invocation, self.invoke),
        ]
        return application(routes, self._segmenter.client)

    async def functions(self, request: Request) -> dict[str, Any]:
        return {NAME: self._description()}

    async def function(self, request: Request) -> dict[str, Any]:
        name = request.path_params["name"]
        if name != NAME:
            raise Problem(404, f"there is no function {name!r}; there is {NAME!r}", "NO_FUNCTION", "name")
        return self._description()

    async def invoke(self, form: _Invocation) -> dict[str, Any]:
        """The mask as 0 and 1, HxW."""
        points = form.pos_points + form.neg_points
        if not points and form.obj_bbox is None:
            raise Problem(400, "click at the object, or draw a box around it", "NO_PROMPTS", "pos_points")
        image = await asyncio.to_thread(decode, form.image, "image")
        labels = [1] * len(form.pos_points) + [0] * len(form.neg_points)
        prompt = Prompt(points or None, labels or None, _box(form.obj_bbox))
        result = await self._segmenter.segment(image, lambda _: prompt, "rle")
        return {"mask": await asyncio.to_thread(result.mask.astype(int).tolist)}

    def _description(self) -> dict[str, Any]:
        annotations = {
            "name": "Maskwire (SAM 2)",
            "type": "interactor",
            "version": "2",
            "spec": "[]",
            "min_pos_points": "0",
            "min_neg_points": "0",
            "startswith_box_optional": "true",
            "help_message": "Click inside the object, right-click outside of it, or draw a box around it",
            "animated_gif": "",
        }
        return {
            "metadata": {"name": NAME, "namespace": "nuclio", "annotations": annotations},
            "spec": {"description": "SAM 2's mask of an object, from clicks or a box"},
            "status": {"state": "ready", "httpPort": self._port},
        }


def _box(corners: list[_Point] | None) -> tuple[float, float, float, float] | None:
    """Any two opposite corners as x_min, y_min, x_max, y_max."""
    if corners is None:
        return None
    (x0, y0), (x1, y1) = corners
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
