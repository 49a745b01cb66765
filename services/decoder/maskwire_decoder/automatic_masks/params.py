"""Parses the parameters of GenerateMasks."""

import math
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core.errors import InvalidArgument
from maskwire_core.models.decoder_bundle import MaskDefaults
from numpy.typing import NDArray

from maskwire_decoder.automatic_masks.limits import GenerationLimits
from maskwire_decoder.segmenter import ImageReference

DEFAULT_SIDE = 32
DEFAULT_BATCH = 64

_MAX_SIDE = 512
_MAX_RESPONSES = 4096  # each compares all masks found so far


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


def count_points(request: pb.GenerateMasksRequest, limits: GenerationLimits) -> int:
    """Returns the number of clicks that a request asks for. Takes no longer for many than for few, and makes no grids.

    Raises:
        InvalidArgument: TOO_MANY_CROPS, TOO_MANY_POINTS, BAD_BATCH or BAD_GRID.
    """
    if len(request.crops) > limits.crops:
        raise InvalidArgument(
            "TOO_MANY_CROPS", f"{len(request.crops)} crops; at most {limits.crops} fit in one request", field="crops"
        )
    if request.points_per_batch > limits.batch:
        raise InvalidArgument(
            "BAD_BATCH",
            f"{request.points_per_batch} clicks between two responses; at most {limits.batch}",
            field="points_per_batch",
        )
    grids = [(request.grid, "grid"), *((crop.grid, f"crops[{n}].grid") for n, crop in enumerate(request.crops))]
    total = sum(_count(grid, path) for grid, path in grids)
    if total > limits.points:
        raise InvalidArgument(
            "TOO_MANY_POINTS",
            f"{total} clicks in the image and its crops; at most {limits.points} fit in one request",
            field="grid" if len(grids) == 1 else "crops",
        )
    least = -(-total // _MAX_RESPONSES)
    if (request.points_per_batch or DEFAULT_BATCH) < least:
        raise InvalidArgument(
            "BAD_BATCH", f"{total} clicks need at least {least} between two responses", field="points_per_batch"
        )
    return total


@dataclass(frozen=True)
class Part:
    """The whole image, or a crop of it, which is an image of its own."""

    source: ImageReference  # the image
    box: types_pb2.Box | None  # where it lies in the whole image; None for the whole image itself
    side: int  # clicks along each side of a square grid; 0 where `points` are given
    points: NDArray[np.float64] | None = None  # nx2, the clicks as fractions of the part's width and height

    @property
    def grid(self) -> NDArray[np.float64]:
        """The clicks, nx2, as fractions of the part's width and height, row by row. Made each time: a call has many
        parts, and needs one grid at a time."""
        if self.points is not None:
            return self.points
        line = np.linspace(1 / (2 * self.side), 1 - 1 / (2 * self.side), self.side)
        return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def parse_parts(request: pb.GenerateMasksRequest) -> list[Part]:
    """Returns the whole image and its crops, for a request that `count_points` accepted.

    Raises:
        InvalidArgument: BAD_GRID: some clicks lie outside of the image.
    """

    def part(image: pb.GenerateMasksRequest | pb.ImageCrop, box: types_pb2.Box | None, path: str) -> Part:
        source = ImageReference(request.namespace, image.image_id, image.content_key, request.wait_ms, request.model)
        if not image.grid.points:
            return Part(source, box, image.grid.points_per_side or DEFAULT_SIDE)
        points = np.array(image.grid.points)
        if not ((points >= 0) & (points <= 1)).all():
            raise InvalidArgument("BAD_GRID", "points are x0, y0, x1, y1, ... within 0..1", field=f"{path}.points")
        return Part(source, box, 0, points.reshape(-1, 2))

    crops = enumerate(request.crops)
    return [part(request, None, "grid"), *(part(crop, crop.box, f"crops[{n}].grid") for n, crop in crops)]


def _count(grid: pb.PointGrid, path: str) -> int:
    if grid.points:
        if grid.points_per_side:
            raise InvalidArgument("BAD_GRID", "give points_per_side or points, not both", field=path)
        if len(grid.points) % 2:
            raise InvalidArgument("BAD_GRID", "points are x0, y0, x1, y1, ...: an even number", field=f"{path}.points")
        return len(grid.points) // 2
    side = grid.points_per_side or DEFAULT_SIDE
    if side > _MAX_SIDE:
        raise InvalidArgument("BAD_GRID", f"{side} points a side; at most {_MAX_SIDE}", field=f"{path}.points_per_side")
    return side * side
