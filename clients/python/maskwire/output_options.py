"""What to return of each mask: checks it and converts it to request messages."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, TypedDict

from maskwire.arguments import is_finite, one_of
from maskwire.errors import InvalidRequest
from maskwire.suggest import no_such
from maskwire.v1 import types_pb2 as pb

Format = Literal["rle", "png", "polygons", "packed_bits", "logits"]

FORMATS: dict[str, pb.MaskFormat.ValueType] = {
    "rle": pb.MASK_FORMAT_RLE,
    "png": pb.MASK_FORMAT_PNG,
    "polygons": pb.MASK_FORMAT_POLYGONS,
    "packed_bits": pb.MASK_FORMAT_PACKED_BITS,
    "logits": pb.MASK_FORMAT_LOGITS,
}
LOGITS_TYPES = {"float16": pb.DATA_TYPE_FP16, "float32": pb.DATA_TYPE_FP32}


class Output(NamedTuple):
    """What to return of each mask: as the request says it, and the forms of mask in it."""

    options: pb.OutputOptions
    forms: tuple[Format, ...]


class OutputArguments(TypedDict, total=False):
    """Keyword arguments that say what to return of each mask.

    Attributes:
        multimask: True (default): the model's three candidates, for ambiguous prompts. False: its single mask, or the
            best of the three where that is unstable.
        every: Return all candidates in `Result.candidates` instead of the best one; False.
        outputs: Forms of mask to return, of "rle", "png", "polygons", "packed_bits" and "logits"; ("rle",).
        logits_dtype: Precision of returned logits, "float16" (default) or "float32".
        mask_threshold: Logit above which a pixel is inside; 0.0.
        max_hole_area: Holes of at most this many low-resolution pixels are filled; 0 leaves them.
        max_sprinkle_area: Islands of at most this many low-resolution pixels are removed; 0 leaves them.
        unclamped_logits: Return the model's own logits instead of clamping them to -32..32; False.
        multimask_output: sam2's name for `multimask`.
        return_logits: sam2's argument; only False is accepted, since the server thresholds masks (see `outputs`).
    """

    multimask: bool | None
    every: bool
    outputs: Iterable[Format]
    logits_dtype: Literal["float16", "float32"]
    mask_threshold: float
    max_hole_area: int
    max_sprinkle_area: int
    unclamped_logits: bool
    multimask_output: bool | None
    return_logits: bool


def output_options(arguments: OutputArguments) -> Output:
    """Checks and converts `OutputArguments`. With `multimask` None the server chooses by the prompt.

    Raises:
        InvalidRequest: A value is unknown or out of range.
    """
    if arguments.get("return_logits"):
        raise InvalidRequest(
            "the server thresholds masks; for logits pass outputs=('rle', 'logits') and unclamped_logits=True, and "
            "enlarge Result.logits to the image's size",
            "NO_FULL_SIZE_LOGITS",
            "return_logits",
        )
    outputs: Any = arguments.get("outputs", ())
    forms: tuple[Format, ...] = (outputs,) if isinstance(outputs, str) else tuple(outputs)  # type: ignore[assignment]
    forms = forms or ("rle",)
    for form in forms:
        if form not in FORMATS:
            raise InvalidRequest(no_such("output", str(form), FORMATS), "BAD_OUTPUT", "outputs")
    dtype, threshold = arguments.get("logits_dtype", "float16"), arguments.get("mask_threshold", 0.0)
    if dtype not in LOGITS_TYPES:
        raise InvalidRequest(f"logits_dtype {dtype!r}; use float16 or float32", "BAD_OUTPUT", "logits_dtype")
    if not is_finite(threshold):
        raise InvalidRequest(f"mask_threshold is {threshold!r}; give a number", "BAD_OUTPUT", "mask_threshold")
    hole, sprinkle = arguments.get("max_hole_area", 0), arguments.get("max_sprinkle_area", 0)
    for name, area in (("max_hole_area", hole), ("max_sprinkle_area", sprinkle)):
        if not is_finite(area) or area != int(area) or not 0 <= area < 1 << 32:
            raise InvalidRequest(f"{name} is {area!r}; give an integer number of pixels, or 0", "BAD_OUTPUT", name)
    options = pb.OutputOptions(
        formats=[FORMATS[name] for name in forms],
        candidates=pb.CANDIDATES_ALL if arguments.get("every") else pb.CANDIDATES_BEST,
        logits_type=LOGITS_TYPES[dtype],
        mask_threshold=threshold,
        max_hole_area=int(hole),
        max_sprinkle_area=int(sprinkle),
        unclamped_logits=bool(arguments.get("unclamped_logits")),
    )
    multimask = one_of("multimask", arguments.get("multimask"), "multimask_output", arguments.get("multimask_output"))
    if multimask is not None:
        options.multimask = bool(multimask)
    return Output(options, forms)
