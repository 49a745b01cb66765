"""Clicks and rectangles as labelling tools send them, and the prompts that they become."""

from collections.abc import Sequence
from dataclasses import dataclass

from maskwire import Prompt
from maskwire_core.http.images import clip_to_image
from maskwire_core.http.problems import Problem

_TOLERANCE = 0.05  # how far outside a click may be, as a share of the image's side: a slip of the hand, or rounding


@dataclass(frozen=True)
class Click:
    """A click in pixels of the image.

    Attributes:
        x: From the left.
        y: From the top.
        inside: Whether the clicked place belongs to the object.
        field: Path of the click in the tool's request, for errors.
    """

    x: float
    y: float
    inside: bool
    field: str


@dataclass(frozen=True)
class Rectangle:
    """A rectangle by two opposite corners, in any order, in pixels of the image.

    Attributes:
        x0: First corner.
        y0: First corner.
        x1: Second corner.
        y1: Second corner.
        field: Path of the rectangle in the tool's request, for errors.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    field: str

    def contains(self, click: Click) -> bool:
        """Whether a click is inside the rectangle or on its edge."""
        (left, right), (top, bottom) = sorted((self.x0, self.x1)), sorted((self.y0, self.y1))
        return left <= click.x <= right and top <= click.y <= bottom

    @property
    def area(self) -> float:
        """In square pixels."""
        return abs((self.x1 - self.x0) * (self.y1 - self.y0))


@dataclass(frozen=True)
class Marks:
    """What was marked of one object.

    Attributes:
        clicks: Any number.
        rectangle: Around the object.
    """

    clicks: Sequence[Click] = ()
    rectangle: Rectangle | None = None

    def prompt(self, width: int, height: int) -> Prompt:
        """The prompt for an image of this size. Marks that leave the image end at its edge.

        Args:
            width: Of the image, in pixels.
            height: Of the image, in pixels.

        Raises:
            Problem: A click is far outside, or no part of the rectangle is inside.
        """
        return Prompt(
            points=[_position(click, width, height) for click in self.clicks] or None,
            labels=[int(click.inside) for click in self.clicks] or None,
            box=None if self.rectangle is None else _box(self.rectangle, width, height),
        )


def _position(click: Click, width: int, height: int) -> tuple[float, float]:
    x, y = clip_to_image(click.x, click.y, width, height)
    if abs(x - click.x) > _TOLERANCE * width or abs(y - click.y) > _TOLERANCE * height:
        raise Problem(
            400,
            f"the click at ({click.x:g}, {click.y:g}) is outside the image, which is {width}x{height} pixels; "
            "click inside it",
            "OUT_OF_IMAGE",
            click.field,
        )
    return x, y


def _box(rectangle: Rectangle, width: int, height: int) -> tuple[float, float, float, float]:
    x0, y0 = clip_to_image(rectangle.x0, rectangle.y0, width, height)
    x1, y1 = clip_to_image(rectangle.x1, rectangle.y1, width, height)
    if x0 == x1 or y0 == y1:
        raise Problem(
            400,
            f"the rectangle from ({rectangle.x0:g}, {rectangle.y0:g}) to ({rectangle.x1:g}, {rectangle.y1:g}) covers "
            f"nothing of the image, which is {width}x{height} pixels; draw it around the object",
            "EMPTY_BOX",
            rectangle.field,
        )
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
