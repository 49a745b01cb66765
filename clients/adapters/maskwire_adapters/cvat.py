"""CVAT's serverless functions: one interactor, where CVAT expects Nuclio's dashboard."""

import asyncio
from typing import Annotated, Any

from maskwire.suggest import no_such
from maskwire_core.http.images import decode_image
from maskwire_core.http.problems import Problem
from pydantic import Field, FiniteFloat
from starlette.applications import Starlette
from starlette.requests import Request

from maskwire_adapters.marks import Click, Marks, Rectangle
from maskwire_adapters.segmenter import Segmenter
from maskwire_adapters.serving import ToolForm, application, get, post

NAME = "maskwire"

_Point = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]


class _Invocation(ToolForm):
    """An image in base64, clicks in pixels, and two opposite corners of a rectangle."""

    image: str
    pos_points: list[_Point] = Field(default_factory=list)
    neg_points: list[_Point] = Field(default_factory=list)
    obj_bbox: Annotated[list[_Point], Field(min_length=2, max_length=2)] | None = None

    def marks(self) -> Marks:
        """The marks of the object."""
        clicks = [
            Click(x, y, inside, f"{field}[{index}]")
            for field, points, inside in (("pos_points", self.pos_points, True), ("neg_points", self.neg_points, False))
            for index, (x, y) in enumerate(points)
        ]
        rectangle = None
        if self.obj_bbox is not None:
            (x0, y0), (x1, y1) = self.obj_bbox
            rectangle = Rectangle(x0, y0, x1, y1, "obj_bbox")
        return Marks(clicks, rectangle)


class Cvat:
    """Answers CVAT's "AI tools": interactors.

    Args:
        segmenter: Makes the masks.
        port: Port of the adapter, at which CVAT calls the function if it is set up to call functions directly.
    """

    def __init__(self, segmenter: Segmenter, port: int) -> None:
        self._segmenter = segmenter
        self._port = port

    def application(self) -> Starlette:
        """Makes the application."""
        routes = [
            get("/api/functions", self.functions),
            get("/api/functions/{name}", self.function),
            post("/api/function_invocations", _Invocation, self.invoke),
            post("/", _Invocation, self.invoke),
        ]
        return application(routes, self._segmenter.client)

    async def functions(self, request: Request) -> dict[str, Any]:
        """Lists the one function that is offered."""
        return {NAME: self._description()}

    async def function(self, request: Request) -> dict[str, Any]:
        """Describes the function of a name."""
        name = request.path_params["name"]
        if name != NAME:
            raise Problem(404, no_such("function", name, [NAME]), "NO_FUNCTION", "name")
        return self._description()

    async def invoke(self, form: _Invocation) -> dict[str, Any]:
        """Answers the mask as nested lists of 0 and 1, HxW."""
        marks = form.marks()
        if not marks.clicks and marks.rectangle is None:
            raise Problem(400, "click at the object, or draw a rectangle around it", "NO_PROMPTS", "pos_points")
        image = await self._segmenter.embed(await asyncio.to_thread(decode_image, form.image, "image"), "image")
        (result,) = await self._segmenter.segment(image, [marks], "rle", field="pos_points")
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
            "help_message": "Click inside the object, right-click outside of it, or draw a rectangle around it",
            "animated_gif": "",
        }
        return {
            "metadata": {"name": NAME, "namespace": "nuclio", "annotations": annotations},
            "spec": {"description": "SAM 2's mask of an object, from clicks or a box"},
            "status": {"state": "ready", "httpPort": self._port},
        }
