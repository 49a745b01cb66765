"""Label Studio's machine learning backend: https://labelstud.io/guide/ml_create"""

import asyncio
from typing import Any, Literal

from maskwire import EmbeddedImage, Result
from maskwire_core.http.problems import Problem
from pydantic import Field, FiniteFloat, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request

from maskwire_adapters.label_config import Target, find_target
from maskwire_adapters.label_studio_regions import regions
from maskwire_adapters.marks import Click, Marks, Rectangle
from maskwire_adapters.prewarming import Prewarming
from maskwire_adapters.references import References
from maskwire_adapters.segmenter import Segmenter
from maskwire_adapters.serving import ToolForm, application, get, misfit, post

_SETUP_S = 2.0  # Label Studio itself waits 3 s, and then shows nothing but a timeout
_MARKS_FIELD = "params.context.result"


class _Value(ToolForm):
    """A key point or a rectangle, in percent of the image's sides."""

    x: FiniteFloat
    y: FiniteFloat
    width: FiniteFloat = 0
    height: FiniteFloat = 0
    rotation: FiniteFloat = 0
    keypointlabels: list[str] = Field(default_factory=list)
    rectanglelabels: list[str] = Field(default_factory=list)


class _Region(ToolForm):
    type: Literal["keypointlabels", "rectanglelabels"]
    value: _Value
    is_positive: bool = True
    image_rotation: FiniteFloat = 0
    original_width: int | None = None
    original_height: int | None = None

    @property
    def labels(self) -> list[str]:
        """The region's labels."""
        return self.value.keypointlabels if self.type == "keypointlabels" else self.value.rectanglelabels


class _Context(ToolForm):
    result: list[dict[str, Any]] = Field(default_factory=list)


class _Params(ToolForm):
    context: _Context = _Context()


class _Predict(ToolForm):
    tasks: list[dict[str, Any]] = Field(min_length=1)
    label_config: str
    project: str | int = ""
    params: _Params = _Params()


class _Setup(ToolForm):
    label_config: str = Field(alias="schema")


class _Training(ToolForm):
    action: str = ""  # of a webhook, and of newer versions' "Start training"; older ones ask for /train


class LabelStudio:
    """Answers clicks and rectangles of Label Studio's interactive labelling.

    Args:
        segmenter: Makes the masks.
        references: Reads the images of tasks.
        simplify_px: How far polygons may deviate from the mask's outline, in pixels.
        prewarm: How many of the tasks after one that is clicked in are embedded ahead; 0: none.
    """

    def __init__(self, segmenter: Segmenter, references: References, simplify_px: float = 1, prewarm: int = 0) -> None:
        self._segmenter = segmenter
        self._references = references
        self._simplify_px = simplify_px
        self._prewarming = Prewarming(segmenter, references, prewarm)

    def application(self) -> Starlette:
        """Makes the application."""
        routes = [
            get("/", self.health),
            get("/health", self.health),
            get("/versions", self.versions),
            post("/setup", _Setup, self.setup),
            post("/predict", _Predict, self.predict),
            post("/webhook", _Training, self.train),
            post("/train", _Training, self.train),
        ]
        return application(routes, self._segmenter.client, beside=self._prewarming)

    async def health(self, request: Request) -> dict[str, Any]:
        """Answers that the backend is up."""
        return {"status": "UP", "model_class": "Maskwire"}

    async def versions(self, request: Request) -> dict[str, Any]:
        """The versions that Label Studio lets users choose from: the one model that answers."""
        return {"versions": [await self._segmenter.model()]}

    async def setup(self, form: _Setup) -> dict[str, Any]:
        """Checks that a project's configuration has a place for masks, and that the encoder answers."""
        find_target(form.label_config)
        try:
            async with asyncio.timeout(_SETUP_S):
                return {"model_version": await self._segmenter.model()}
        except TimeoutError as error:
            raise Problem(503, "Maskwire's encoder does not answer; is it running?", "UNAVAILABLE") from error

    async def train(self, form: _Training) -> dict[str, Any]:
        """Ignores an event of the project, and the wish to train: nothing is trained."""
        return {"status": "ignored", "action": form.action}

    async def predict(self, form: _Predict) -> dict[str, Any]:
        """Segments what is marked in the first task. If nothing is, each task gets an empty prediction."""
        target = find_target(form.label_config)
        marked = _marked(form.params.context.result)
        if not marked:
            empty = {"model_version": await self._segmenter.model(), "score": 0.0, "result": []}
            return {"results": [empty] * len(form.tasks)}
        field = f"tasks[0].data.{target.value}"
        data = form.tasks[0].get("data")
        reference = data.get(target.value) if isinstance(data, dict) else None
        if not isinstance(reference, str) or not reference:
            raise Problem(400, "the task has no image here", "NO_IMAGE", field)
        image = await self._segmenter.embed(await self._references.read(reference, field), field)
        marks = _marks(marked, image)
        (result,) = await self._segmenter.segment(image, [marks], "rle", "polygons", field=_MARKS_FIELD)
        labels = next((region.labels for region in reversed(marked.values()) if region.labels), [])
        prediction = await asyncio.to_thread(self._prediction, target, labels, result)
        self._prewarming.clicked(str(form.project), form.tasks[0].get("id"), target.value)
        return {"results": [prediction]}

    def _prediction(self, target: Target, labels: list[str], result: Result) -> dict[str, Any]:
        made = regions(target, labels, result, self._simplify_px)
        return {"model_version": result.model, "score": result.score, "result": made}


def _marked(content: list[dict[str, Any]]) -> dict[str, _Region]:
    """Reads key points and rectangles, by their paths in the request. Other regions and attributes are ignored."""
    marked = {}
    for index, each in enumerate(content):
        if each.get("type") not in ("keypointlabels", "rectanglelabels"):
            continue
        field = f"{_MARKS_FIELD}[{index}]"
        try:
            region = _Region.model_validate(each)
        except ValidationError as error:
            raise misfit(error, field) from error
        if region.image_rotation or region.value.rotation:
            raise Problem(
                400,
                "turned images and rectangles are not understood; turn it back, and click or draw again",
                "ROTATED",
                field,
            )
        marked[field] = region
    return marked


def _marks(regions: dict[str, _Region], image: EmbeddedImage) -> Marks:
    """Converts all key points and the latest rectangle from percent to pixels."""
    clicks: list[Click] = []
    rectangle = None
    for field, region in regions.items():
        _check_size(region, image, field)
        value = region.value
        x, y = value.x * image.width / 100, value.y * image.height / 100
        if region.type == "keypointlabels":
            clicks.append(Click(x, y, region.is_positive, f"{field}.value"))
        else:
            width, height = value.width * image.width / 100, value.height * image.height / 100
            rectangle = Rectangle(x, y, x + width, y + height, f"{field}.value")
    return Marks(clicks, rectangle)


def _check_size(region: _Region, image: EmbeddedImage, field: str) -> None:
    shown = (region.original_width or image.width, region.original_height or image.height)
    if shown == (image.width, image.height):
        return
    if shown == (image.height, image.width):
        remedy = "its orientation is stored in a way that only one of them reads: save the image upright and import it"
    else:
        remedy = "the task's image must be the file that is shown, not a smaller or larger copy: import the file"
    raise Problem(
        400,
        f"Label Studio shows the image with {shown[0]}x{shown[1]} pixels and Maskwire reads it as "
        f"{image.width}x{image.height}; {remedy} again",
        "SIZE_MISMATCH",
        f"{field}.original_width",
    )
