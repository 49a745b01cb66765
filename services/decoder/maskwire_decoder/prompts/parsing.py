"""Turns the prompts and output options of requests into checked values."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from maskwire.v1 import types_pb2 as pb
from maskwire_core.errors import InvalidArgument
from maskwire_core.masks.geometry import ImageSize, parse_box, parse_point
from numpy.typing import NDArray

from maskwire_decoder.prompts.mask_input import parse_mask
from maskwire_decoder.prompts.steps import Shape, StepList, parse_steps

_MAX_STEPS_OF_REQUEST = 10_000
_MAX_FORMATS = 32


@dataclass(frozen=True)
class Prompt:
    """One object to segment."""

    prompt_id: str  # the caller's name for it
    points: NDArray[np.float32]  # Nx2 fp32, x and y in pixels of the image
    labels: NDArray[np.int64]  # N int64, 1 positive, 0 negative
    box: NDArray[np.float32] | None = None  # x_min, y_min, x_max, y_max fp32 in pixels of the image, or None
    mask: NDArray[np.float32] | None = None  # SxS fp32 logits that are refined, S being the model's mask size, or None
    multimask: bool = True  # whether the model gives its three candidates, or its single mask
    history: StepList | None = None  # the steps that have led to these points and this box, where it was sent as steps
    candidate: int = 0  # the candidate that is given alone, 1 to 3; 0: the best one, or all that are asked for

    def gives_all(self, every: bool) -> bool:
        """Whether all candidates are given, if `every` one is asked for."""
        return every and self.multimask and not self.candidate


@dataclass(frozen=True)
class Output:
    """What is returned for each prompt."""

    formats: frozenset[pb.MaskFormat.ValueType]  # forms of the masks; not empty
    every: bool  # all candidates, or the best one
    logits_type: pb.DataType.ValueType  # element type of returned logits, a key of `LOGITS_DTYPES`
    threshold: float  # logit above which a pixel is inside
    max_hole_area: int  # largest hole that is filled, in low-resolution pixels
    max_sprinkle_area: int  # largest island that is removed, in low-resolution pixels
    unclamped: bool  # whether logits are returned as the model gave them


@dataclass(frozen=True)
class Limits:
    """What a request may have at most."""

    prompts: int
    points: int  # in a prompt
    mask_pixels: int  # of an image whose masks are made or taken as pixels


def parse_output(options: pb.OutputOptions) -> Output:
    """Checks what a request asks for.

    Raises:
        InvalidArgument: UNKNOWN_VALUE for an enum's value that this version does not know, BAD_OUTPUT, or NOT_FINITE.
    """
    if len(options.formats) > _MAX_FORMATS:
        raise InvalidArgument(
            "BAD_OUTPUT", f"{len(options.formats)} formats; name each form of a mask once", field="output.formats"
        )
    for index, mask_format in enumerate(options.formats):
        _check_known(pb.MaskFormat, mask_format, f"output.formats[{index}]")
    _check_known(pb.Candidates, options.candidates, "output.candidates")
    _check_known(pb.DataType, options.logits_type, "output.logits_type")
    if not math.isfinite(options.mask_threshold):
        raise InvalidArgument("NOT_FINITE", "mask_threshold is NaN or infinite", field="output.mask_threshold")
    formats = {mask_format or pb.MASK_FORMAT_RLE for mask_format in options.formats}
    return Output(
        formats=frozenset(formats or {pb.MASK_FORMAT_RLE}),
        every=options.candidates == pb.CANDIDATES_ALL,
        logits_type=options.logits_type or pb.DATA_TYPE_FP16,
        threshold=options.mask_threshold,
        max_hole_area=options.max_hole_area,
        max_sprinkle_area=options.max_sprinkle_area,
        unclamped=options.unclamped_logits,
    )


def parse_prompts(
    prompts: Sequence[pb.Prompt],
    options: pb.OutputOptions,
    size: ImageSize,
    mask_size: int,
    limits: Limits,
    rest: Callable[[], None] = lambda: None,
) -> tuple[Prompt, ...]:
    """Checks prompts against the image and the model that they are for.

    Args:
        prompts: The prompts of a request; none are one empty prompt.
        options: The output options of the request, which say whether prompts without steps give three candidates.
        size: Size of the image.
        mask_size: Side of the model's low-resolution masks.
        limits: What a request may have at most.
        rest: Called after each prompt.

    Raises:
        InvalidArgument: With the path of the field that is wrong.
    """
    if len(prompts) > limits.prompts:
        raise InvalidArgument(
            "TOO_MANY_PROMPTS", f"{len(prompts)} prompts; at most {limits.prompts} fit in one request", field="prompts"
        )
    steps = sum(len(prompt.steps) for prompt in prompts)
    if steps > _MAX_STEPS_OF_REQUEST:
        raise InvalidArgument(
            "TOO_MANY_STEPS",
            f"{steps} steps in all; at most {_MAX_STEPS_OF_REQUEST} fit in one request. Send fewer objects at once",
            field="prompts",
        )
    if steps and options.HasField("multimask"):
        raise InvalidArgument(
            "STEPS_AND_PROMPTS", "prompts with steps say multimask in each step, not here", field="output.multimask"
        )
    _check_pixels(prompts, options, size, limits)
    multimask = options.multimask if options.HasField("multimask") else True
    parsed = []
    for index, prompt in enumerate(prompts or [pb.Prompt()]):
        path = f"prompts[{index}]"
        if prompt.steps:
            parsed.append(_parse_object(prompt, path, size, limits))
        else:
            parsed.append(_parse_prompt(prompt, path, size, mask_size, limits, multimask))
        rest()
    return tuple(parsed)


def _check_pixels(prompts: Sequence[pb.Prompt], options: pb.OutputOptions, size: ImageSize, limits: Limits) -> None:
    """Refuses masks whose pixels would take more memory than there is for them."""
    if size.width * size.height <= limits.mask_pixels:
        return
    said = f"the image has {size.width}x{size.height} pixels; of more than {limits.mask_pixels}, masks are given as"
    for index, prompt in enumerate(prompts):
        if prompt.HasField("mask_rle"):
            raise InvalidArgument("MASK_TOO_LARGE", f"{said} logits", field=f"prompts[{index}].mask_rle")
    if set(options.formats) - {pb.MASK_FORMAT_UNSPECIFIED, pb.MASK_FORMAT_RLE, pb.MASK_FORMAT_LOGITS}:
        raise InvalidArgument("MASK_TOO_LARGE", f"{said} run lengths or logits", field="output.formats")


def _parse_prompt(
    prompt: pb.Prompt, path: str, size: ImageSize, mask_size: int, limits: Limits, multimask: bool
) -> Prompt:
    if len(prompt.points) > limits.points:
        raise InvalidArgument(
            "TOO_MANY_POINTS",
            f"{len(prompt.points)} points; at most {limits.points} fit in one prompt",
            field=f"{path}.points",
        )
    shape = Shape([parse_point(point, f"{path}.points[{index}]", size) for index, point in enumerate(prompt.points)])
    box = parse_box(prompt.box, f"{path}.box", size) if prompt.HasField("box") else None
    mask = parse_mask(prompt, path, size, mask_size)
    return Prompt(prompt.prompt_id, shape.points, shape.labels, box, mask, multimask)


def _parse_object(prompt: pb.Prompt, path: str, size: ImageSize, limits: Limits) -> Prompt:
    if prompt.points or any(prompt.HasField(name) for name in ("box", "mask", "mask_rle")):
        raise InvalidArgument(
            "STEPS_AND_PROMPTS", "give steps, or points, box and mask, not both", field=f"{path}.steps"
        )
    history = parse_steps(prompt.steps, f"{path}.steps", size, limits.points)
    return Prompt(
        prompt.prompt_id, *history.shape.arrays, None, history.last.multimask, history, history.last.candidate
    )


def _check_known(enum: type, value: int, path: str) -> None:
    if value not in enum.values():  # type: ignore[attr-defined]
        raise InvalidArgument("UNKNOWN_VALUE", f"{value} is not a value of {path}", field=path)
