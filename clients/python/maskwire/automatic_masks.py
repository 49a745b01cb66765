"""Everything in an image: parameters, crops and masks, as SAM2AutomaticMaskGenerator has them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal, TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from maskwire.arguments import checked
from maskwire.errors import InvalidRequest
from maskwire.pickling import Kept
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2

_FILTERS = ("low_predicted_iou", "low_stability", "at_crop_edge", "duplicates")

OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]


class EverythingArguments(TypedDict, total=False):
    """Keyword arguments of `generate_masks` and `everything`; names, meaning and defaults as in sam2.

    Thresholds that are not given are the model's own. Those of SAM 2's checkpoints are sam2's, which are named below;
    the demo model's `pred_iou_thresh` is 0.35 and its `stability_score_thresh` 0.4.

    Attributes:
        points_per_side: Clicks along each side of a square grid; 32.
        points_per_batch: Clicks between two updates; 64.
        pred_iou_thresh: Masks are kept whose predicted IoU is above this; 0.8.
        stability_score_thresh: Masks are kept whose stability score is not below this; 0.95.
        stability_score_offset: How far the threshold is raised and lowered for that score; 1.0.
        mask_threshold: Logit above which a pixel is inside; 0.0.
        box_nms_thresh: IoU of boxes above which two masks are the same; 0.7.
        crop_n_layers: How often the image is cut finer: layer i has 4 ** i crops, each embedded by itself; 0.
        crop_nms_thresh: As box_nms_thresh, between crops; 0.7.
        crop_overlap_ratio: How far crops of the first layer overlap, as a part of the image's shorter side; 512 / 1500.
        crop_n_points_downscale_factor: By which points_per_side shrinks from layer to layer; 1.
        point_grids: Instead of points_per_side, Nx2 fractions of width and height for each layer.
        min_mask_region_area: Holes and islands of at most this many low-resolution pixels are removed; 0.
        use_m2m: Refine each mask once with its own logits; False.
        multimask_output: Three masks of each click, or one; True.
    """

    points_per_side: int | None
    points_per_batch: int
    pred_iou_thresh: float
    stability_score_thresh: float
    stability_score_offset: float
    mask_threshold: float
    box_nms_thresh: float
    crop_n_layers: int
    crop_nms_thresh: float
    crop_overlap_ratio: float
    crop_n_points_downscale_factor: int
    point_grids: Sequence[NDArray[Any]] | None
    min_mask_region_area: int
    use_m2m: bool
    multimask_output: bool


@checked
class FoundMask(Kept):
    """One of an image's masks. Can be pickled; equal to another that was found the same way.

    Attributes:
        predicted_iou: By the model.
        stability_score: IoU of the masks at a raised and a lowered threshold.
        area: Pixels inside.
        bbox: x, y, width, height of the outermost pixels, as in sam2: one pixel wide is 0.
        point_coords: The click, [[x, y]].
        crop_box: x, y, width, height of the part of the image that it was found in.
    """

    def __init__(self, message: pb.GeneratedMask) -> None:
        self.predicted_iou = message.predicted_iou
        self.stability_score = message.stability_score
        self.area = message.area_px
        self.bbox = _xywh(message.box)
        self.point_coords = [[message.point.x_px, message.point.y_px]]
        self.crop_box = _xywh(message.crop_box)
        self._rle = message.rle

    def __repr__(self) -> str:
        height, width = self._rle.size
        return (
            f"<FoundMask {width}x{height}, predicted IoU {self.predicted_iou:.3f}, "
            f"stability {self.stability_score:.3f}, {self.area} px inside>"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FoundMask) and (self.rle, self.predicted_iou) == (other.rle, other.predicted_iou)

    def __hash__(self) -> int:
        return hash((self._rle.counts, self.predicted_iou))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x_min, y_min, x_max, y_max) in pixels, around the mask; as `Result.box`."""
        x, y, width, height = (int(value) for value in self.bbox)
        return x, y, x + width + 1, y + height + 1

    @property
    def rle(self) -> dict[str, Any]:
        """COCO RLE as pycocotools takes it: {"size": [height, width], "counts": str}."""
        return {"size": list(self._rle.size), "counts": self._rle.counts}

    @property
    def score(self) -> float:
        """The predicted IoU."""
        return self.predicted_iou

    @cached_property
    def array(self) -> NDArray[np.bool_]:
        """HxW, of the image's size."""
        rle = self._rle
        return np.asarray(coco.decode({"size": list(rle.size), "counts": rle.counts.encode()})).astype(bool)

    def annotation(self, output_mode: OutputMode = "binary_mask") -> dict[str, Any]:
        """The mask as SAM2AutomaticMaskGenerator.generate gives it.

        Args:
            output_mode: What `segmentation` is: HxW bool, {"size", "counts": run lengths}, or COCO RLE.
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
        return {
            "segmentation": segmentation,
            "area": self.area,
            "bbox": self.bbox,
            "predicted_iou": self.predicted_iou,
            "point_coords": self.point_coords,
            "stability_score": self.stability_score,
            "crop_box": self.crop_box,
        }


@dataclass(frozen=True)
class Update:
    """What has come of the latest clicks.

    Attributes:
        new: Masks that were not there before.
        masks: All that count by now: until the end a better one may take the place of some. With the last update those
            that stay, in the order that sam2 gives.
        done: Clicks so far.
        total: Clicks in all.
        is_last: Whether this is the end.
        image: Name, size and model of the image.
        removed: With the last update, how many masks each filter removed: "low_predicted_iou", "low_stability",
            "at_crop_edge", "duplicates".
        explanation: With the last update, the same in words; where few masks stay, with what to lower.
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


