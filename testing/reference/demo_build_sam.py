"""sam2.build_sam for scripts that build the demo model."""

from typing import Any

from testing.reference.predictor import build_demo


def build_sam2(config_file: str, ckpt_path: str, device: str) -> Any:
    """Builds the demo model in sam2, as `build_sam2` builds the model of a checkpoint."""
    return build_demo()
