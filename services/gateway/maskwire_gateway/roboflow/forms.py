"""Bodies of /sam2 requests, with the names, defaults and tolerance that their clients know."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from maskwire_gateway.http.routing import ERRORS, Json
from maskwire_gateway.rest.json_values import read_logits

QUERY: Json = {"api_key": {"type": "string"}}
"""Parameters of the query that have an effect."""

WITHOUT_EFFECT = ("countinference", "service_secret", "source", "source_info", "disable_model_monitoring")
"""Parameters that clients written for other servers send as well."""

ERRORS_OF_FORMS = (*ERRORS, 408, 413, 415, 422)
"""Statuses of the errors of routes that read a form."""

NO_TEXT = "prompts of text need SAM 3, and SAM 2 answers here: give points, or a box around the object"
"""The error of requests that name a concept in words."""

_MOST_FIELDS = 100  # of one object: each unknown one is an error, with the most similar field

_NUMBER = Annotated[float, Field(allow_inf_nan=False)]


class Form(BaseModel):
    """A JSON object. Unknown fields are errors; where a field may be null, [] and {} mean null, too."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _empty_is_null(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        if len(content) > _MOST_FIELDS:
            raise ValueError(f"it has {len(content)} fields; at most {_MOST_FIELDS} are read")
        may_be_null = {name for name, field in cls.model_fields.items() if field.default is None}
        return {name: None if name in may_be_null and value in ([], {}) else value for name, value in content.items()}


def _folded(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class Picture(Form):
    """An image: a URL, or a file as base64, with or without a data URI's beginning. The type is in any case."""

    type: Annotated[Literal["url", "base64"], BeforeValidator(_folded)]
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
    points: list[Click] | None = Field(None, fail_fast=True)

    @model_validator(mode="before")
    @classmethod
    def _not_text(cls, content: Any) -> Any:
        if isinstance(content, dict) and (content.get("text") or content.get("type") == "text"):
            raise ValueError(NO_TEXT)
        return content


class PromptSet(Form):
    """Prompts, each for an object; null for the most prominent one."""

    prompts: list[ObjectPrompt] | None = Field(None, fail_fast=True)


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


class ModelForm(Form):
    """POST /model/add and /model/remove."""

    model_id: str | None = Field(None, description="sam2/hiera_tiny and so on, or the name of a served model.")
    model_type: str | None = None
    api_key: str | None = Field(None, description="The token, where the servers want one.")


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
    point_coords: list[Annotated[list[_NUMBER], Field(min_length=2, max_length=2)]] | None = Field(None, fail_fast=True)
    point_labels: list[Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]] | None = Field(None, fail_fast=True)
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
