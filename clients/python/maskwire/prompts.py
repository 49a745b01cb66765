"""What to segment, and what to return of it, as request messages."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from maskwire.errors import InvalidRequest
from maskwire.v1 import types_pb2 as pb

Format = Literal["rle", "png", "polygons", "packed_bits", "logits"]

FORMATS: dict[str, pb.MaskFormat.ValueType] = {
    "rle": pb.MASK_FORMAT_RLE,
    "png": pb.MASK_FORMAT_PNG,
    "polygons": pb.MASK_FORMAT_POLYGONS,
    "packed_bits": pb.MASK_FORMAT_PACKED_BITS,
    "logits": pb.MASK_FORMAT_LOGITS,
}
_MAX_WAIT_S = 60
_LOGITS_TYPES = {"float16": pb.DATA_TYPE_FP16, "float32": pb.DATA_TYPE_FP32}


@dataclass(frozen=True)
class Prompt:
    """One object to segment. With no points, box or mask: the most prominent object.

    Attributes:
        points: Clicks as (x, y) in pixels of the image, EXIF orientation applied.
        labels: 1 (inside) or 0 (outside) for each point; all 1 when None.
        box: (x_min, y_min, x_max, y_max) in pixels.
        mask: Logits of an earlier result (`Result.logits`), to be refined; fp16 or fp32, SxS or 1xSxS.
        prompt_id: Any name; the result carries it.
    """

    points: Iterable[Sequence[float]] | NDArray[Any] | None = None
    labels: Iterable[int] | NDArray[Any] | None = None
    box: Sequence[float] | NDArray[Any] | None = None
    mask: NDArray[Any] | None = None
    prompt_id: str = ""

    def message(self, path: str = "prompt") -> pb.Prompt:
        """The prompt as it is sent.

        Raises:
            InvalidRequest: Something has the wrong type or shape; `field` says where.
        """
        message = pb.Prompt(prompt_id=self.prompt_id)
        try:
            points = [] if self.points is None else [tuple(map(float, point)) for point in self.points]
            box = None if self.box is None else tuple(map(float, self.box))
            labels = [1] * len(points) if self.labels is None else [int(label) for label in self.labels]
        except (TypeError, ValueError) as error:
            raise InvalidRequest(
                f"points are [(x, y), ...], labels [1, 0, ...] and a box (x_min, y_min, x_max, y_max): {error}",
                "BAD_PROMPT",
                path,
            ) from error
        if len(points) != len(labels):
            raise InvalidRequest(
                f"{len(points)} points but {len(labels)} labels; give one label (1 or 0) for each point",
                "LABELS_MISMATCH",
                f"{path}.labels",
            )
        for index, (point, label) in enumerate(zip(points, labels, strict=True)):
            if len(point) != 2:
                raise InvalidRequest("a point is (x, y)", "BAD_POINT", f"{path}.points[{index}]")
            if label not in (0, 1):
                raise InvalidRequest(
                    f"label {label}; use 1 (inside) or 0 (outside)", "BAD_LABEL", f"{path}.points[{index}].label"
                )
            message.points.add(x_px=point[0], y_px=point[1], label=label)
        if box is not None:
            if len(box) != 4:
                raise InvalidRequest("a box is (x_min, y_min, x_max, y_max)", "BAD_BOX", f"{path}.box")
            x_min, y_min, x_max, y_max = box
            message.box.CopyFrom(pb.Box(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max))
        if self.mask is not None:
            mask = np.asarray(self.mask)
            mask = mask[0] if mask.ndim == 3 and len(mask) == 1 else mask
            if mask.ndim != 2:
                raise InvalidRequest("mask logits have the shape SxS or 1xSxS", "BAD_MASK", f"{path}.mask")
            mask = mask if mask.dtype == np.float16 else mask.astype(np.float32)
            message.mask.height, message.mask.width = mask.shape
            message.mask.data_type = _LOGITS_TYPES[mask.dtype.name]
            message.mask.data = mask.astype(mask.dtype.newbyteorder("<")).tobytes()
        return message


class OutputArguments(TypedDict, total=False):
    """What to return of a prompt; keyword arguments of the clients' segment methods.

    Attributes:
        multimask: The model's three candidates (default), for prompts that may mean several things. False: its single
            mask, or the best of three where that is unstable. As multimask_output of SAM2ImagePredictor.
        every: All candidates instead of the best one.
        outputs: Forms of mask: "rle" (default), "png", "polygons", "packed_bits", "logits".
        logits_dtype: Precision of returned logits: "float16" (default) or "float32".
        mask_threshold: Logit above which a pixel is inside; 0 by default.
        max_hole_area: Holes of at most this many low-resolution pixels are filled; 0 by default.
        max_sprinkle_area: Islands of at most this many low-resolution pixels are removed; 0 by default.
        unclamped_logits: Logits as the model has them instead of clamped to -32..32, to be enlarged by the caller.
    """

    multimask: bool
    every: bool
    outputs: Iterable[Format]
    logits_dtype: Literal["float16", "float32"]
    mask_threshold: float
    max_hole_area: int
    max_sprinkle_area: int
    unclamped_logits: bool


def output_options(arguments: OutputArguments) -> tuple[pb.OutputOptions, tuple[Format, ...]]:
    """What is asked for, as it is sent, and the forms in it.

    Raises:
        InvalidRequest: A value is unknown or out of range.
    """
    outputs = tuple(arguments.get("outputs", ("rle",))) or ("rle",)
    for name in outputs:
        if name not in FORMATS:
            raise InvalidRequest(f"unknown output {name!r}; choose from {', '.join(FORMATS)}", "BAD_OUTPUT", "outputs")
    dtype = arguments.get("logits_dtype", "float16")
    if dtype not in _LOGITS_TYPES:
        raise InvalidRequest(f"logits_dtype {dtype!r}; use float16 or float32", "BAD_OUTPUT", "logits_dtype")
    try:
        options = pb.OutputOptions(
            formats=[FORMATS[name] for name in outputs],
            candidates=pb.CANDIDATES_ALL if arguments.get("every", False) else pb.CANDIDATES_BEST,
            multimask=arguments.get("multimask", True),
            logits_type=_LOGITS_TYPES[dtype],
            mask_threshold=arguments.get("mask_threshold", 0.0),
            max_hole_area=arguments.get("max_hole_area", 0),
            max_sprinkle_area=arguments.get("max_sprinkle_area", 0),
            unclamped_logits=arguments.get("unclamped_logits", False),
        )
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            f"a threshold is a number, an area a whole one: {error}", "BAD_OUTPUT", "output"
        ) from error
    return options, outputs


def wait_ms(wait_s: float) -> int:
    """How long to wait for an image, as it is sent.

    Raises:
        InvalidRequest: It is not within 0..60 s.
    """
    if not 0 <= wait_s <= _MAX_WAIT_S:
        raise InvalidRequest(f"wait_s is {wait_s}; give 0 to {_MAX_WAIT_S}", "BAD_WAIT", "wait_s")
    return int(wait_s * 1000)
