"""Automatic masks: parameters, crops and results of `everything`, equal to SAM2AutomaticMaskGenerator's."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from maskwire import rle
from maskwire.answered_size import check_size
from maskwire.arguments import checked
from maskwire.errors import InvalidRequest, bad_answer
from maskwire.pickling import Picklable
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2

_FILTERS = ("low_predicted_iou", "low_stability", "at_crop_edge", "duplicates")
_FIELDS = {"multimask_output": "multimask"}  # sam2's names of fields that the request calls otherwise
_OF_GRIDS = (
    *("points_per_side", "point_grids", "crop_n_layers", "crop_overlap_ratio", "crop_n_points_downscale_factor"),
)

OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]


class AutomaticMaskArguments(TypedDict, total=False):
    """Keyword arguments of `generate_masks` and `everything`, with the names and meanings of sam2. None counts as not
    given. Defaults are sam2's, but for the thresholds that a model sets itself.

    Attributes:
        points_per_side: Number of clicks along each side of a square grid; 32. Not together with `point_grids`.
        points_per_batch: Number of clicks between two updates; 64.
        pred_iou_thresh: Keep masks whose predicted IoU is above this; 0.8.
        stability_score_thresh: Keep masks whose stability score is at least this; 0.95.
        stability_score_offset: How far the mask threshold is raised and lowered to compute that score; 1.0.
        mask_threshold: Logit above which a pixel is inside; 0.0.
        box_nms_thresh: IoU of boxes above which masks are duplicates; 0.7.
        crop_n_layers: Number of layers of crops to search too; layer i has 4 ** i crops, each embedded by itself; 0.
        crop_nms_thresh: IoU of boxes above which masks of different crops are duplicates; 0.7.
        crop_overlap_ratio: Overlap of the crops of the first layer, as a fraction of the image's shorter side;
            512 / 1500.
        crop_n_points_downscale_factor: Factor by which points_per_side shrinks from layer to layer; 1.
        point_grids: Clicks of each layer instead of points_per_side: Nx2 x, y as fractions of width and height.
        min_mask_region_area: Remove holes and islands of at most this many low-resolution pixels; 0.
        use_m2m: Refine each mask once with its own logits; False.
        multimask_output: Take three masks from each click instead of one; True.
    """

    points_per_side: int | None
    points_per_batch: int | None
    pred_iou_thresh: float | None
    stability_score_thresh: float | None
    stability_score_offset: float | None
    mask_threshold: float | None
    box_nms_thresh: float | None
    crop_n_layers: int | None
    crop_nms_thresh: float | None
    crop_overlap_ratio: float | None
    crop_n_points_downscale_factor: int | None
    point_grids: Sequence[NDArray[Any]] | None
    min_mask_region_area: int | None
    use_m2m: bool | None
    multimask_output: bool | None


@checked
class FoundMask(Picklable):
    """One mask of `everything`. Equal to another one with the same pixels and predicted IoU.

    Attributes:
        predicted_iou: IoU with the object, as predicted by the model.
        stability_score: IoU of the masks at a raised and at a lowered threshold.
        area: Number of pixels inside.
        bbox: [x, y, width, height] of the outermost pixels, as in sam2, so that a mask one pixel wide has width 0.
        point_coords: The click that found the mask, [[x, y]].
        crop_box: [x, y, width, height] of the crop in which it was found.
    """

    def __init__(self, message: pb.GeneratedMask) -> None:
        self.predicted_iou = message.predicted_iou
        self.stability_score = message.stability_score
        self.area = message.area_px
        self.bbox = _xywh(message.box)
        self.point_coords = [[message.point.x_px, message.point.y_px]]
        self.crop_box = _xywh(message.crop_box)
        self._message = message
        self._rle = message.rle

    def __repr__(self) -> str:
        height, width = self.rle["size"]
        return (
            f"<FoundMask {width}x{height}, predicted IoU {self.predicted_iou:.3f}, "
            f"stability {self.stability_score:.3f}, {self.area} px inside>"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FoundMask) and (self.rle, self.predicted_iou) == (other.rle, other.predicted_iou)

    def __hash__(self) -> int:
        return hash((self._rle.counts, self.predicted_iou))

    def message(self) -> pb.GeneratedMask:
        """Returns the mask as the decoder sent it."""
        return self._message

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Bounding box as (x_min, y_min, x_max, y_max) in pixels, as in `Result.box`."""
        if not np.isfinite(self.bbox).all():
            raise bad_answer("a box is not finite")
        x, y, width, height = (int(value) for value in self.bbox)
        return x, y, x + width + 1, y + height + 1

    @cached_property
    def rle(self) -> dict[str, Any]:
        """COCO RLE as pycocotools accepts it: {"size": [height, width], "counts": str}."""
        size = list(self._rle.size)
        if len(size) == 2:
            check_size(size[1], size[0])
        if len(size) != 2 or not rle.are_of_size(self._rle.counts, *size):
            raise bad_answer("a mask is no run lengths of its size")
        return {"size": size, "counts": self._rle.counts}

    @property
    def score(self) -> float:
        """IoU with the object, as predicted by the model."""
        return self.predicted_iou

    @cached_property
    def array(self) -> NDArray[np.bool_]:
        """The mask at the image's size, HxW."""
        height, width = self.rle["size"]
        inside = rle.pixels(self.rle["counts"], height, width)
        assert inside is not None
        return inside

    def annotation(self, output_mode: OutputMode = "binary_mask") -> dict[str, Any]:
        """Returns the mask as a dict like those of SAM2AutomaticMaskGenerator.generate.

        Args:
            output_mode: Form of "segmentation": HxW bool, {"size", "counts": run lengths}, or COCO RLE.

        Raises:
            InvalidRequest: The mode is unknown.
        """
        segmentation: Any
        match output_mode:
            case "binary_mask":
                segmentation = self.array
            case "uncompressed_rle":
                segmentation = {"size": self.rle["size"], "counts": _run_lengths(self.array)}
            case "coco_rle":
                segmentation = self.rle
            case _:
                raise InvalidRequest(
                    f"output_mode {output_mode!r}; use binary_mask, uncompressed_rle or coco_rle", "BAD_OUTPUT"
                )
        names = ("area", "bbox", "predicted_iou", "point_coords", "stability_score", "crop_box")
        return {"segmentation": segmentation, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class Update:
    """Progress of automatic mask generation.

    Attributes:
        new: Masks found since the previous update.
        masks: All current masks. Better ones may still replace some of them; those of the last update are final, in
            the order of sam2.
        done: Number of clicks decoded so far.
        total: Number of clicks in all.
        is_last: Whether this is the last update.
        image: Name, size and model of the image.
        removed: In the last update, the number of masks that each filter removed: "low_predicted_iou", "low_stability",
            "at_crop_edge", "duplicates".
        explanation: In the last update, the same in words; if few masks are left, with the parameters to lower.
    """

    new: list[FoundMask]
    masks: list[FoundMask]
    done: int
    total: int
    is_last: bool
    image: pb.SegmentedImage
    removed: Mapping[str, int]
    explanation: str

    def __repr__(self) -> str:
        end = ", the last" if self.is_last else ""
        return f"<Update {self.done} of {self.total} clicks: {len(self.masks)} masks, {len(self.new)} new{end}>"


class MaskCollector:
    """Keeps track of the current masks over the responses of a call.

    Args:
        size: Width and height of the image in pixels, which all masks must have.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._masks: dict[int, FoundMask] = {}
        self._current: dict[int, None] = {}

    def add(self, response: pb.GenerateMasksResponse) -> Update:
        """Applies the next response.

        Raises:
            MaskwireError: BAD_ANSWER: it names masks that were not sent, or a mask is of another size.
        """
        for found in response.found:
            if tuple(found.rle.size) != self._size[::-1]:
                raise bad_answer("a mask is not of the image's size")
            self._masks[found.number] = FoundMask(found)
            self._current[found.number] = None
        if not self._masks.keys() >= {*response.dropped, *response.revived, *response.kept}:
            raise bad_answer("masks are named that were not sent")
        for number in response.dropped:
            self._current.pop(number, None)
        self._current.update(dict.fromkeys(response.revived))
        numbers = response.kept if response.is_last else self._current
        return Update(
            new=[self._masks[found.number] for found in response.found],
            masks=[self._masks[number] for number in numbers],
            done=response.points_done,
            total=response.points_total,
            is_last=response.is_last,
            image=response.image,
            removed={name: getattr(response.summary, name) for name in _FILTERS} if response.is_last else {},
            explanation=response.summary.explanation,
        )


def make_request(width: int, height: int, arguments: AutomaticMaskArguments) -> pb.GenerateMasksRequest:
    """Makes the request of a call, with all crops; the names of the image and the crops are left empty.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        arguments: Arguments as the caller gave them.

    Raises:
        InvalidRequest: BAD_PARAMETER: an argument has a wrong type or value, or contradicts another one.
    """
    names = AutomaticMaskArguments.__annotations__.keys() & arguments.keys()
    given: dict[str, Any] = {name: value for name, value in arguments.items() if name in names and value is not None}
    try:
        fields = {_FIELDS.get(name, name): value for name, value in given.items() if name not in _OF_GRIDS}
        request = pb.GenerateMasksRequest(**fields)
        layers = int(given.get("crop_n_layers", 0))
        grids = [_grid(given, layer) for layer in range(layers + 1)]
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"a parameter has a wrong value: {error}", "BAD_PARAMETER") from error
    request.grid.CopyFrom(grids[0])
    overlap = float(given.get("crop_overlap_ratio", 512 / 1500))
    for layer, (x_min, y_min, x_max, y_max) in _crop_boxes(width, height, layers, overlap):
        box = types_pb2.Box(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max)
        request.crops.add(box=box, grid=grids[layer])
    return request


def _grid(arguments: Mapping[str, Any], layer: int) -> pb.PointGrid:
    grids = arguments.get("point_grids")
    side = arguments.get("points_per_side")
    if grids is not None:
        if side is not None:
            raise ValueError("give points_per_side or point_grids, not both")
        if layer >= len(grids):
            raise ValueError("point_grids needs a grid for each layer, beginning with the whole image")
        return pb.PointGrid(points=np.asarray(grids[layer], np.float64).reshape(-1, 2).ravel().tolist())
    factor = int(arguments.get("crop_n_points_downscale_factor", 1))
    side = int((32 if side is None else side) / factor**layer)
    if side < 1:
        raise ValueError(f"no points are left in crop layer {layer}")
    return pb.PointGrid(points_per_side=side)


def _crop_boxes(
    width: int, height: int, layers: int, overlap_ratio: float
) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """Yields the layer and box of each crop, as sam2's generate_crop_boxes computes them, without the whole image."""
    for layer in range(1, layers + 1):
        crops = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / crops))
        crop_width, crop_height = (math.ceil((overlap * (crops - 1) + side) / crops) for side in (width, height))
        for column, row in product(range(crops), range(crops)):
            x, y = (crop_width - overlap) * column, (crop_height - overlap) * row
            yield layer, (x, y, min(x + crop_width, width), min(y + crop_height, height))


def _xywh(box: types_pb2.Box) -> list[float]:
    return [box.x_min_px, box.y_min_px, box.x_max_px - box.x_min_px, box.y_max_px - box.y_min_px]


def _run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Returns uncompressed RLE counts: run lengths in column-major order, beginning with a run of 0s."""
    values = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(values, prepend=False))
    return [int(length) for length in np.diff(changes, prepend=0, append=len(values))]
