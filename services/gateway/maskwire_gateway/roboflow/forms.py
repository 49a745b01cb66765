"""Bodies of /sam2 requests, with the names, defaults and tolerance that their clients know."""

import re
from typing import Annotated, Any, Literal, Self

from maskwire.v1 import types_pb2
from maskwire_core.http.images import clip_to_image
from maskwire_core.http.problems import Problem
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from maskwire_gateway.rest.json_values import read_logits

_NUMBER = Annotated[float, Field(allow_inf_nan=False)]


class Form(BaseModel):
    """A JSON object. Unknown fields are errors; where a field may be null, [] and {} mean null, too."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _empty_is_null(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        may_be_null = {name for name, field in cls.model_fields.items() if field.default is None}
        return {name: None if name in may_be_null and value in ([], {}) else value for name, value in content.items()}


class Picture(Form):
    """An image: a URL, or a file as base64, with or without a data URI's beginning."""

    type: Literal["url", "base64"]
    value: str


class Click(Form):
    """A click in pixels of the image."""

    x: _NUMBER
    y: _NUMBER
    positive: bool


class CentredBox(Form):
    """A rectangle in pixels of the image; x and y are its centre."""

    x: _NUMBER
    y: _NUMBER
    width: _NUMBER
    height: _NUMBER


class ObjectPrompt(Form):
    """One object. With neither box nor points: the most prominent one."""

    box: CentredBox | None = None
    points: list[Click] | None = None

    def message(self, width: int, height: int) -> types_pb2.Prompt:
        """The prompt for an image of a size in pixels. A box that leaves the image, as boxes of detectors do a little,
        ends at its edge."""
        prompt = types_pb2.Prompt()
        for point in self.points or ():
            prompt.points.add(x_px=point.x, y_px=point.y, label=int(point.positive))
        if self.box is not None:
            x, y, half_width, half_height = self.box.x, self.box.y, self.box.width / 2, self.box.height / 2
            prompt.box.x_min_px, prompt.box.y_min_px = clip_to_image(x - half_width, y - half_height, width, height)
            prompt.box.x_max_px, prompt.box.y_max_px = clip_to_image(x + half_width, y + half_height, width, height)
        return prompt


class PromptSet(Form):
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


class ImageForm(Form):
    """Fields of both routes. The last nine have no effect; clients written for other servers send them."""

    id: str | None = None
    api_key: str | None = Field(None, description="The token, where the servers want one.")
    sam2_version_id: str | None = Field(
        None, description="hiera_tiny, hiera_small, hiera_b_plus or hiera_large, which is the default."
    )
    model_id: str | None = Field(None, description="sam2/hiera_tiny and so on; sam2_version_id goes before it.")
    image: Picture | None = None
    image_id: str | None = Field(None, description="Name of the image; with it, later requests need no image.")
    usage_billable: Any = None
    start: Any = None
    source: Any = None
    source_info: Any = None
    disable_model_monitoring: Any = None
    disable_preproc_auto_orient: Any = None
    disable_preproc_contrast: Any = None
    disable_preproc_grayscale: Any = None
    disable_preproc_static_crop: Any = None

    @property
    def models(self) -> list[tuple[str, str]]:
        """The models that are named, with the names of the fields. The first one counts."""
        fields = ("sam2_version_id", "model_id")
        return [(name, field) for field in fields if (name := getattr(self, field))]


class EmbedForm(ImageForm):
    """POST /sam2/embed_image. Points have no effect: a widespread how-to sends those of its segment_image here too."""

    point_coords: Any = None
    point_labels: Any = None


class SegmentForm(ImageForm):
    """POST /sam2/segment_image."""

    format: Literal["json", "rle", "binary"] = "json"
    prompts: Annotated[PromptSet, BeforeValidator(_prompt_set, json_schema_input_type=Any)] = PromptSet()
    multimask_output: bool = True
    save_logits_to_cache: bool = False
    load_logits_from_cache: bool = False
    point_coords: list[Annotated[list[_NUMBER], Field(min_length=2, max_length=2)]] | None = None
    point_labels: list[Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]] | None = None
    mask_input: Any = Field(
        None, description="Low-resolution logits to refine, of one prompt: rows of numbers, SxS or 1xSxS."
    )
    mask_input_format: Any = Field(None, description="No effect: mask_input is JSON.")
    use_mask_input_cache: Any = Field(None, description="No effect: load_logits_from_cache says it.")

    @field_validator("mask_input")
    @classmethod
    def _rows(cls, value: Any) -> Any:
        return None if value is None else read_logits(value)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.prompts.prompts and self.point_coords:
            raise ValueError("give prompts, or point_coords and point_labels, not both")
        if self.point_labels and not self.point_coords:
            raise ValueError("point_labels come without point_coords")
        if self.mask_input is not None and len(self.prompts.prompts or ()) > 1:
            raise ValueError("mask_input is for one prompt, and there are several")
        return self

    def messages(self, width: int, height: int) -> list[types_pb2.Prompt]:
        """The prompts, at least one, for an image of a size in pixels.

        Raises:
            Problem: LABELS_MISMATCH.
        """
        wanted = [prompt.message(width, height) for prompt in self.prompts.prompts or [ObjectPrompt()]]
        points = self.point_coords or []
        labels = [1] * len(points) if self.point_labels is None else self.point_labels
        if len(points) != len(labels):
            said = f"{len(points)} points but {len(labels)} labels; give one label (1 or 0) for each point"
            raise Problem(400, said, "LABELS_MISMATCH", "point_labels")
        for (x, y), label in zip(points, labels, strict=True):
            wanted[0].points.add(x_px=x, y_px=y, label=label)
        if self.mask_input is not None:
            wanted[0].mask.CopyFrom(self.mask_input)
        return wanted

    def place(self, field: str) -> str:
        """The path in the form of a field of SegmentRequest."""
        found = re.fullmatch(r"prompts\[(\d+)\](?:\.points\[(\d+)\])?(?:\.(\w+))?", field)
        if found is None:
            return field
        _, point, part = found.groups()
        if part == "mask":
            return "mask_input"
        if self.prompts.prompts:
            return re.sub(r"\.([xy])_px$", r".\1", field).replace(".label", ".positive")
        if point is None:
            return "point_coords"
        place = {"x_px": f"point_coords[{point}][0]", "y_px": f"point_coords[{point}][1]"}
        return place.get(part, f"point_labels[{point}]")
