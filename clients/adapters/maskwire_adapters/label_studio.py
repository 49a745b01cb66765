"""Label Studio's machine learning backend: https://labelstud.io/guide/ml_create"""

import asyncio
import uuid
from typing import Any, Literal

from maskwire import Prompt
from maskwire.results import EmbeddedImage, Result
from maskwire_gateway.problems import Problem
from pydantic import BaseModel, Field, FiniteFloat, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request

from maskwire_adapters import brush
from maskwire_adapters.label_config import Target, target
from maskwire_adapters.references import References
from maskwire_adapters.segmenter import Segmenter
from maskwire_adapters.serving import Reader, application, get, unfit

_MIN_CORNERS = 3


class _Value(BaseModel):
    """Of a key point or a rectangle, in percent of the image's sides."""

    x: FiniteFloat
    y: FiniteFloat
    width: FiniteFloat = 0
    height: FiniteFloat = 0
    rotation: FiniteFloat = 0
    keypointlabels: list[str] = []
    rectanglelabels: list[str] = []


class _Region(BaseModel):
    type: Literal["keypointlabels", "rectanglelabels"]
    value: _Value
    is_positive: bool = True
    image_rotation: FiniteFloat = 0


class _Context(BaseModel):
    result: list[dict[str, Any]] = []


class _Params(BaseModel):
    context: _Context | None = None


class _Predict(BaseModel):
    tasks: list[dict[str, Any]] = Field(min_length=1)
    label_config: str
    params: _Params | None = None


class _Setup(BaseModel):
    label_config: str = Field(alias="schema")


class _Webhook(BaseModel):
    action: str


class LabelStudio:
    """Answers clicks and rectangles of Label Studio's interactive labelling.

    Args:
        segmenter: Of the servers.
        references: Reads tasks' images.
        simplify_px: How far corners may be from a polygon that are left out.
    """

    def __init__(self, segmenter: Segmenter, references: References, simplify_px: float = 1) -> None:
        self._segmenter = segmenter
        self._references = references
        self._simplify_px = simplify_px

    def application(self) -> Starlette:
        reader = Reader()
        routes = [
            get("/", self.health),
            get("/health", self.health),
            reader.post("/setup", _Setup, self.setup),
            reader.post("/predict", _Predict, self.predict),
            reader.post("/webhook", _Webhook, self.webhook),
        ]
        return application(routes, self._segmenter.client)

    async def health(self, request: Request) -> dict[str, Any]:
        return {"status": "UP", "model_class": "Maskwire"}

    async def setup(self, form: _Setup) -> dict[str, Any]:
        """When a project is connected: its configuration must have a place for masks, and the encoder the model."""
        target(form.label_config)
        return {"model_version": await self._segmenter.model()}

    async def webhook(self, form: _Webhook) -> dict[str, Any]:
        """Nothing is trained."""
        return {"status": "ignored", "action": form.action}

    async def predict(self, form: _Predict) -> dict[str, Any]:
        """The mask for what was clicked in the first task; no results where nothing was."""
        place = target(form.label_config)
        regions = _regions(form.params.context if form.params else None)
        if not regions:
            return {"results": []}
        field = f"tasks[0].data.{place.value}"
        data = form.tasks[0].get("data")
        reference = data.get(place.value) if isinstance(data, dict) else None
        if not isinstance(reference, str) or not reference:
            raise Problem(400, "the task has no image there", "NO_IMAGE", field)
        image = await self._references.read(reference, field)
        result = await self._segmenter.segment(image, lambda embedded: _prompt(regions, embedded), "rle", "polygons")
        labels = next((names for region in reversed(regions) if (names := _labels(region))), [])
        return {"results": [await asyncio.to_thread(self._prediction, place, labels, result)]}

    def _prediction(self, place: Target, labels: list[str], result: Result) -> dict[str, Any]:
        if place.kind == "brushlabels":
            values: list[dict[str, Any]] = [{"format": "rle", "rle": brush.encode(result.mask)}]
        else:
            scale = (100 / result.width, 100 / result.height)
            polygons = result.polygons(self._simplify_px)
            values = [{"points": (polygon * scale).tolist()} for polygon in polygons if len(polygon) >= _MIN_CORNERS]
        regions = [
            {
                "id": uuid.uuid4().hex[:10],
                "from_name": place.from_name,
                "to_name": place.to_name,
                "type": place.kind,
                "original_width": result.width,
                "original_height": result.height,
                "image_rotation": 0,
                "value": {**value, place.kind: labels},
                "score": result.score,
            }
            for value in values
        ]
        return {"model_version": result.model, "score": result.score, "result": regions}


def _regions(context: _Context | None) -> list[_Region]:
    """The clicks and rectangles; other regions and attributes that are sent along have no say."""
    regions = []
    for index, region in enumerate(context.result if context else []):
        if region.get("type") not in ("keypointlabels", "rectanglelabels"):
            continue
        field = f"params.context.result[{index}]"
        try:
            regions.append(_Region.model_validate(region))
        except ValidationError as error:
            raise unfit(error, field) from error
        if regions[-1].image_rotation or regions[-1].value.rotation:
            raise Problem(
                400,
                "turned images and rectangles are not understood; turn it back, and click or draw again",
                "ROTATED",
                field,
            )
    return regions


def _labels(region: _Region) -> list[str]:
    return region.value.keypointlabels if region.type == "keypointlabels" else region.value.rectanglelabels


def _prompt(regions: list[_Region], image: EmbeddedImage) -> Prompt:
    """Percent as pixels: all key points, and the latest rectangle."""
    points = [region for region in regions if region.type == "keypointlabels"]
    box = next((region.value for region in reversed(regions) if region.type == "rectanglelabels"), None)

    def pixels(x: float, y: float) -> tuple[float, float]:
        return x * image.width / 100, y * image.height / 100

    return Prompt(
        points=[pixels(point.value.x, point.value.y) for point in points] or None,
        labels=[int(point.is_positive) for point in points] or None,
        box=(*pixels(box.x, box.y), *pixels(box.x + box.width, box.y + box.height)) if box else None,
    )
