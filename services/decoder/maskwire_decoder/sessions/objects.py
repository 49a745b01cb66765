"""The objects of a session: their prompts, what has led to them, and their masks' logits."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core.errors import InvalidArgument
from maskwire_core.storage.embedding import Header

from maskwire_decoder.masks.rendering import clamp
from maskwire_decoder.prompts.encoding import Prediction
from maskwire_decoder.prompts.parsing import Limits, Prompt, check_point, read_box, read_output, read_prompts

_MAX_NAME = 256
_MAX_OBJECTS = 1000
_MAX_STEPS = 1000
_HISTORY = ("add_point", "remove_point", "set_box", "clear")


@dataclass(eq=False)
class Step:
    """An object as it was after a change.

    Attributes:
        parent: What it was before; None where the object begins.
        shape: Its clicks and box.
        feeds: Whether the parent's logits are fed back.
        multimask: Decoded to three candidates, of which the best counts.
        depth: Number of changes that led to it.
        prediction: Its masks; None where they were not asked for yet, or dropped: they can be decoded again.
    """

    parent: "Step | None"
    shape: types_pb2.Prompt
    feeds: bool = False
    multimask: bool = False
    depth: int = 0
    prediction: Prediction | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it has no prompts, and so no mask."""
        return not self.shape.points and not self.shape.HasField("box")

    def missing(self) -> "list[Step]":
        """The steps that must be decoded to have this one's masks, in order."""
        steps: list[Step] = []
        step: Step | None = self
        while step is not None and not step.is_empty and step.prediction is None:
            steps.append(step)
            step = step.parent if step.feeds else None
        return steps[::-1]

    def prompt(self, image: Header, mask_size: int, limits: Limits) -> Prompt:
        """What is decoded. The parent's masks must be there if they are fed back."""
        (prompt,) = read_prompts([self.shape], image.width, image.height, mask_size, limits)
        if not self.feeds:
            return prompt
        assert self.parent is not None
        assert self.parent.prediction is not None
        return replace(prompt, mask=clamp(self.parent.prediction.best))


@dataclass(frozen=True)
class Object:
    """A named object: how it is now, and the steps that can be made again, the next one last."""

    step: Step
    undone: Sequence[Step] = ()


