"""Images with the objects that somebody marked in them, whatever the tool."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from maskwire import rle
from maskwire.datasets import values
from maskwire.errors import InvalidRequest
from maskwire.prompts import Prompt

BoundingBox = tuple[float, float, float, float]
Read = TypeVar("Read")

_TOGETHER = 16


@dataclass(frozen=True)
class Annotation:
    """A marked object: at least one of a box, points and a mask.

    Attributes:
        label: Name of its class.
        box: x_min, y_min, x_max, y_max in pixels, or None; where there is a mask, see `bounds`.
        points: Clicks on it as (x, y) in pixels.
        rle: Its mask as COCO RLE, {"size": [height, width], "counts": str}, or None.
        score: How good the mask is, as far as it is known; 1 if a person drew it.
    """

    label: str
    box: BoundingBox | None = None
    points: Sequence[tuple[float, float]] = ()
    rle: dict[str, Any] | None = None
    score: float = 1.0

    @property
    def array(self) -> NDArray[np.bool_]:
        """The mask at the image's size, HxW.

        Raises:
            InvalidRequest: NO_MASK: there is none. BAD_MASK_DATA: `rle` is no run lengths of its size.
        """
        if self.rle is None:
            raise InvalidRequest(
                f"{self.label!r} has no mask; segment its prompt first ('maskwire prelabel')", "NO_MASK"
            )
        height, width = self.rle["size"]
        return self._known(rle.pixels(self.rle["counts"], height, width))

    @property
    def area(self) -> float:
        """Area of the mask in pixels; of the box, if there is no mask."""
        if self.rle is not None:
            return float(self._known(rle.area(self.rle["counts"])))
        x_min, y_min, x_max, y_max = self.bounds
        return (x_max - x_min) * (y_max - y_min)

    @property
    def bounds(self) -> BoundingBox:
        """Bounding box of the mask, else the box, else that of the points: x_min, y_min, x_max, y_max in pixels."""
        if self.rle is not None:
            x_min, y_min, x_max, y_max = self._known(rle.bounding_box(self.rle["counts"], self.rle["size"][0]))
            return float(x_min), float(y_min), float(x_max), float(y_max)
        if self.box is not None:
            return self.box
        xs, ys = zip(*self.points, strict=True) if self.points else ((0.0,), (0.0,))
        return min(xs), min(ys), max(xs), max(ys)

    def prompt(self) -> Prompt:
        """Returns what to segment: the box and the points; of a mask alone, its bounding box."""
        box = self.box if self.box is not None or self.points else self.bounds
        return Prompt(list(self.points), None, box)

    def _known(self, read: Read | None) -> Read:
        """Returns what was read of the mask, which is None if it is no run lengths."""
        if read is None:
            raise InvalidRequest(f"the mask of {self.label!r} is no run lengths of its size", "BAD_MASK_DATA", "rle")
        return read


@dataclass(frozen=True)
class AnnotatedImage:
    """An image of a data set.

    Attributes:
        file_name: Path to the image, as the data set states it.
        width: Width in pixels.
        height: Height in pixels.
        annotations: Its objects.
    """

    file_name: str
    width: int
    height: int
    annotations: Sequence[Annotation]

    def prompts(self) -> list[Prompt]:
        """Returns a prompt for each object; see `Annotation.prompt`."""
        return [annotation.prompt() for annotation in self.annotations]


def classes_of(images: Sequence[AnnotatedImage]) -> list[str]:
    """Returns the names of all classes, in the order in which they appear."""
    return list(dict.fromkeys(each.label for image in images for each in image.annotations))


def rle_of(mask: NDArray[Any]) -> dict[str, Any]:
    """Encodes a mask, HxW, as COCO RLE."""
    return as_text(coco.encode(np.asfortranarray(mask.astype(np.uint8))))


def rle_of_polygons(polygons: Sequence[Sequence[float]], width: int, height: int) -> dict[str, Any]:
    """Encodes the union of polygons, each x0, y0, x1, y1, ... in pixels along their edges, as COCO RLE.

    Raises:
        ValueError: One of them is no polygon, or its outline is longer than is filled.
    """
    corners: Any = [values.polygon(polygon) for polygon in polygons]
    masks: Any = coco.frPyObjects(corners, height, width)
    while len(masks) > 1:  # a few at a time: pycocotools takes time for all that is joined, with each one more
        masks = [coco.merge(masks[first : first + _TOGETHER]) for first in range(0, len(masks), _TOGETHER)]
    return as_text(masks[0])


def as_text(encoded: Any) -> dict[str, Any]:
    """Returns COCO RLE as pycocotools makes it with counts as str."""
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode()}


def clipped(box: Sequence[float], width: int, height: int) -> BoundingBox:
    """Returns the part of a box that is in the image; tools let boxes leave it a little."""
    x_min, y_min, x_max, y_max = box
    return (
        min(max(x_min, 0.0), width),
        min(max(y_min, 0.0), height),
        min(max(x_max, 0.0), width),
        min(max(y_max, 0.0), height),
    )


def turned_bounds(x: float, y: float, width: float, height: float, degrees: float) -> BoundingBox:
    """Returns the bounding box of a rectangle, given by its top left corner and size, turned clockwise around its
    top left corner."""
    angle = np.radians(degrees)
    across = np.array([np.cos(angle), np.sin(angle)]) * width
    down = np.array([-np.sin(angle), np.cos(angle)]) * height
    corners = np.array([x, y]) + np.array([[0, 0], across, down, across + down])
    (x_min, y_min), (x_max, y_max) = corners.min(0), corners.max(0)
    return float(x_min), float(y_min), float(x_max), float(y_max)
