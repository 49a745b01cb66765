"""What one call of GenerateMasks may cost."""

from dataclasses import dataclass

from maskwire_core.config import DecoderSettings


@dataclass(frozen=True)
class GenerationLimits:
    """What one call may ask for, and find."""

    crops: int  # parts of the image, beside the whole
    points: int  # clicks in the image and all of its crops
    batch: int  # clicks between two responses
    masks: int  # masks that pass the filters for single masks
    nbytes: int  # memory of these masks; all calls together may have twice as much

    @classmethod
    def of(cls, settings: DecoderSettings) -> "GenerationLimits":
        """Returns the limits that settings give."""
        return cls(
            settings.max_crops,
            settings.max_clicks,
            settings.max_clicks_per_batch,
            settings.max_generated_masks,
            settings.generated_mask_bytes // 2,
        )
