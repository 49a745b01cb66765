"""The masks of objects on a frame."""

from collections.abc import Iterable

from maskwire.mask import Mask
from maskwire.output_options import Format
from maskwire.v1 import tracker_pb2 as pb

_FORMS: tuple[Format, ...] = ("rle",)


class TrackedFrame:
    """The objects on a frame of a track.

    Attributes:
        index: Number of the frame, from 0.
        time_s: When it is shown, in seconds from the beginning of the clip; None where that is not known.
        masks: Each object's `Mask`, by name; empty where the object is not to be seen.
        scores: Each object's logit of being visible: above 0 it is.
        prompted: Names of the objects that have prompts on this frame.
        handed_over: Whether masks were handed over from frame to frame, instead of being remembered.
        timings: Milliseconds by stage, as "track_ms" and "total_ms".
    """

    def __init__(self, message: pb.FrameMasks, size: tuple[int, int], time_s: float | None) -> None:
        shape = size[1], size[0]
        self.index = message.frame
        self.time_s = time_s
        self.masks = {each.object_id: Mask(each.mask, shape, _FORMS, None) for each in message.objects}
        self.scores = {each.object_id: each.object_score for each in message.objects}
        self.prompted: Iterable[str] = {each.object_id for each in message.objects if each.prompted}
        self.handed_over = message.handed_over
        self.timings = {field.name: value for field, value in message.timings.ListFields()}
        self.captured_at_us = message.captured_at_us or None

    def __repr__(self) -> str:
        seen = ", ".join(name for name, mask in self.masks.items() if mask.area)
        return f"<TrackedFrame {self.index}: {seen or 'nothing to be seen'}>"
