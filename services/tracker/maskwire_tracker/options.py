"""How a track is followed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrackOptions:
    """Parameters of `SAM2VideoPredictor`, by their names there, with the values of `build_sam2_video_predictor` unless
    said otherwise."""

    fill_hole_area: int = 8
    """Holes of up to so many pixels of a low-resolution mask are filled; 0 for none. sam2 does that with CUDA only."""
    non_overlap_masks: bool = False
    """Whether a pixel that several objects claim goes to the one with the highest logit, in masks that are returned."""
    add_all_frames_to_correct_as_cond: bool = True
    """Whether corrections of followed frames condition other frames. sam2's default is False: there, following again
    overwrites corrections."""
    clear_non_cond_mem_around_input: bool = False
    """Whether a prompt makes the object forget the followed frames around it, which may contradict it. In sam2 1.1.0
    this raises AttributeError; its frames are those that `_clear_non_cond_mem_around_input` names."""
    memory_temporal_stride_for_eval: int = 1
    """Memories are taken from the last frame, and before it from every so many-th."""
    max_cond_frames_in_attn: int = -1
    """Prompted frames that a frame attends to: the closest ones; at least 2, or -1 for all."""

    def __post_init__(self) -> None:
        if self.fill_hole_area < 0:
            raise ValueError(f"fill_hole_area is {self.fill_hole_area}: give 0 for none, or a number of pixels")
        if self.memory_temporal_stride_for_eval < 1:
            raise ValueError(f"memory_temporal_stride_for_eval is {self.memory_temporal_stride_for_eval}: at least 1")
        if self.max_cond_frames_in_attn != -1 and self.max_cond_frames_in_attn < 2:
            raise ValueError(f"max_cond_frames_in_attn is {self.max_cond_frames_in_attn}: at least 2, or -1 for all")
