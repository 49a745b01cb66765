"""Requests to checked values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from maskwire.v1 import types_pb2 as pb
from maskwire_core.errors import InvalidArgument
from numpy.typing import NDArray

LOGITS_DTYPES: dict[int, np.dtype[Any]] = {pb.DATA_TYPE_FP16: np.dtype("<f2"), pb.DATA_TYPE_FP32: np.dtype("<f4")}

_MAX_COUNTS = 1 << 20


@dataclass(frozen=True)
class Prompt:
    """One object to segment.

    Attributes:
        points: Nx2 fp32, x and y in pixels of the image.
        labels: N int64, 1 positive, 0 negative.
        box: x_min, y_min, x_max, y_max fp32 in pixels of the image.
        mask: SxS fp32 logits, S being the model's mask size.
    """

    prompt_id: str
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    box: NDArray[np.float32] | None
    mask: NDArray[np.float32] | None


@dataclass(frozen=True)
class Output:
    """What is returned of each prompt.

    Attributes:
        formats: Not empty.
        every: All candidates instead of the best.
        multimask: The model's three candidates instead of its single mask.
        logits_type: A key of `LOGITS_DTYPES`.
        threshold: Logit above which a pixel is inside.
        max_hole_area: Largest hole that is filled, in low-resolution pixels.
        max_sprinkle_area: Largest island that is removed, likewise.
        unclamped: Whether logits are returned as they are.
    """

    formats: frozenset[pb.MaskFormat.ValueType]
    every: bool
    multimask: bool
    logits_type: pb.DataType.ValueType
    threshold: float
    max_hole_area: int
    max_sprinkle_area: int
    unclamped: bool


@dataclass(frozen=True)
class Limits:
    """Most prompts in a request, and most points in a prompt."""

    prompts: int
    points: int


def read_output(options: pb.OutputOptions) -> Output:
    """Checks what is asked for.

    Raises:
        InvalidArgument: A value is unknown to this version.
    """
    for index, mask_format in enumerate(options.formats):
        _known(pb.MaskFormat, mask_format, f"output.formats[{index}]")
    _known(pb.Candidates, options.candidates, "output.candidates")
    _known(pb.DataType, options.logits_type, "output.logits_type")
    if not math.isfinite(options.mask_threshold):
        raise InvalidArgument("NOT_FINITE", "mask_threshold is NaN or infinite", field="output.mask_threshold")
    formats = {mask_format or pb.MASK_FORMAT_RLE for mask_format in options.formats}
    return Output(
        formats=frozenset(formats or {pb.MASK_FORMAT_RLE}),
        every=options.candidates == pb.CANDIDATES_ALL,
        multimask=options.multimask if options.HasField("multimask") else True,
        logits_type=options.logits_type or pb.DATA_TYPE_FP16,
        threshold=options.mask_threshold,
        max_hole_area=options.max_hole_area,
        max_sprinkle_area=options.max_sprinkle_area,
        unclamped=options.unclamped_logits,
    )


def read_prompts(prompts: Sequence[pb.Prompt], width: int, height: int, mask_size: int, limits: Limits) -> list[Prompt]:
    """Checks prompts against the image and model that they are for.

    Raises:
        InvalidArgument: With the path of the field that is wrong.
    """
    if len(prompts) > limits.prompts:
        raise InvalidArgument(
            "TOO_MANY_PROMPTS", f"{len(prompts)} prompts; at most {limits.prompts} fit in one request", field="prompts"
        )
    return [
        _read(prompt, f"prompts[{index}]", width, height, mask_size, limits)
        for index, prompt in enumerate(prompts or [pb.Prompt()])
    ]


def _read(prompt: pb.Prompt, path: str, width: int, height: int, mask_size: int, limits: Limits) -> Prompt:
    if len(prompt.points) > limits.points:
        raise InvalidArgument(
            "TOO_MANY_POINTS",
            f"{len(prompt.points)} points; at most {limits.points} fit in one prompt",
            field=f"{path}.points",
        )
    for index, point in enumerate(prompt.points):
        check_point(point, f"{path}.points[{index}]", width, height)
    return Prompt(
        prompt_id=prompt.prompt_id,
        points=np.array([(point.x_px, point.y_px) for point in prompt.points], np.float32).reshape(-1, 2),
        labels=np.array([point.label if point.HasField("label") else 1 for point in prompt.points], np.int64),
        box=read_box(prompt.box, f"{path}.box", width, height) if prompt.HasField("box") else None,
        mask=_mask_of(prompt, path, width, height, mask_size),
    )


def _mask_of(prompt: pb.Prompt, path: str, width: int, height: int, mask_size: int) -> NDArray[np.float32] | None:
    if prompt.HasField("mask") and prompt.HasField("mask_rle"):
        raise InvalidArgument("TWO_MASKS", "give mask or mask_rle, not both", field=f"{path}.mask_rle")
    if prompt.HasField("mask"):
        return _read_mask(prompt.mask, f"{path}.mask", mask_size)
    if prompt.HasField("mask_rle"):
        return logits_of(_read_rle(prompt.mask_rle, f"{path}.mask_rle", width, height), mask_size)
    return None


def check_point(point: pb.Point, path: str, width: int, height: int) -> None:
    """Refuses a click outside of the image or with an unknown label.

    Raises:
        InvalidArgument: With the path of the field that is wrong.
    """
    _within(point.x_px, width, "wide", f"{path}.x_px")
    _within(point.y_px, height, "high", f"{path}.y_px")
    if point.HasField("label") and point.label not in (0, 1):
        raise InvalidArgument(
            "BAD_LABEL", f"label {point.label}; use 1 (inside the object) or 0 (outside)", field=f"{path}.label"
        )


def read_box(box: pb.Box, path: str, width: int, height: int) -> NDArray[np.float32]:
    """Checks a box against the image; 4 fp32: x_min, y_min, x_max, y_max.

    Raises:
        InvalidArgument: With the path of the field that is wrong.
    """
    _within(box.x_min_px, width, "wide", f"{path}.x_min_px")
    _within(box.x_max_px, width, "wide", f"{path}.x_max_px")
    _within(box.y_min_px, height, "high", f"{path}.y_min_px")
    _within(box.y_max_px, height, "high", f"{path}.y_max_px")
    if box.x_min_px >= box.x_max_px or box.y_min_px >= box.y_max_px:
        raise InvalidArgument(
            "EMPTY_BOX",
            "a box needs x_min < x_max and y_min < y_max; its order is x_min, y_min, x_max, y_max",
            field=path,
        )
    return np.array([box.x_min_px, box.y_min_px, box.x_max_px, box.y_max_px], np.float32)


def _read_mask(mask: pb.Logits, path: str, mask_size: int) -> NDArray[np.float32]:
    if (mask.height, mask.width) != (mask_size, mask_size):
        raise InvalidArgument(
            "BAD_MASK_SIZE",
            f"mask logits are {mask.height}x{mask.width}; this image's model takes {mask_size}x{mask_size}",
            field=path,
        )
    dtype = LOGITS_DTYPES.get(mask.data_type)
    if dtype is None:
        raise InvalidArgument("BAD_DATA_TYPE", "mask logits need a data_type: FP16 or FP32", field=f"{path}.data_type")
    if len(mask.data) != mask_size * mask_size * dtype.itemsize:
        raise InvalidArgument(
            "BAD_MASK_DATA",
            f"mask logits have {len(mask.data)} bytes instead of {mask_size * mask_size * dtype.itemsize}",
            field=f"{path}.data",
        )
    logits: NDArray[np.float32] = np.frombuffer(mask.data, dtype).reshape(mask_size, mask_size).astype(np.float32)
    if not np.isfinite(logits).all():
        raise InvalidArgument("NOT_FINITE", "mask logits hold NaN or infinity", field=f"{path}.data")
    return logits


def _read_rle(rle: pb.Rle, path: str, width: int, height: int) -> NDArray[np.uint8]:
    """HxW, 1 inside and 0 outside."""
    if list(rle.size) != [height, width]:
        raise InvalidArgument(
            "BAD_MASK_SIZE",
            f"the mask has size {list(rle.size)}; the image has {[height, width]}: rows and columns",
            field=path,
        )
    if len(rle.counts) > _MAX_COUNTS:
        raise InvalidArgument(
            "BAD_MASK_DATA", f"a mask of more than {_MAX_COUNTS} characters; smooth it", field=f"{path}.counts"
        )
    lengths = _run_lengths(rle.counts)
    if lengths is None or sum(lengths) != width * height:
        raise InvalidArgument(
            "BAD_MASK_DATA", f"counts are no compressed COCO runs of {height}x{width} pixels", field=f"{path}.counts"
        )
    values = np.arange(len(lengths)) % 2
    return np.repeat(values.astype(np.uint8), lengths).reshape(width, height).T


def _run_lengths(counts: str) -> list[int] | None:
    """Lengths of runs, outside first; None if the text is not COCO's. pycocotools would read beyond such a text's end,
    and write beyond a mask's."""
    lengths: list[int] = []
    value = shift = 0
    for character in counts.encode("utf-8", "replace"):
        digit = character - 48
        if not 0 <= digit < 64 or shift > 30:
            return None
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & 0x20:
            continue
        if digit & 0x10:
            value -= 1 << shift
        if len(lengths) > 2:  # from the fourth on, differences to the length before the last
            value += lengths[-2]
        if value < 0:
            return None
        lengths.append(value)
        value = shift = 0
    return None if shift else lengths


def logits_of(mask: NDArray[np.uint8], mask_size: int) -> NDArray[np.float32]:
    """Logits that say what a mask says: -10 outside and 10 inside, as `SAM2Base._use_mask_as_output` of sam2 has them,
    each the average over its low-resolution pixel.

    Args:
        mask: HxW, 1 inside and 0 outside, of the image's size.
        mask_size: S.

    Returns:
        SxS.
    """
    shares = cv2.resize(mask.astype(np.float32), (mask_size, mask_size), interpolation=cv2.INTER_AREA)
    return np.asarray(shares * 20 - 10, np.float32)


def _within(value: float, limit: int, side: str, path: str) -> None:
    if not 0 <= value <= limit:  # NaN fails both comparisons
        raise InvalidArgument(
            "OUT_OF_IMAGE", f"{value:g} is outside of the image, which is {limit} px {side}", field=path
        )


def _known(enum: type, value: int, path: str) -> None:
    if value not in enum.values():  # type: ignore[attr-defined]
        raise InvalidArgument("UNKNOWN_VALUE", f"{value} is not a value of {path}", field=path)