class Collection:
    """Puts the responses of a call together."""

    def __init__(self) -> None:
        self._masks: dict[int, FoundMask] = {}
        self._counting: dict[int, None] = {}

    def add(self, response: pb.GenerateMasksResponse) -> Update:
        for found in response.found:
            self._masks[found.number] = FoundMask(found)
            self._counting[found.number] = None
        for number in response.dropped:
            del self._counting[number]
        self._counting.update(dict.fromkeys(response.revived))
        numbers = response.kept if response.is_last else self._counting
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


def arguments_of(**given: Any) -> EverythingArguments:
    """The arguments that are not None."""
    return cast(EverythingArguments, {name: value for name, value in given.items() if value is not None})


def request_of(width: int, height: int, arguments: EverythingArguments) -> pb.GenerateMasksRequest:
    """The arguments as they are sent, with a crop for each part of the image; images are not named yet.

    Args:
        width: Of the image, in pixels.
        height: Likewise.
        arguments: As the user gave them.

    Raises:
        InvalidRequest: They contradict each other, or are no numbers.
    """
    names = {"multimask_output": "multimask"}
    passed = (
        "points_per_batch",
        "pred_iou_thresh",
        "stability_score_thresh",
        "stability_score_offset",
        "mask_threshold",
        "box_nms_thresh",
        "crop_nms_thresh",
        "min_mask_region_area",
        "use_m2m",
        "multimask_output",
    )
    try:
        fields = {names.get(name, name): value for name, value in arguments.items() if name in passed}
        request = pb.GenerateMasksRequest(**fields)  # type: ignore[arg-type]
        layers = int(arguments.get("crop_n_layers", 0))
        grids = [_grid(arguments, layer) for layer in range(layers + 1)]
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"a parameter is not what it should be: {error}", "BAD_PARAMETER") from error
    request.grid.CopyFrom(grids[0])
    overlap = float(arguments.get("crop_overlap_ratio", 512 / 1500))
    for layer, (x_min, y_min, x_max, y_max) in _crop_boxes(width, height, layers, overlap):
        box = types_pb2.Box(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max)
        request.crops.add(box=box, grid=grids[layer])
    return request


def _grid(arguments: EverythingArguments, layer: int) -> pb.PointGrid:
    grids = arguments.get("point_grids")
    side = arguments.get("points_per_side")
    if grids is not None:
        if side is not None:
            raise ValueError("give points_per_side or point_grids, not both")
        if layer >= len(grids):
            raise ValueError("point_grids has one grid for each layer, the whole image first")
        return pb.PointGrid(points=np.asarray(grids[layer], np.float64).reshape(-1, 2).ravel().tolist())
    factor = int(arguments.get("crop_n_points_downscale_factor", 1))
    side = int((32 if side is None else side) / factor**layer)
    if side < 1:
        raise ValueError(f"no points are left in crop layer {layer}")
    return pb.PointGrid(points_per_side=side)


def _crop_boxes(
    width: int, height: int, layers: int, overlap_ratio: float
) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """Layers and boxes of all crops, as generate_crop_boxes of sam2 has them; without the whole image."""
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
    """Column by column, beginning with what is outside."""
    values = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(values, prepend=False))
    return [int(length) for length in np.diff(changes, prepend=0, append=len(values))]