class Objects:
    """All objects on one image. Masks of their steps are kept up to a number of bytes, the latest ones.

    Args:
        image: The image, for its size.
        limits: Most points in a prompt.
        max_bytes: Of kept logits.
    """

    def __init__(self, image: Header, limits: Limits, max_bytes: int) -> None:
        self._image = image
        self._limits = limits
        self._max_bytes = max_bytes
        self._objects: dict[str, Object] = {}
        self._kept: OrderedDict[Step, int] = OrderedDict()
        self._kept_bytes = 0

    def propose(self, edit: pb.EditObject) -> Object:
        """An object as a change would make it. Nothing is changed before it is committed.

        Raises:
            InvalidArgument: The change cannot be made.
        """
        change = edit.WhichOneof("change")
        if change is None:
            raise InvalidArgument("EMPTY_REQUEST", "say what to change: add_point, set_box, undo, ...", field="edit")
        if change not in ("add_point", "set_box") and edit.object_id not in self._objects:
            raise _no_object(edit.object_id)
        now = self._objects.get(edit.object_id) or _new(edit.object_id, "edit.object_id")
        if change == "undo":
            if now.step.parent is None:
                raise InvalidArgument(
                    "NOTHING_TO_UNDO", "there is nothing to undo: the object is as it began", field="edit.undo"
                )
            return Object(now.step.parent, [*now.undone, now.step])
        if change == "redo":
            if not now.undone:
                raise InvalidArgument("NOTHING_TO_REDO", "nothing was taken back last", field="edit.redo")
            return Object(now.undone[-1], now.undone[:-1])
        return Object(self._changed(now.step, edit, "edit"))

    def commit(self, object_id: str, changed: Object) -> None:
        """Makes a proposed change.

        Raises:
            InvalidArgument: There are too many objects.
        """
        if object_id not in self._objects and len(self._objects) >= _MAX_OBJECTS:
            raise InvalidArgument(
                "TOO_MANY_OBJECTS", f"a session holds {_MAX_OBJECTS} objects; remove some", field="edit.object_id"
            )
        self._objects[object_id] = changed

    def remove(self, object_id: str) -> None:
        """Forgets an object.

        Raises:
            InvalidArgument: There is none of that name.
        """
        if self._objects.pop(object_id, None) is None:
            raise _no_object(object_id)

    def restore(self, message: pb.RestoreObject) -> Object:
        """Brings an object's history back, without its masks.

        Raises:
            InvalidArgument: A step is not one that can be made.
        """
        steps = [_new(message.object_id, "restore.object_id").step]
        for index, edit in enumerate(message.steps):
            path = f"restore.steps[{index}]"
            if edit.WhichOneof("change") not in _HISTORY:
                raise InvalidArgument("BAD_STEP", f"a history consists of {', '.join(_HISTORY)}", field=path)
            steps.append(self._changed(steps[-1], edit, path))
        current = len(steps) - 1 - message.undone
        if current < 0:
            raise InvalidArgument("NOTHING_TO_UNDO", "more is undone than was done", field="restore.undone")
        restored = Object(steps[current], steps[:current:-1])
        self.commit(message.object_id, restored)
        return restored

    def keep(self, step: Step, prediction: Prediction) -> None:
        """Keeps the masks of a step, and drops those of the earliest kept ones where it gets too much."""
        step.prediction = prediction
        self._kept[step] = prediction.logits.nbytes
        self._kept_bytes += prediction.logits.nbytes
        while self._kept_bytes > self._max_bytes and len(self._kept) > 1:
            dropped, nbytes = self._kept.popitem(last=False)
            dropped.prediction = None
            self._kept_bytes -= nbytes

    def _changed(self, now: Step, edit: pb.EditObject, path: str) -> Step:
        """A step further by one change of the prompts."""
        if now.depth >= _MAX_STEPS:
            raise InvalidArgument(
                "TOO_MANY_STEPS", f"an object takes {_MAX_STEPS} changes; remove it and begin anew", field=path
            )
        shape = types_pb2.Prompt()
        shape.CopyFrom(now.shape)
        feeds = not now.is_empty
        match edit.WhichOneof("change"):
            case "add_point":
                if len(shape.points) >= self._limits.points:
                    raise InvalidArgument(
                        "TOO_MANY_POINTS", f"an object has at most {self._limits.points} points", field=path
                    )
                check_point(edit.add_point, f"{path}.add_point", self._image.width, self._image.height)
                shape.points.append(edit.add_point)
            case "remove_point":
                if edit.remove_point >= len(shape.points):
                    raise InvalidArgument(
                        "NO_SUCH_POINT",
                        f"the object has {len(shape.points)} points, counted from 0",
                        field=f"{path}.remove_point",
                    )
                del shape.points[edit.remove_point]
                feeds = False
            case "set_box":
                read_box(edit.set_box, f"{path}.set_box", self._image.width, self._image.height)
                feeds = feeds and not shape.HasField("box")
                shape.box.CopyFrom(edit.set_box)
            case _:
                shape.ClearField("points")
                shape.ClearField("box")
        if edit.HasField("refine"):
            feeds = edit.refine and not now.is_empty
        output = read_output(edit.output)
        alone = len(shape.points) == 1 and not shape.HasField("box") and not feeds
        multimask = output.multimask if edit.output.HasField("multimask") else alone
        return Step(now, shape, feeds, multimask, now.depth + 1)


def _new(object_id: str, path: str) -> Object:
    if not 0 < len(object_id) <= _MAX_NAME:
        raise InvalidArgument("BAD_OBJECT_ID", f"an object_id has 1 to {_MAX_NAME} characters", field=path)
    return Object(Step(None, types_pb2.Prompt(prompt_id=object_id)))


def _no_object(object_id: str) -> InvalidArgument:
    return InvalidArgument("NO_OBJECT", f"there is no object {object_id!r}", field="edit.object_id")
