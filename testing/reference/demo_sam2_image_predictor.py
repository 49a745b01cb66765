"""sam2's SAM2ImagePredictor for scripts that use it with the demo model."""

from typing import Any

from sam2 import sam2_image_predictor

from testing.reference.predictor import feature_sizes


class SAM2ImagePredictor(sam2_image_predictor.SAM2ImagePredictor):  # type: ignore[misc]
    """sam2's own, with the sizes of the model's feature maps; sam2 has those of 1024 px as constants."""

    def __init__(self, sam_model: Any, **arguments: Any) -> None:
        super().__init__(sam_model, **arguments)
        self._bb_feat_sizes = feature_sizes(sam_model)
