"""Prompts: checks them and converts them to request messages."""

from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from maskwire.arguments import checked, one_of
from maskwire.errors import InvalidRequest
from maskwire.output_options import LOGITS_TYPES
from maskwire.v1 import types_pb2 as pb

Points = Iterable[Sequence[float]] | Sequence[float] | NDArray[Any]
Labels = Iterable[int] | NDArray[Any] | int
Box = Sequence[float] | NDArray[Any]


@checked
@dataclass(frozen=True)
class Prompt:
    """One object to segment; with no points, box or mask, the most prominent object.

    Values may be lists, tuples, NumPy arrays or torch tensors. They are checked and copied when the prompt is made.

    Args:
        points: Clicks as [(x, y), ...] in pixels of the image as a viewer shows it (EXIF orientation applied), or a
            single (x, y).
        labels: 1 (inside the object) or 0 (outside it) for each point; None for all 1.
        box: (x_min, y_min, x_max, y_max) in pixels of the image.
        mask: Mask to refine: logits of an earlier result (`Result.logits`, SxS or 1xSxS floats), or a mask of the
            image's size (HxW bool, such as `Result.mask`, or integers that are 0 and 1 or 0 and 255).
        prompt_id: Any text, which is repeated in the result.
        point_coords: sam2's name for `points`.
        point_labels: sam2's name for `labels`.
        mask_input: sam2's name for `mask`.

    Raises:
        InvalidRequest: A value has a wrong type or shape, or is not finite; `field` says which.
    """

    points: Points | None = None
    labels: Labels | None = None
    box: Box | None = None
    mask: NDArray[Any] | None = None
    prompt_id: str = ""
    point_coords: InitVar[Points | None] = None
    point_labels: InitVar[Labels | None] = None
    mask_input: InitVar[NDArray[Any] | None] = None

    def __post_init__(self, point_coords: Any, point_labels: Any, mask_input: Any) -> None:
        points = _points(one_of("points", self.points, "point_coords", point_coords))
        labels = _labels(one_of("labels", self.labels, "point_labels", point_labels), len(points))
        mask = one_of("mask", self.mask, "mask_input", mask_input)
        if not isinstance(self.prompt_id, str):
            raise InvalidRequest(f"prompt_id is {self.prompt_id!r}; give a str", "BAD_PROMPT_ID", "prompt_id")
        checked_values: dict[str, Any] = {
            "points": points,
            "labels": labels,
            "box": None if self.box is None else _box(self.box),
            "mask": None if mask is None else _mask(mask),
        }
        for name, value in checked_values.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prompt) and self.message() == other.message()

    def __hash__(self) -> int:
        return hash((self.points, self.labels, self.box, self.prompt_id))

    def message(self) -> pb.Prompt:
        """Converts the prompt to a message."""
        points: Any = self.points
        labels: Any = self.labels
        message = pb.Prompt(prompt_id=self.prompt_id)
        for (x, y), label in zip(points, labels, strict=True):
            message.points.add(x_px=x, y_px=y, label=label)
        if self.box is not None:
            x_min, y_min, x_max, y_max = self.box
            message.box.CopyFrom(pb.Box(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max))
        if self.mask is None:
            return message
        if self.mask.dtype == np.bool_:
            rle: Any = coco.encode(np.asfortranarray(self.mask.view(np.uint8)))
            message.mask_rle.size[:] = rle["size"]
            message.mask_rle.counts = rle["counts"].decode()
        else:
            message.mask.height, message.mask.width = self.mask.shape
            message.mask.data_type = LOGITS_TYPES[self.mask.dtype.name]
            message.mask.data = self.mask.astype(self.mask.dtype.newbyteorder("<")).tobytes()
        return message


def prompts_from_boxes(boxes: Iterable[Box] | NDArray[Any]) -> list[Prompt]:
    """Makes a prompt of each row of Nx4 boxes.

    Raises:
        InvalidRequest: The boxes are not Nx4 numbers.
    """
    rows = to_numpy(boxes)
    if isinstance(rows, np.ndarray) and rows.ndim == 1 and rows.shape == (4,):
        rows = rows[None]
    try:
        return [Prompt(box=row) for row in rows]
    except TypeError as error:
        raise InvalidRequest(
            "boxes are Nx4: one (x_min, y_min, x_max, y_max) for each object", "BAD_BOX", "boxes"
        ) from error
    except InvalidRequest as error:
        raise InvalidRequest(error.message, error.reason, error.field.replace("box", "boxes", 1)) from error


