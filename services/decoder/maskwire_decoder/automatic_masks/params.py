"""Parses the parameters of GenerateMasks."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core.errors import InvalidArgument
from maskwire_core.models.decoder_bundle import MaskDefaults
from numpy.typing import NDArray

from maskwire_decoder.segmenter import ImageReference

_MAX_SIDE = 512
_MAX_POINTS = _MAX_SIDE**2


@dataclass(frozen=True)
class Params:
    """Parameters of automatic masks, named as in `SAM2AutomaticMaskGenerator` of sam2."""

    pred_iou_thresh: float
    stability_score_thresh: float
    stability_score_offset: float
    mask_threshold: float
    box_nms_thresh: float
    crop_nms_thresh: float
    min_mask_region_area: int
    use_m2m: bool
    multimask: bool

    @classmethod
    def parse(cls, request: pb.GenerateMasksRequest, defaults: MaskDefaults) -> "Params":
        """Checks the parameters of a request.

        Args:
            request: The request.
            defaults: The model's values of parameters that the request leaves out.

        Raises:
            InvalidArgument: NOT_FINITE: a parameter is NaN or infinite.
        """

        def number(name: str) -> float:
            value: float = getattr(request if request.HasField(name) else defaults, name)  # type: ignore[arg-type]
            if not math.isfinite(value):
                raise InvalidArgument("NOT_FINITE", f"{name} is NaN or infinite", field=name)
            return value

        if not math.isfinite(request.mask_threshold):
            raise InvalidArgument("NOT_FINITE", "mask_threshold is NaN or infinite", field="mask_threshold")
        return cls(
            pred_iou_thresh=number("pred_iou_thresh"),
            stability_score_thresh=number("stability_score_thresh"),
            stability_score_offset=number("stability_score_offset"),
            mask_threshold=request.mask_threshold,
            box_nms_thresh=number("box_nms_thresh"),
            crop_nms_thresh=number("crop_nms_thresh"),
            min_mask_region_area=request.min_mask_region_area,
            use_m2m=request.use_m2m,
            multimask=request.multimask if request.HasField("multimask") else True,
        )


@dataclass(frozen=True)
class Part:
    """The whole image, or a crop of it, which is an image of its own."""

    source: ImageReference  # the image
    box: types_pb2.Box | None  # where it lies in the whole image; None for the whole image itself
    grid: NDArray[np.float64]  # nx2, the clicks as fractions of the part's width and height


def parse_parts(request: pb.GenerateMasksRequest) -> Iterator[Part]:
    """Yields the whole image and its crops.

    Raises:
        InvalidArgument: BAD_GRID.
    """

    def source(image: pb.GenerateMasksRequest | pb.ImageCrop) -> ImageReference:
        return ImageReference(request.namespace, image.image_id, image.content_key, request.wait_ms, request.model)

    yield Part(source(request), None, _parse_grid(request.grid, "grid"))
    for index, crop in enumerate(request.crops):
        yield Part(source(crop), crop.box, _parse_grid(crop.grid, f"crops[{index}].grid"))


def _parse_grid(grid: pb.PointGrid, path: str) -> NDArray[np.float64]:
    """Returns clicks, Nx2, as fractions of width and height, row by row.

    Raises:
        InvalidArgument: BAD_GRID: there are too many clicks, or some lie outside of the image.
    """
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
