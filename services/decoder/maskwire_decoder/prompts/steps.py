"""Objects as lists of steps: checked, folded into clicks and a box, and identified by digests."""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from maskwire.v1 import types_pb2 as pb
from maskwire_core.errors import InvalidArgument
from maskwire_core.masks.geometry import ImageSize, parse_box, parse_point
from maskwire_core.models.decoder_bundle import CANDIDATES
from numpy.typing import NDArray

MAX_STEPS = 1000

_DIGEST_BYTES = 16
_EMPTY = b""  # the digest of an object without clicks and box, whatever has led there


class Change(NamedTuple):
    """One change of an object's clicks and box."""

    kind: Literal["add_point", "remove_point", "set_box", "clear"]  # name of the field in `Step.change`
    values: tuple[float, ...] = ()  # x, y, label of the click; index of the removed one; x_min, y_min, x_max, y_max


class Step(NamedTuple):
    """A checked step."""

    change: Change  # what it changes
    refine: bool  # whether the logits of the mask before it are fed back to the model
    multimask: bool  # whether the model gives three candidates, of which the best counts, instead of its single mask
    candidate: int  # the candidate that counts instead of the best, 1 to 3; 0: the best
    digest: bytes  # identifies the steps up to this one: all that determines its mask's logits, beside the image


@dataclass
class Shape:
    """The clicks and the box of an object after some of its steps."""

    clicks: list[tuple[float, ...]] = field(default_factory=list)  # x, y and label of each click
    box: tuple[float, ...] | None = None  # x_min, y_min, x_max, y_max, or None

    def apply(self, change: Change) -> None:
        """Makes a change."""
        match change.kind:
            case "add_point":
                self.clicks.append(change.values)
            case "remove_point":
                del self.clicks[int(change.values[0])]
            case "set_box":
                self.box = change.values
            case "clear":
                self.clicks.clear()
                self.box = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to segment."""
        return not self.clicks and self.box is None

    @property
    def points(self) -> NDArray[np.float32]:
        """Nx2, x and y of the clicks in pixels of the image."""
        return np.array([click[:2] for click in self.clicks], np.float32).reshape(-1, 2)

    @property
    def labels(self) -> NDArray[np.int64]:
        """N, 1 for positive and 0 for negative clicks."""
        return np.array([click[2] for click in self.clicks], np.int64)

    @property
    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32] | None]:
        """Points, labels and box."""
        return self.points, self.labels, self.box_array

    @property
    def box_array(self) -> NDArray[np.float32] | None:
        """The box as 4 fp32."""
        return None if self.box is None else np.array(self.box, np.float32)


@dataclass(frozen=True)
class StepList:
    """The steps of an object, at least one, and its clicks and box after the last of them: not empty."""

    steps: tuple[Step, ...]
    shape: Shape

    @property
    def last(self) -> Step:
        """The step whose mask is asked for."""
        return self.steps[-1]

    @property
    def fed_by(self) -> bytes | None:
        """The digest of the steps before the last one, if their logits are fed back to the model."""
        return self.steps[-2].digest if self.last.refine else None

    def predecessors(self) -> Iterator[int]:
        """Yields the indices of the steps whose logits lead to the last one's mask, the latest first: those since the
        last step that feeds nothing back."""
        index = len(self.steps) - 1
        while self.steps[index].refine:
            index -= 1
            yield index

    def shapes(self, indices: range) -> Iterator[tuple[Step, Shape]]:
        """Yields the steps at some indices, in order, each with the clicks and the box after it. It is the same `Shape`
        each time, changed in place."""
        shape = Shape()
        for index, step in enumerate(self.steps[: indices.stop]):
            shape.apply(step.change)
            if index in indices:
                yield step, shape


def parse_steps(steps: Sequence[pb.Step], path: str, size: ImageSize, max_points: int) -> StepList:
    """Checks the steps of an object.

    Args:
        steps: The steps, in order.
        path: Path of the field that holds them, for errors.
        size: Size of the image.
        max_points: Most clicks that the object may have at any time.

    Raises:
        InvalidArgument: A step cannot be made, with the path of its field; or nothing is left to segment (NO_PROMPTS).
    """
    if len(steps) > MAX_STEPS:
        raise InvalidArgument(
            "TOO_MANY_STEPS",
            f"{len(steps)} steps; an object has at most {MAX_STEPS}. Begin a new object, or send its clicks as points",
            field=path,
        )
    shape, digest, parsed = Shape(), _EMPTY, []
    for index, message in enumerate(steps):
        change = _parse_change(message, shape, f"{path}[{index}]", size, max_points)
        takes_away = change.kind == "remove_point" or (change.kind == "set_box" and shape.box is not None)
        refine = not shape.is_empty and (message.refine if message.HasField("refine") else not takes_away)
        shape.apply(change)
        refine = refine and not shape.is_empty
        alone = len(shape.clicks) == 1 and shape.box is None and not refine
        multimask = message.multimask if message.HasField("multimask") else alone
        if message.candidate and not (multimask and message.candidate <= CANDIDATES):
            raise InvalidArgument(
                "BAD_CANDIDATE",
                f"candidate is {message.candidate}; a step with multimask has {CANDIDATES}, counted from 1, no other",
                field=f"{path}[{index}].candidate",
            )
        step = Step(change, refine, multimask, message.candidate, _EMPTY)
        digest = _EMPTY if shape.is_empty else _digest(digest, step)
        parsed.append(step._replace(digest=digest))
    if shape.is_empty:
        raise InvalidArgument("NO_PROMPTS", "these steps leave no point and no box to segment by", field=path)
    return StepList(tuple(parsed), shape)


def _parse_change(step: pb.Step, shape: Shape, path: str, size: ImageSize, max_points: int) -> Change:
    match step.WhichOneof("change"):
        case "add_point":
            if len(shape.clicks) >= max_points:
                raise InvalidArgument(
                    "TOO_MANY_POINTS", f"an object has at most {max_points} points", field=f"{path}.add_point"
                )
            return Change("add_point", parse_point(step.add_point, f"{path}.add_point", size))
        case "remove_point":
            if step.remove_point >= len(shape.clicks):
                raise InvalidArgument(
                    "NO_SUCH_POINT",
                    f"the object has {len(shape.clicks)} points, counted from 0",
                    field=f"{path}.remove_point",
                )
            return Change("remove_point", (step.remove_point,))
        case "set_box":
            return Change("set_box", tuple(parse_box(step.set_box, f"{path}.set_box", size).tolist()))
        case "clear":
            return Change("clear")
        case _:
            raise InvalidArgument(
                "EMPTY_STEP", "a step is one of add_point, remove_point, set_box and clear", field=path
            )


def _digest(before: bytes, step: Step) -> bytes:
    """Extends the digest of a list of steps by one step."""
    kind, values = step.change
    packed = struct.pack(f"<??B{len(values)}f", step.refine, step.multimask, step.candidate, *values)
    return hashlib.blake2b(before + packed + kind.encode(), digest_size=_DIGEST_BYTES).digest()
