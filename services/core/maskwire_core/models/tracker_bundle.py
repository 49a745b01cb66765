"""Exported trackers: what follows objects through frames. Encoders publish them, and trackers run them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maskwire_core.models.decoder_bundle import GRAPHS as DECODER_GRAPHS
from maskwire_core.models.decoder_bundle import DecoderConfig
from maskwire_core.models.graph_archive import Bundle

GRAPHS = DECODER_GRAPHS | {"frame", "recall", "memorize", "given_mask"}


@dataclass(frozen=True)
class TrackerConfig:
    """What a tracker must know about a model besides its graphs. sam2's names stand in brackets."""

    decoder: DecoderConfig
    memories: int  # masks that a followed frame remembers, that of one prompted frame included (num_maskmem)
    memory_channels: int  # channels of a memory (mem_dim)
    pointers: int  # object pointers that a followed frame remembers at most (max_obj_ptrs_in_encoder)
    signed_distances: bool  # whether a pointer's distance tells past from future (use_signed_tpos_enc_to_obj_ptrs)
    past_pointers_only: bool  # of prompted frames (only_obj_ptrs_in_the_past_for_eval)
    candidates_when_prompted: bool  # whether a first prompt takes the best of three masks (multimask_output_in_sam)
    candidates_when_tracking: bool  # likewise of later prompts and followed frames (multimask_output_for_tracking)
    fewest_points_of_candidates: int  # number of points for which that holds (multimask_min_pt_num)
    most_points_of_candidates: int  # likewise (multimask_max_pt_num)
    pointer_of_candidate: bool  # whether the pointer is that of the chosen mask (use_multimask_token_for_obj_ptr)
    no_object_pointer: tuple[float, ...]  # pointer of an object that is not there (no_obj_ptr)

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> "TrackerConfig":
        """The inverse of `dataclasses.asdict`."""
        decoder, pointer = DecoderConfig.from_dict(described["decoder"]), tuple(described["no_object_pointer"])
        return cls(**{**described, "decoder": decoder, "no_object_pointer": pointer})


@dataclass(frozen=True)
class TrackerBundle(Bundle[TrackerConfig]):
    """The graphs of one tracker, and the constants that they share.

    Attributes:
        config: Configuration.
        graphs: Graphs by name, those of a `DecoderBundle` among them, which here also return object pointers:
            frame: from a frame's embedding to what all its objects share.
            recall: from that and an object's memories to image tokens.
            memorize: from a mask on a frame to a memory.
            given_mask: from a mask that is taken as it is to image tokens that give its pointer.
        weights: The initializers of all graphs by name.
    """

    KIND = "an exported tracker"
    NEEDED = GRAPHS

    @staticmethod
    def read_config(described: Mapping[str, Any]) -> TrackerConfig:
        return TrackerConfig.from_dict(described)
