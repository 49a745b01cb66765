"""The demo model's weights at another size: at 128 px it encodes an image within hundredths of a second."""

from importlib import resources
from pathlib import Path

from maskwire_core.config import EncoderSettings
from maskwire_encoder.checkpoints import loading
from omegaconf import OmegaConf
from sam2.build_sam import build_sam2  # noqa: F401 - importing it registers the package's configurations

from testing.reference.predictor import TINY

SIZE = 128
"""Side of its square input in pixels."""


def options(folder: Path, size: int = SIZE) -> dict[str, str]:
    """Returns an encoder's settings for the model, and writes the model's configuration into a folder.

    Args:
        folder: Where the configuration is written.
        size: Side of the model's square input in pixels.
    """
    from hydra import compose

    config = compose(config_name=TINY)
    changes = {**loading._DEMO_CHANGES, "image_size": size}
    for part in ("self_attention", "cross_attention"):
        changes[f"memory_attention.layer.{part}.feat_sizes"] = [size // 16] * 2
    for key, value in changes.items():
        OmegaConf.update(config, f"model.{key}", value, force_add=True)
    path = folder / "small.yaml"
    OmegaConf.save(config, path)
    weights = resources.files("maskwire_encoder") / "weights" / "demo.safetensors"
    return {"model": "small", "config": str(path), "checkpoint": str(weights), "device": "cpu", "backend": "torch"}


def settings(folder: Path, **more: object) -> EncoderSettings:
    """Returns the same as EncoderSettings, with more of their fields."""
    return EncoderSettings(**options(folder), cache=folder, **more)  # type: ignore[arg-type]
