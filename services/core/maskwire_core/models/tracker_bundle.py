"""Exported trackers: what follows objects through frames. Encoders publish them, and trackers run them."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from maskwire_core.errors import CorruptValue
from maskwire_core.models.decoder_bundle import GRAPHS as DECODER_GRAPHS
from maskwire_core.models.decoder_bundle import DecoderConfig
from maskwire_core.models.graph_archive import GraphArchive, OnnxGraph

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
class TrackerBundle:
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

    config: TrackerConfig
    graphs: Mapping[str, OnnxGraph]
    weights: Mapping[str, NDArray[Any]]

    @cached_property
    def packed(self) -> bytes:
        """The bundle as an archive; see `GraphArchive.pack`."""
        return GraphArchive(asdict(self.config), self.graphs, self.weights).pack()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `packed`, in hex, under which the bundle is published."""
        return hashlib.sha256(self.packed).hexdigest()

    @classmethod
    def unpack(cls, packed: bytes, digest: str) -> "TrackerBundle":
        """The inverse of `packed`.

        Raises:
            CorruptValue: The bytes do not have this digest, or another version of Maskwire wrote them.
        """
        archive = GraphArchive.unpack(packed, digest, "an exported tracker")
        try:
            config = TrackerConfig.from_dict(archive.config)
        except (KeyError, TypeError) as error:
            raise CorruptValue(f"an exported tracker cannot be read: {error}") from error
        if missing := GRAPHS - set(archive.graphs):
            raise CorruptValue(f"an exported tracker lacks {', '.join(sorted(missing))}")
        return cls(config, archive.graphs, archive.weights)
