"""Validates points and boxes against the image that they are for."""

from typing import NamedTuple

import numpy as np
from maskwire.v1 import types_pb2 as pb
from numpy.typing import NDArray

from maskwire_core.errors import InvalidArgument


class ImageSize(NamedTuple):
    """Width and height of an image in pixels."""

    width: int
    height: int


def parse_point(point: pb.Point, path: str, size: ImageSize) -> tuple[float, float, int]:
    """Checks a click and returns x and y in pixels of the image, and the label: 1 unless the message says otherwise.

    Args:
        point: The click.
        path: Path of the field that holds it, for the error.
        size: Size of the image.

    Raises:
        InvalidArgument: OUT_OF_IMAGE or BAD_LABEL, with the path of the field that is wrong.
    """
    _check_within(point.x_px, size.width, "wide", f"{path}.x_px")
    _check_within(point.y_px, size.height, "high", f"{path}.y_px")
    label = point.label if point.HasField("label") else 1
    if label not in (0, 1):
        raise InvalidArgument(
            "BAD_LABEL", f"label {label}; use 1 (inside the object) or 0 (outside)", field=f"{path}.label"
        )
    return point.x_px, point.y_px, label


def parse_box(box: pb.Box, path: str, size: ImageSize) -> NDArray[np.float32]:
    """Checks a box and returns it as 4 fp32: x_min, y_min, x_max, y_max, in pixels of the image.

    Args:
        box: The box.
        path: Path of the field that holds it, for the error.
        size: Size of the image.

    Raises:
        InvalidArgument: OUT_OF_IMAGE or EMPTY_BOX, with the path of the field that is wrong.
    """
    _check_within(box.x_min_px, size.width, "wide", f"{path}.x_min_px")
    _check_within(box.x_max_px, size.width, "wide", f"{path}.x_max_px")
    _check_within(box.y_min_px, size.height, "high", f"{path}.y_min_px")
    _check_within(box.y_max_px, size.height, "high", f"{path}.y_max_px")
    if box.x_min_px >= box.x_max_px or box.y_min_px >= box.y_max_px:
        raise InvalidArgument(
            "EMPTY_BOX",
            "a box needs x_min < x_max and y_min < y_max; its order is x_min, y_min, x_max, y_max",
            field=path,
        )
    return np.array([box.x_min_px, box.y_min_px, box.x_max_px, box.y_max_px], np.float32)


def _check_within(value: float, limit: int, side: str, path: str) -> None:
    if not 0 <= value <= limit:  # NaN fails both comparisons
        raise InvalidArgument(
            "OUT_OF_IMAGE", f"{value:g} is outside of the image, which is {limit} px {side}", field=path
        )
