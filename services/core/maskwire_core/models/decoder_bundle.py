"""Exported mask decoders: encoders publish them, and decoders run them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from maskwire_core.models.graph_archive import Bundle

GRAPHS = {"image_fp32", "image_fp16", "mask", "click", "refine", "plain"}
BEST = 4
"""Value of a graph's input that chooses masks: the candidate with the highest predicted IoU. 0 chooses the single mask,
1 to 3 one of the three candidates."""
CANDIDATES = BEST - 1
"""How many candidates there are."""
MOST_FOLDED = 10
"""Points of a prompt above which the graph `plain`, which projects the image's tokens, costs less than `click` and
`refine`, which fold the projections into the prompt's tokens."""


@dataclass(frozen=True)
class MaskDefaults:
    """Defaults of automatic mask generation, with the names and values of sam2's SAM2AutomaticMaskGenerator."""

    pred_iou_thresh: float = 0.8  # masks with a predicted IoU up to this are dropped
    stability_score_thresh: float = 0.95  # masks with a stability score below this are dropped
    stability_score_offset: float = 1.0  # how far the mask threshold is raised and lowered for that score, in logits
    box_nms_thresh: float = 0.7  # IoU of boxes above which two masks of one crop count as duplicates
    crop_nms_thresh: float = 0.7  # the same for masks of different crops


@dataclass(frozen=True)
class DecoderConfig:
    """What a decoder must know about a model besides its graphs."""

    model: str  # name under which the encoder serves the model
    fingerprint: str  # digest of its weights and configuration
    image_size: int  # side of the model's square input in pixels
    mask_size: int  # side of its low-resolution masks in pixels
    dynamic_multimask: bool  # whether the best candidate replaces an unstable single mask
    stability_delta: float  # offset of the stability score, in logits
    stability_threshold: float  # stability score below which a single mask is unstable
    everything: MaskDefaults = field(default_factory=MaskDefaults)  # other models' scores differ from SAM 2's own

    @property
    def embedding_values(self) -> int:
        """Number of values in an embedding: of 256 channels at a sixteenth of the input's side, of 64 at an eighth and
        of 32 at a quarter."""
        return 4 * self.image_size**2

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> "DecoderConfig":
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**described, "everything": MaskDefaults(**described["everything"])})


@dataclass(frozen=True)
class DecoderBundle(Bundle[DecoderConfig]):
    """The graphs of one mask decoder, and the constants that they share.

    Attributes:
        config: Configuration.
        graphs: Graphs by name:
            image_fp32, image_fp16: from a stored embedding to what all prompts on it need.
            image_klt: likewise from one stored as klt; missing if the encoder stores none.
            mask: from that and a mask prompt to image tokens that include the mask.
            click: masks for a prompt of few points without a mask prompt.
            refine: masks for a prompt of few points on image tokens that may include a mask.
            plain: masks for any prompt.
        weights: The initializers of all graphs by name.
    """

    KIND = "an exported decoder"
    NEEDED = GRAPHS

    @staticmethod
    def read_config(described: Mapping[str, Any]) -> DecoderConfig:
        return DecoderConfig.from_dict(described)
