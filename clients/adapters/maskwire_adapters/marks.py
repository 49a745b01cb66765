"""Clicks and rectangles as labelling tools send them, and the prompts that they become."""

from collections.abc import Sequence
from dataclasses import dataclass

from maskwire import Prompt
from maskwire_core.http.images import clip_to_image
from maskwire_core.http.problems import Problem

_TOLERANCE = 0.05  # how far outside a click may be, as a share of the image's side: a slip of the hand, or rounding


@dataclass(frozen=True)
class Click:
    """A click."""

    x: float  # pixels from the left edge of the image
    y: float  # pixels from its top edge
    inside: bool  # whether the clicked place belongs to the object
    field: str  # path of the click in the tool's request, for errors

    def position(self, width: int, height: int) -> tuple[float, float]:
        """The position within an image of that size in pixels; slightly outside counts as at its edge.

        Raises:
            Problem: OUT_OF_IMAGE: the click is far outside.
        """
        x, y = clip_to_image(self.x, self.y, width, height)
        if abs(x - self.x) > _TOLERANCE * width or abs(y - self.y) > _TOLERANCE * height:
            raise Problem(
                400,
                f"the click at ({self.x:g}, {self.y:g}) is outside the image, which is {width}x{height} pixels; "
                "click inside it",
                "OUT_OF_IMAGE",
                self.field,
            )
        return x, y


@dataclass(frozen=True)
class Rectangle:
    """A rectangle by two opposite corners in any order, in pixels of the image."""

    x0: float  # x of the first corner
    y0: float  # y of the first corner
    x1: float  # x of the second corner
    y1: float  # y of the second corner
    field: str  # path of the rectangle in the tool's request, for errors

    def contains(self, click: Click) -> bool:
        """Whether a click is inside the rectangle or on its edge."""
        (left, right), (top, bottom) = sorted((self.x0, self.x1)), sorted((self.y0, self.y1))
        return left <= click.x <= right and top <= click.y <= bottom

    @property
    def area(self) -> float:
        """The area in square pixels."""
        return abs((self.x1 - self.x0) * (self.y1 - self.y0))

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part within an image of that size in pixels: x_min, y_min, x_max, y_max.

        Raises:
            Problem: EMPTY_BOX: there is none.
        """
        x0, y0 = clip_to_image(self.x0, self.y0, width, height)
        x1, y1 = clip_to_image(self.x1, self.y1, width, height)
        if x0 == x1 or y0 == y1:
            raise Problem(
                400,
                f"the rectangle from ({self.x0:g}, {self.y0:g}) to ({self.x1:g}, {self.y1:g}) covers "
                f"nothing of the image, which is {width}x{height} pixels; draw it around the object",
                "EMPTY_BOX",
                self.field,
            )
        return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


@dataclass(frozen=True)
class Marks:
    """The marks of one object."""

    clicks: Sequence[Click] = ()  # clicks inside the object and outside of it
    rectangle: Rectangle | None = None  # A rectangle around the object

    def prompt(self, width: int, height: int) -> Prompt:
        """The prompt for an image of that size in pixels."""
        return Prompt(
            points=[click.position(width, height) for click in self.clicks] or None,
            labels=[int(click.inside) for click in self.clicks] or None,
            box=None if self.rectangle is None else self.rectangle.box(width, height),
        )
