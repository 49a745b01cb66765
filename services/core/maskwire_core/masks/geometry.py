"""Validates points and boxes against the image that they are for."""

from typing import NamedTuple

import numpy as np
from maskwire.v1 import types_pb2 as pb
from numpy.typing import NDArray

from maskwire_core.errors import InvalidArgument


class Rectangle(NamedTuple):
    """A part of an image, in whole pixels of it."""

    x: int  # its left edge
    y: int  # its top edge
    width: int
    height: int

    def message(self) -> pb.Box:
        return pb.Box(x_min_px=self.x, y_min_px=self.y, x_max_px=self.x + self.width, y_max_px=self.y + self.height)


class ImageSize(NamedTuple):
    """Width and height of an image in pixels, and where the model sees a part of it alone, that part."""

    width: int
    height: int
    region: Rectangle | None = None


def parse_point(point: pb.Point, path: str, size: ImageSize) -> tuple[float, float, int]:
    """Checks a click and returns x and y in pixels of the image, or of its region, and the label: 1 unless the message
    says otherwise.

    Args:
        point: The click.
        path: Path of the field that holds it, for the error.
        size: Size of the image.

    Raises:
        InvalidArgument: OUT_OF_IMAGE, OUT_OF_REGION or BAD_LABEL, with the path of the field that is wrong.
    """
    x, y = _x(point.x_px, f"{path}.x_px", size), _y(point.y_px, f"{path}.y_px", size)
    label = point.label if point.HasField("label") else 1
    if label not in (0, 1):
        raise InvalidArgument(
            "BAD_LABEL", f"label {label}; use 1 (inside the object) or 0 (outside)", field=f"{path}.label"
        )
    return x, y, label


def parse_box(box: pb.Box, path: str, size: ImageSize) -> NDArray[np.float32]:
    """Checks a box and returns it as 4 fp32: x_min, y_min, x_max, y_max, in pixels of the image, or of its region.

    Args:
        box: The box.
        path: Path of the field that holds it, for the error.
        size: Size of the image.

    Raises:
        InvalidArgument: OUT_OF_IMAGE, OUT_OF_REGION or EMPTY_BOX, with the path of the field that is wrong.
    """
    x_min, x_max = (_x(getattr(box, name), f"{path}.{name}", size) for name in ("x_min_px", "x_max_px"))
    y_min, y_max = (_y(getattr(box, name), f"{path}.{name}", size) for name in ("y_min_px", "y_max_px"))
    if box.x_min_px >= box.x_max_px or box.y_min_px >= box.y_max_px:
        raise InvalidArgument(
            "EMPTY_BOX",
            "a box needs x_min < x_max and y_min < y_max; its order is x_min, y_min, x_max, y_max",
            field=path,
        )
    return np.array([x_min, y_min, x_max, y_max], np.float32)


def _x(value: float, path: str, size: ImageSize) -> float:
    _check_within(value, size.width, "wide", path)
    return value if size.region is None else _within_region(value, size.region.x, size.region.width, path)


def _y(value: float, path: str, size: ImageSize) -> float:
    _check_within(value, size.height, "high", path)
    return value if size.region is None else _within_region(value, size.region.y, size.region.height, path)


def _check_within(value: float, limit: int, side: str, path: str) -> None:
    if not 0 <= value <= limit:  # NaN fails both comparisons
        raise InvalidArgument(
            "OUT_OF_IMAGE", f"{value:g} is outside of the image, which is {limit} px {side}", field=path
        )


def _within_region(value: float, start: int, length: int, path: str) -> float:
    if not start <= value <= start + length:
        raise InvalidArgument(
            "OUT_OF_REGION",
            f"{value:g} is outside of the region, which is from {start} to {start + length} px; give a region that "
            "contains the whole prompt",
            field=path,
        )
    return value - start
