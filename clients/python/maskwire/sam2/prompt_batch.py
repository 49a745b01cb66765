"""Prompts of the predictor's face: arrays as sam2 takes them, as `Prompt`s."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import InvalidRequest
from maskwire.prompts import Prompt, to_numpy

_PADDING = -1
_NAMES = {"points": "point_coords", "labels": "point_labels", "box": "box", "mask": "mask_input"}


def prompts_of(
    image: EmbeddedImage, point_coords: Any, point_labels: Any, box: Any, mask_input: Any, normalize_coords: bool
) -> list[Prompt]:
    """Makes prompts of the arguments of `SAM2ImagePredictor.predict`.

    Args:
        image: The image.
        point_coords: Nx2 or BxNx2, or None.
        point_labels: N or BxN, or None.
        box: 4 or Bx4, or None.
        mask_input: 1xSxS or Bx1xSxS, or None.
        normalize_coords: Whether coordinates are pixels rather than fractions.

    Returns:
        B prompts, one if no argument has B.

    Raises:
        InvalidRequest: Shapes do not fit, or nothing is prompted.
    """
    if point_coords is None and box is None and mask_input is None:
        raise InvalidRequest(
            "nothing is prompted; for the most prominent object give point_coords=[[0, 0]] and point_labels=[-1], as "
            "in SAM 2's training",
            "NO_PROMPTS",
            "point_coords",
        )
    size = np.array([image.width, image.height])
    points, labels = _points(point_coords, point_labels)
    alone = box is None and mask_input is None
    if alone and points is not None and labels is not None and labels.shape[1] == 1 and (labels == _PADDING).all():
        points, labels = points[:, :0], labels[:, :0]  # the servers add SAM 2's padding themselves
    boxes = None
    if box is not None:
        boxes = _array(box, "box", np.float32)
        if boxes.size % 4 or not boxes.size or boxes.ndim > 3:
            raise InvalidRequest(f"a box is 4 numbers, or Bx4; got shape {boxes.shape}", "BAD_BOX", "box")
        boxes = boxes.reshape(-1, 2, 2)
    if not normalize_coords:  # fp64, so that the division by the size gives the fraction again
        points = None if points is None else (points * size.astype(np.float64)).astype(np.float32)
        boxes = None if boxes is None else (boxes * size.astype(np.float64)).astype(np.float32)
    masks = None if mask_input is None else _masks(mask_input)
    counts = {
        name: len(value)
        for name, value in (("point_coords", points), ("box", boxes), ("mask_input", masks))
        if value is not None
    }
    count = max(counts.values())
    for name, found in counts.items():
        # A single mask is refined by each prompt, as sam2 broadcasts it.
        if found != count and not (name == "mask_input" and found == 1):
            raise InvalidRequest(f"{found} prompts, where another argument has {count}", "BATCH_MISMATCH", name)
    if masks is not None and len(masks) > 1 and len(counts) == 1:
        raise InvalidRequest("several masks need points or boxes beside them", "BATCH_MISMATCH", "mask_input")
    prompts = []
    for index in range(count):
        try:
            prompts.append(
                Prompt(
                    None if points is None else points[index],
                    None if labels is None else labels[index],
                    None if boxes is None else boxes[index].ravel(),
                    None if masks is None else masks[index if len(masks) > 1 else 0],
                )
            )
        except InvalidRequest as error:
            raise in_arguments_words(
                InvalidRequest(error.message, error.reason, f"prompts[{index}].{error.field}"), 0, count
            ) from error
    return prompts


def in_arguments_words(error: InvalidRequest, start: int, count: int) -> InvalidRequest:
    """Renames the field of an error after the argument of `predict` that is wrong.

    Args:
        error: An error about a prompt of a request.
        start: Number of prompts in the requests before that one.
        count: Number of all prompts; with several, the field says which.
    """
    found = re.match(r"prompts\[(\d+)\]\.(\w+)(?:\[(\d+)\])?(?:\.(\w+))?", error.field)
    if found is None:
        return error
    prompt, name, point, part = found.groups()
    field = _NAMES.get("labels" if part == "label" else name, name)
    if count > 1:
        field += f"[{int(prompt) + start}]"
    if point is not None:
        field += f"[{point}]"
    return type(error)(error.message, error.reason, field, error.retry_after_s)


def _points(coords: Any, labels: Any) -> tuple[NDArray[np.float32] | None, NDArray[np.int64] | None]:
    """Returns BxNx2 points and BxN labels."""
    if coords is None:
        if labels is not None:
            raise InvalidRequest("labels without point_coords", "LABELS_MISMATCH", "point_labels")
        return None, None
    if labels is None:
        raise InvalidRequest(
            "give a label for each point: 1 (inside the object) or 0 (outside)", "LABELS_MISMATCH", "point_labels"
        )
    points, numbers = _array(coords, "point_coords", np.float32), _array(labels, "point_labels", np.int64)
    if points.ndim == 2:
        points, numbers = points[None], numbers[None]
    if points.ndim != 3 or points.shape[2] != 2 or not points.size:
        raise InvalidRequest(f"points are Nx2, or BxNx2; got shape {points.shape}", "BAD_POINT", "point_coords")
    if numbers.shape != points.shape[:2]:
        raise InvalidRequest(
            f"labels of shape {numbers.shape} for points of shape {points.shape}; give one for each point",
            "LABELS_MISMATCH",
            "point_labels",
        )
    return points, numbers


def _masks(value: Any) -> NDArray[np.float32]:
    """Returns BxSxS logits."""
    masks = _array(value, "mask_input", np.float32)
    if masks.ndim == 3:
        masks = masks[None]
    if masks.ndim != 4 or masks.shape[1] != 1:
        raise InvalidRequest(
            f"mask_input is 1xSxS, or Bx1xSxS; got shape {masks.shape[-3:]}. Of several candidates choose one: "
            "logits[best][None]",
            "BAD_MASK",
            "mask_input",
        )
    return masks[:, 0]


def _array(value: Any, name: str, dtype: Any) -> NDArray[Any]:
    try:
        return np.asarray(to_numpy(value), dtype)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{name} is no array of numbers: {error}", "BAD_NUMBERS", name) from error
