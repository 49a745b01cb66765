"""A small tracker's configuration, for logic without a model."""

from maskwire_core.models.decoder_bundle import DecoderConfig
from maskwire_core.models.tracker_bundle import TrackerConfig


def small_config(image_size: int, mask_size: int) -> TrackerConfig:
    """Returns the configuration of a model of SAM 2.1's kind whose memories have one channel.

    Args:
        image_size: Side of its pictures in px.
        mask_size: Side of its masks in px.
    """
    return TrackerConfig(
        decoder=DecoderConfig("small", "", image_size, mask_size, True, 0.05, 0.98),
        memories=7,
        memory_channels=1,
        pointers=16,
        signed_distances=True,
        past_pointers_only=True,
        candidates_when_prompted=True,
        candidates_when_tracking=True,
        fewest_points_of_candidates=0,
        most_points_of_candidates=1,
        pointer_of_candidate=True,
        no_object_pointer=(0.0,),
    )