def to_numpy(value: Any) -> Any:
    """Converts arrays and tensors, on any device, to NumPy arrays; returns other values unchanged."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
    return np.asarray(value) if hasattr(value, "__array__") else value


def _numbers(value: Any, what: str, reason: str, field: str) -> NDArray[np.float64]:
    """Converts a value to an array of finite numbers.

    Args:
        value: The value.
        what: Message for a value that is not numbers.
        reason: Reason of that error.
        field: Name of the argument.

    Raises:
        InvalidRequest: The value is not numbers, or a number is not finite.
    """
    value = to_numpy(value)
    if not isinstance(value, np.ndarray):
        if isinstance(value, str | bytes | dict) or not isinstance(value, Iterable | int | float | np.number):
            raise InvalidRequest(f"{what}; got {type(value).__name__}", reason, field)
        value = [to_numpy(item) for item in value] if isinstance(value, Iterable) else value
    try:
        numbers = np.asarray(value)
        if numbers.dtype.kind not in "biuf" and numbers.size:
            raise ValueError
    except (TypeError, ValueError) as error:
        raise InvalidRequest(what, reason, field) from error
    numbers = numbers.astype(np.float64)
    wrong = np.argwhere(~np.isfinite(numbers))
    if len(wrong):
        place = f"{field}[{wrong[0][0]}]" if numbers.ndim else field
        raise InvalidRequest("a coordinate is NaN or infinite", "NOT_FINITE", place)
    return numbers


def _points(value: Any) -> tuple[tuple[float, float], ...]:
    if value is None:
        return ()
    what = "points are [(x, y), ...] in pixels"
    value = to_numpy(value)
    if isinstance(value, Iterable) and not isinstance(value, np.ndarray | str | bytes | dict):
        value = [to_numpy(item) for item in value]
        for index, item in enumerate(value):  # so that the error names the index of a point with a wrong length
            flat = isinstance(item, Sequence | np.ndarray) and all(np.isscalar(each) for each in item)
            if flat and len(item) != 2:
                raise InvalidRequest(f"a point is two numbers, (x, y); got {item!r}", "BAD_POINT", f"points[{index}]")
    numbers = _numbers(value, what, "BAD_POINT", "points")
    if not numbers.size:
        return ()
    if numbers.shape == (2,):
        numbers = numbers[None]
    if numbers.ndim == 3 and len(numbers) == 1:
        numbers = numbers[0]
    if numbers.ndim != 2 or numbers.shape[1] != 2:
        raise InvalidRequest(f"{what}; got an array of shape {numbers.shape}", "BAD_POINT", "points")
    return tuple((float(x), float(y)) for x, y in numbers)


def _labels(value: Any, count: int) -> tuple[int, ...]:
    if value is None:
        return (1,) * count
    numbers = _numbers(value, "labels are 1 (inside) or 0 (outside)", "BAD_LABEL", "labels").ravel()
    for index, label in enumerate(numbers):
        if label not in (0, 1):
            raise InvalidRequest(f"label {label:g}; use 1 (inside) or 0 (outside)", "BAD_LABEL", f"labels[{index}]")
    if len(numbers) != count:
        raise InvalidRequest(
            f"{count} points but {len(numbers)} labels; give one label (1 or 0) for each point",
            "LABELS_MISMATCH",
            "labels",
        )
    return tuple(int(label) for label in numbers)


def _box(value: Any) -> tuple[float, ...]:
    what = "a box is (x_min, y_min, x_max, y_max) in pixels"
    numbers = _numbers(value, what, "BAD_BOX", "box")
    if numbers.ndim == 2 and numbers.shape[1] == 4 and len(numbers) > 1:
        raise InvalidRequest(
            f"{len(numbers)} boxes are {len(numbers)} objects; segment_objects(image, boxes=...) takes them",
            "SEVERAL_BOXES",
            "box",
        )
    if numbers.size != 4 or numbers.ndim > 2:
        raise InvalidRequest(f"{what}; got shape {numbers.shape}", "BAD_BOX", "box")
    return tuple(float(number) for number in numbers.ravel())


def _mask(value: Any) -> NDArray[Any]:
    """Converts a mask prompt to HxW bool, or to logits, SxS float16 or float32."""
    what = "a mask is logits of SxS or 1xSxS floats, or HxW bool of the image's size"
    mask = to_numpy(value)
    if not isinstance(mask, np.ndarray):
        try:
            mask = np.asarray(mask)
        except ValueError as error:
            raise InvalidRequest(what, "BAD_MASK", "mask") from error
    mask = mask[0] if mask.ndim == 3 and len(mask) == 1 else mask
    if mask.ndim != 2 or not mask.size or mask.dtype.kind not in "biuf":
        raise InvalidRequest(f"{what}; got {mask.dtype} of shape {mask.shape}", "BAD_MASK", "mask")
    if mask.dtype.kind in "iu":
        values = np.unique(mask)
        if not (np.isin(values, (0, 1)).all() or np.isin(values, (0, 255)).all()):
            raise InvalidRequest(
                f"a mask of integers from {values[0]} to {values[-1]}; give floats if they are logits, or only 0 and 1 "
                "(or 0 and 255) if it is a mask",
                "BAD_MASK",
                "mask",
            )
        mask = mask > 0
    if mask.dtype == np.bool_:
        return np.array(mask)
    mask = np.array(mask, np.float16 if mask.dtype == np.float16 else np.float32)
    if not np.isfinite(mask).all():
        raise InvalidRequest("mask logits hold NaN or infinity", "NOT_FINITE", "mask")
    return mask


def check_normalized(normalize_coords: bool) -> None:
    """Checks sam2's argument normalize_coords. With False, sam2 expects coordinates as fractions of the size.

    Raises:
        InvalidRequest: NOT_PIXELS: it is False.
    """
    if not normalize_coords:
        raise InvalidRequest(
            "coordinates are pixels of the image; multiply fractions by its width and height",
            "NOT_PIXELS",
            "normalize_coords",
        )
