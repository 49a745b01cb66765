"""Prompts as Roboflow's package has them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from maskwire.arguments import checked
from maskwire.errors import InvalidRequest
from maskwire.prompts import Prompt
from maskwire.suggest import no_such


@dataclass(frozen=True)
class Point:
    """A click in pixels of the image."""

    x: float
    y: float
    positive: bool


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the image; x and y are its centre."""

    x: float
    y: float
    width: float
    height: float


@checked
@dataclass(frozen=True)
class Sam2Prompt:
    """One object; with neither box nor points, the most prominent one.

    Args:
        box: `Box`, or a dict of its fields.
        points: `Point`s, or dicts of their fields.
    """

    box: Box | Mapping[str, Any] | None = None
    points: Sequence[Point | Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.box is not None:
            object.__setattr__(self, "box", _made(Box, self.box, "box"))
        points = [_made(Point, point, f"points[{index}]") for index, point in enumerate(self.points or ())]
        object.__setattr__(self, "points", points)

    def prompt(self, width: int, height: int) -> Prompt:
        """Returns the prompt for an image of a size in pixels. A box that leaves the image ends at its edge."""
        points: Any = self.points
        box: Any = self.box
        corners = None
        if box is not None:
            xs = np.clip([box.x - box.width / 2, box.x + box.width / 2], 0, width)
            ys = np.clip([box.y - box.height / 2, box.y + box.height / 2], 0, height)
            corners = [xs[0], ys[0], xs[1], ys[1]]
        return Prompt([(each.x, each.y) for each in points], [int(each.positive) for each in points], corners)


@checked
@dataclass(frozen=True)
class Sam2PromptSet:
    """Prompts, one for each object.

    Args:
        prompts: `Sam2Prompt`s, or dicts of their fields; None for the most prominent object.
    """

    prompts: Sequence[Sam2Prompt | Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        made = []
        for index, each in enumerate(self.prompts or ()):
            try:
                made.append(_made(Sam2Prompt, each, ""))
            except InvalidRequest as error:
                raise type(error)(error.message, error.reason, f"prompts[{index}].{error.field}".rstrip(".")) from error
        object.__setattr__(self, "prompts", made)

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "Sam2PromptSet":
        """Makes a set of a dict of its fields."""
        made: Sam2PromptSet = _made(cls, value, "prompts")
        return made

    def of_image(self, width: int, height: int) -> list[Prompt]:
        """Returns the prompts for an image of a size in pixels, at least one."""
        prompts: Any = self.prompts or [Sam2Prompt()]
        return [each.prompt(width, height) for each in prompts]


def in_prompts_words(error: InvalidRequest) -> InvalidRequest:
    """Renames the field of a server's error after that of a `Sam2PromptSet`."""
    field = re.sub(r"\.([xy])_px$", r".\1", error.field).replace(".label", ".positive")
    return type(error)(error.message, error.reason, field, error.retry_after_s)


def _made(kind: Callable[..., Any], value: Any, field: str) -> Any:
    """Makes a dataclass of a dict of its fields; returns one that is made already.

    Raises:
        InvalidRequest: The dict lacks fields, or has others.
    """
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{type(value).__name__} is no {kind.__name__}, nor a dict", "BAD_PROMPT", field)
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    for name in value:
        if name not in known:
            raise InvalidRequest(no_such("field", str(name), known), "BAD_PROMPT", f"{field}.{name}".lstrip("."))
    try:
        return kind(**value)
    except TypeError as error:
        missing = ", ".join(name for name in known if name not in value)
        raise InvalidRequest(f"{kind.__name__} lacks {missing}", "BAD_PROMPT", field) from error
