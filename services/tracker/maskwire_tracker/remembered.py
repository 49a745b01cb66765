"""What is kept of an object on a frame, as `SAM2VideoPredictor` keeps it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
HalfBits = NDArray[np.uint16]
"""bf16 values as their bits, since NumPy has no bf16."""


def to_bf16(values: Floats) -> HalfBits:
    """Rounds to bf16, to the nearest and ties to even, as torch does."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: HalfBits) -> Floats:
    """The inverse of `to_bf16`; exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True)
class Remembered:
    """An object on a frame.

    Attributes:
        pointer: The object pointer, (C,) fp32.
        object_score: Logit of the object being visible.
        logits: Low-resolution mask, (S, S) fp32; None if it was dropped to save memory.
        memory: Output of the memory encoder, (N, D) bf16; None if it is not computed yet, or was dropped.
    """

    pointer: Floats
    object_score: float
    logits: Floats | None
    memory: HalfBits | None = None

    @property
    def size(self) -> int:
        """Bytes in memory."""
        kept = (self.pointer, self.logits, self.memory)
        return sum(array.nbytes for array in kept if array is not None)


@dataclass(frozen=True)
class Points:
    """Points on a frame, in pixels of the model's input: (P, 2) fp32, and their labels (P,) int64, as in `Prompt`."""

    places: Floats
    labels: NDArray[np.int64]

    def with_more(self, more: "Points") -> "Points":
        """Returns both, `more` last."""
        return Points(np.concatenate([self.places, more.places]), np.concatenate([self.labels, more.labels]))


@dataclass
class TrackedObject:
    """An object of a track: what is known of it, by frame. sam2's names stand in brackets.

    Attributes:
        points: Points that are in force on prompted frames (point_inputs_per_obj).
        prompted: Frames that others are conditioned on (cond_frame_outputs).
        followed: Frames that were followed (non_cond_frame_outputs).
        new_prompted: Prompts since the object was last followed (temp_output_dict_per_obj).
        new_followed: Likewise, corrections of followed frames, unless those condition others.
        backwards: Of frames that were followed, whether backwards (frames_tracked_per_obj).
    """

    points: dict[int, Points] = field(default_factory=dict)
    prompted: dict[int, Remembered] = field(default_factory=dict)
    followed: dict[int, Remembered] = field(default_factory=dict)
    new_prompted: dict[int, Remembered] = field(default_factory=dict)
    new_followed: dict[int, Remembered] = field(default_factory=dict)
    backwards: dict[int, bool] = field(default_factory=dict)
