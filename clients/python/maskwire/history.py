"""An object's history: the list of steps that the caller owns and sends with each request."""

from dataclasses import dataclass

from maskwire.errors import InvalidRequest
from maskwire.v1 import types_pb2


@dataclass(frozen=True)
class History:
    """The steps that led to an object, and those that were undone."""

    steps: tuple[types_pb2.Step, ...] = ()  # in the order in which they were made
    undone: tuple[types_pb2.Step, ...] = ()  # steps that can be redone, the next one last

    def add(self, step: types_pb2.Step) -> "History":
        """The history after one more step; what was undone cannot be redone any more.

        Raises:
            InvalidRequest: NO_SUCH_POINT: the step removes a click that the object does not have.
        """
        if step.WhichOneof("change") == "remove_point":
            count = len(self.prompt().points)
            if step.remove_point >= count:
                raise InvalidRequest(f"the object has {count} points, counted from 0", "NO_SUCH_POINT", "index")
        return History((*self.steps, step))

    def undo(self) -> "History":
        """The history without its last step.

        Raises:
            InvalidRequest: NOTHING_TO_UNDO.
        """
        if not self.steps:
            raise InvalidRequest("there is nothing to undo: the object is as it began", "NOTHING_TO_UNDO")
        return History(self.steps[:-1], (*self.undone, self.steps[-1]))

    def redo(self) -> "History":
        """The history with the step that was undone last.

        Raises:
            InvalidRequest: NOTHING_TO_REDO.
        """
        if not self.undone:
            raise InvalidRequest("nothing was taken back last", "NOTHING_TO_REDO")
        return History((*self.steps, self.undone[-1]), self.undone[:-1])

    def prompt(self, prompt_id: str = "") -> types_pb2.Prompt:
        """The clicks and the box that the steps add up to."""
        prompt = types_pb2.Prompt(prompt_id=prompt_id)
        for step in self.steps:
            match step.WhichOneof("change"):
                case "add_point":
                    prompt.points.append(step.add_point)
                case "remove_point":
                    del prompt.points[step.remove_point]
                case "set_box":
                    prompt.box.CopyFrom(step.set_box)
                case _:
                    prompt.ClearField("points")
                    prompt.ClearField("box")
        return prompt

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to segment: neither a click nor a box."""
        prompt = self.prompt()
        return not prompt.points and not prompt.HasField("box")
