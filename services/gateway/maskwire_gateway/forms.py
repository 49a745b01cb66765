"""Bodies of /sam2 requests, with the names, defaults and tolerance that their clients know."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from maskwire import Prompt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from maskwire_gateway.clipping import clip_to_image

VERSION = "hiera_large"
"""The version that is meant where none is named."""

_NUMBER = Annotated[float, Field(allow_inf_nan=False)]


class Picture(BaseModel):
    """An image: a URL, or a file as base64, with or without a data URI's beginning."""

    type: Literal["url", "base64"]
    value: str


class Click(BaseModel):
    """A click in pixels of the image."""

    x: _NUMBER
    y: _NUMBER
    positive: bool


class CentredBox(BaseModel):
    """A rectangle in pixels of the image; x and y are its centre."""

    x: _NUMBER
    y: _NUMBER
    width: _NUMBER
    height: _NUMBER


class ObjectPrompt(BaseModel):
    """One object. With neither box nor points: the most prominent one."""

    box: CentredBox | None = None
    points: list[Click] | None = None

    def prompt(self, width: int, height: int) -> Prompt:
        """As the client takes it. A box that leaves the image, as detectors' boxes do by fractions, ends at its edge.

        Args:
            width: Of the image, in pixels.
            height: Likewise.
        """
        points, box = self.points or [], None
        if self.box is not None:
            x, y, half_width, half_height = self.box.x, self.box.y, self.box.width / 2, self.box.height / 2
            box = (
                *clip_to_image(x - half_width, y - half_height, width, height),
                *clip_to_image(x + half_width, y + half_height, width, height),
            )
        return Prompt(
            points=[(point.x, point.y) for point in points],
            labels=[int(point.positive) for point in points],
            box=box,
        )


class PromptSet(BaseModel):
    """Prompts, each for an object; null for the most prominent one."""

    prompts: list[ObjectPrompt] | None = None


def _prompt_set(value: Any) -> Any:
    """A list of prompts, or one alone, as a set."""
    if value is None:
        return {}
    if isinstance(value, list):
        return {"prompts": value}
    if isinstance(value, dict) and "prompts" not in value and ("points" in value or "box" in value):
        return {"prompts": [value]}
    return value


class ImageForm(BaseModel):
    """What both routes take; what else a body holds is ignored."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    id: str | None = None
    api_key: str | None = None
    sam2_version_id: str | None = Field(VERSION, description="hiera_tiny, hiera_small, hiera_b_plus or hiera_large.")
    model_id: str | None = Field(None, description="sam2/hiera_tiny and so on; sam2_version_id goes before it.")
    image: Picture | None = None
    image_id: str | None = Field(None, description="Name of the image; with it, later requests need no image.")

    @property
    def version(self) -> str | None:
        """The model that was asked for; None where the default is meant."""
        if "sam2_version_id" in self.model_fields_set and self.sam2_version_id is not None:
            return self.sam2_version_id
        return self.model_id


class EmbedForm(ImageForm):
    """POST /sam2/embed_image."""


class SegmentForm(ImageForm):
    """POST /sam2/segment_image."""

    format: Literal["json", "rle", "binary"] = "json"
    prompts: Annotated[PromptSet, BeforeValidator(_prompt_set, json_schema_input_type=Any)] = PromptSet()
    multimask_output: bool = True
    save_logits_to_cache: bool = False
    load_logits_from_cache: bool = False
    point_coords: list[Annotated[list[_NUMBER], Field(min_length=2, max_length=2)]] | None = None
    point_labels: list[int] | None = None

    def wanted(self, width: int, height: int) -> Sequence[Prompt]:
        """At least one prompt; sizes as in `ObjectPrompt.prompt`."""
        if self.prompts.prompts:
            return [prompt.prompt(width, height) for prompt in self.prompts.prompts]
        return [Prompt(points=self.point_coords, labels=self.point_labels if self.point_coords else None)]
