"""Which memories and pointers of an object a frame recalls (SAM2Base._prepare_memory_conditioned_features)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from maskwire_core.models.tracker_bundle import TrackerConfig
from numpy.typing import NDArray

from maskwire_tracker.options import TrackOptions
from maskwire_tracker.remembered import Floats, Remembered, TrackedObject, from_bf16


@dataclass(frozen=True)
class Recalled:
    """What a frame recalls of an object, as inputs of the graph `recall`."""

    memories: Floats  # (M, N, D)
    places: NDArray[np.int64]  # (M,), each memory's row in the table of temporal encodings
    pointers: Floats  # (P, C)
    distances: Floats  # (P,), 1 being that of the farthest pointer that may be recalled


def recall(
    config: TrackerConfig, options: TrackOptions, tracked: TrackedObject, frame: int, frames: int, backwards: bool
) -> Recalled:
    """Selects what a frame recalls of an object.

    Args:
        config: The model's configuration.
        options: The track's options.
        tracked: The object; it has at least one prompted frame.
        frame: Index of the frame.
        frames: Number of frames; of a live stream any number from `config.pointers` on.
        backwards: Whether the object is followed towards the first frame.
    """
    chosen = closest(tracked.prompted, frame, options.max_cond_frames_in_attn)
    rest = {time: seen for time, seen in tracked.prompted.items() if time not in chosen}

    def passed(time: int) -> Remembered | None:
        return tracked.followed.get(time) or rest.get(time)

    memories = [(0, seen) for seen in chosen.values()]
    for place in range(1, config.memories):
        time = _memory_time(frame, config.memories - place, options.memory_temporal_stride_for_eval, backwards)
        if (seen := passed(time)) is not None:
            memories.append((place, seen))

    step = -1 if backwards else 1
    most = min(frames, config.pointers)
    pointers: list[tuple[int, Floats]] = []
    for time, seen in chosen.items():
        behind = (frame - time) * step
        if behind >= 0 or not config.past_pointers_only:
            pointers.append((behind if config.signed_distances else abs(behind), seen.pointer))
    for distance in range(1, most):
        time = frame - step * distance
        if not 0 <= time < frames:
            break
        if (seen := passed(time)) is not None:
            pointers.append((distance, seen.pointer))
    channels = len(config.no_object_pointer)
    return Recalled(
        memories=from_bf16(np.stack([_memory(seen) for _, seen in memories])),
        places=np.array([config.memories - place - 1 for place, _ in memories]),
        pointers=np.array([pointer for _, pointer in pointers], np.float32).reshape(-1, channels),
        distances=np.array([distance for distance, _ in pointers], np.float32) / np.float32(max(most - 1, 1)),
    )


def closest(prompted: Mapping[int, Remembered], frame: int, most: int) -> Mapping[int, Remembered]:
    """Returns the prompted frames that a frame attends to (`sam2_utils.select_closest_cond_frames`).

    Args:
        prompted: What is remembered of prompted frames, by frame.
        frame: The frame that attends.
        most: How many it attends to, at least 2; -1 for all.
    """
    if most == -1 or len(prompted) <= most:
        return prompted
    before = [time for time in prompted if time < frame]
    after = [time for time in prompted if time >= frame]
    times = ([max(before)] if before else []) + ([min(after)] if after else [])
    others = sorted((time for time in prompted if time not in times), key=lambda time: abs(time - frame))
    return {time: prompted[time] for time in [*times, *others[: most - len(times)]]}


def _memory_time(frame: int, back: int, stride: int, backwards: bool) -> int:
    """Returns the frame of the memory that is `back` frames behind: the last one, then every `stride`-th."""
    if backwards:
        return frame + 1 if back == 1 else -(-(frame + 2) // stride) * stride + (back - 2) * stride
    return frame - 1 if back == 1 else (frame - 2) // stride * stride - (back - 2) * stride


def _memory(seen: Remembered) -> NDArray[np.uint16]:
    if seen.memory is None:
        raise RuntimeError("a frame is recalled whose memory was dropped or not computed yet")
    return seen.memory
