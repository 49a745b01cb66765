"""Parses the parameters of GenerateMasks."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core.errors import InvalidArgument
from maskwire_core.models.decoder_bundle import MaskDefaults
from numpy.typing import NDArray

from maskwire_decoder.segmenter import ImageReference

_MAX_SIDE = 512
_MAX_POINTS = _MAX_SIDE**2


def parse_thresholds(request: pb.GenerateMasksRequest, defaults: MaskDefaults) -> MaskDefaults:
    """Returns the thresholds of a request; those that it leaves out are the model's own.

    Raises:
        InvalidArgument: NOT_FINITE: one of them, or mask_threshold, is NaN or infinite.
    """
    given = {each.name: getattr(request, each.name) for each in fields(defaults) if request.HasField(each.name)}  # type: ignore[arg-type]
    thresholds = replace(defaults, **given)
    for name, value in {**asdict(thresholds), "mask_threshold": request.mask_threshold}.items():
        if not math.isfinite(value):
            raise InvalidArgument("NOT_FINITE", f"{name} is NaN or infinite", field=name)
    return thresholds


@dataclass(frozen=True)
class Part:
    """The whole image, or a crop of it, which is an image of its own."""

    source: ImageReference  # the image
    box: types_pb2.Box | None  # where it lies in the whole image; None for the whole image itself
    grid: NDArray[np.float64]  # nx2, the clicks as fractions of the part's width and height


def parse_parts(request: pb.GenerateMasksRequest) -> Iterator[Part]:
    """Yields the whole image and its crops.

    Raises:
        InvalidArgument: BAD_GRID: there are too many clicks, or some lie outside of the image.
    """

    def source(image: pb.GenerateMasksRequest | pb.ImageCrop) -> ImageReference:
        return ImageReference(request.namespace, image.image_id, image.content_key, request.wait_ms, request.model)

    yield Part(source(request), None, _parse_grid(request.grid, "grid"))
    for index, crop in enumerate(request.crops):
        yield Part(source(crop), crop.box, _parse_grid(crop.grid, f"crops[{index}].grid"))


def _parse_grid(grid: pb.PointGrid, path: str) -> NDArray[np.float64]:
    """Returns clicks, Nx2, as fractions of width and height, row by row."""
    if grid.points:
        if grid.points_per_side:
            raise InvalidArgument("BAD_GRID", "give points_per_side or points, not both", field=path)
        points = np.array(grid.points)
        if len(points) % 2 or len(points) > 2 * _MAX_POINTS or not ((points >= 0) & (points <= 1)).all():
            raise InvalidArgument(
                "BAD_GRID", f"points are x0, y0, x1, y1, ... within 0..1, at most {_MAX_POINTS}", field=f"{path}.points"
            )
        return points.reshape(-1, 2)
    side = grid.points_per_side or 32
    if side > _MAX_SIDE:
        raise InvalidArgument("BAD_GRID", f"{side} points a side; at most {_MAX_SIDE}", field=f"{path}.points_per_side")
    line = np.linspace(1 / (2 * side), 1 - 1 / (2 * side), side)
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
