"""Prompts of /sam2 requests against the image that they are for; errors are in the words of whoever sent them."""

import re
from dataclasses import dataclass

from maskwire.v1 import types_pb2
from maskwire_core.http.images import clip_to_image
from maskwire_core.http.problems import Problem

from maskwire_gateway.roboflow.forms import CentredBox, ObjectPrompt, SegmentForm

MAX_REFUSED = 128
"""Most wrong prompts beside good ones: each gets an answer, and costs its sender little."""

_PROMPT_BYTES, _POINT_BYTES = 1024, 128  # of memory, measured: in a message, in the request, and as what is sent


@dataclass(frozen=True)
class CheckedPrompts:
    """The prompts of a request.

    Attributes:
        messages: Those that a mask is computed for, in their order.
        places: Their indices among all.
        refused: What is wrong with the others, by their index among all.
        is_old_form: Whether the only one comes from point_coords and point_labels.
    """

    messages: list[types_pb2.Prompt]
    places: list[int]
    refused: dict[int, Problem]
    is_old_form: bool

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.messages) + len(self.refused)

    def place(self, field: str) -> str:
        """The path in the request of a field of SegmentRequest."""
        found = re.fullmatch(r"prompts\[(\d+)\](?:\.points\[(\d+)\])?(?:\.(\w+))?", field)
        if found is None:
            return field
        index, point, part = found.groups()
        if part == "mask":
            return "mask_input"
        if not self.is_old_form:
            field = f"prompts[{self.places[int(index)]}]{field[found.end(1) + 1 :]}"
            return re.sub(r"\.([xy])_px$", r".\1", field).replace(".label", ".positive")
        if point is None:
            return "point_coords"
        place = {"x_px": f"point_coords[{point}][0]", "y_px": f"point_coords[{point}][1]"}
        return place.get(part, f"point_labels[{point}]")


def memory_of_messages(form: SegmentForm) -> int:
    """Returns the most bytes of memory that the messages take which `check_prompts` makes of a form."""
    prompts = form.prompts.prompts or ()
    points = len(form.point_coords or ()) + sum(len(prompt.points or ()) for prompt in prompts)
    return len(prompts) * _PROMPT_BYTES + points * _POINT_BYTES


def check_prompts(form: SegmentForm, width: int, height: int) -> CheckedPrompts:
    """Checks the prompts of a request against an image of a size in pixels.

    Where some are wrong and others are not, the others are answered: detectors send many boxes at once, and one that
    has no area must not cost the rest.

    Raises:
        Problem: LABELS_MISMATCH; OUT_OF_IMAGE or EMPTY_BOX, of the first prompt that is wrong, if all are, or more than
            `MAX_REFUSED`.
    """
    if not form.prompts.prompts:
        return CheckedPrompts([_old_form(form)], [0], {}, True)
    checked = CheckedPrompts([], [], {}, False)
    for index, prompt in enumerate(form.prompts.prompts):
        try:
            checked.messages.append(_message(prompt, f"prompts[{index}]", width, height))
            checked.places.append(index)
        except Problem as problem:
            checked.refused[index] = problem
            if len(checked.refused) > MAX_REFUSED:
                break
    if checked.refused and (not checked.messages or len(checked.refused) > MAX_REFUSED):
        raise next(iter(checked.refused.values()))
    if form.mask_input is not None:
        checked.messages[0].mask.CopyFrom(form.mask_input)
    return checked


def _old_form(form: SegmentForm) -> types_pb2.Prompt:
    """The prompt of point_coords, point_labels and mask_input; empty if there are none."""
    prompt = types_pb2.Prompt()
    points = form.point_coords or []
    labels = [1] * len(points) if form.point_labels is None else form.point_labels
    if len(points) != len(labels):
        said = f"{len(points)} points but {len(labels)} labels; give one label (1 or 0) for each point"
        raise Problem(400, said, "LABELS_MISMATCH", "point_labels")
    for (x, y), label in zip(points, labels, strict=True):
        prompt.points.add(x_px=x, y_px=y, label=label)
    if form.mask_input is not None:
        prompt.mask.CopyFrom(form.mask_input)
    return prompt


def _message(prompt: ObjectPrompt, path: str, width: int, height: int) -> types_pb2.Prompt:
    message = types_pb2.Prompt()
    for index, point in enumerate(prompt.points or ()):
        place = f"{path}.points[{index}]"
        _check_within(point.x, width, "wide", f"{place}.x")
        _check_within(point.y, height, "high", f"{place}.y")
        message.points.add(x_px=point.x, y_px=point.y, label=int(point.positive))
    if prompt.box is not None:
        message.box.CopyFrom(_corners(prompt.box, f"{path}.box", width, height))
    return message


def _corners(box: CentredBox, path: str, width: int, height: int) -> types_pb2.Box:
    """The box by its corners. One that leaves the image, as boxes of detectors do a little, ends at its edge."""
    for name, side in (("width", box.width), ("height", box.height)):
        if side <= 0:
            said = f"{side:g}; a box has a width and a height above 0, and x and y are its centre"
            raise Problem(400, said, "EMPTY_BOX", f"{path}.{name}")
    half_width, half_height = box.width / 2, box.height / 2
    x_min, y_min = clip_to_image(box.x - half_width, box.y - half_height, width, height)
    x_max, y_max = clip_to_image(box.x + half_width, box.y + half_height, width, height)
    corners = types_pb2.Box(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max)
    if (
        corners.x_min_px >= corners.x_max_px or corners.y_min_px >= corners.y_max_px
    ):  # in fp32, as the decoder sees them
        raise Problem(
            400,
            f"the box of {box.width:g}x{box.height:g} px around ({box.x:g}, {box.y:g}) covers nothing of the image, "
            f"which is {width}x{height} px; x and y of a box are its centre",
            "EMPTY_BOX",
            path,
        )
    return corners


def _check_within(value: float, limit: int, side: str, path: str) -> None:
    if not 0 <= value <= limit:
        said = f"{value:g} is outside of the image, which is {limit} px {side}"
        raise Problem(400, said, "OUT_OF_IMAGE", path)
