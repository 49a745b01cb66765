"""Finding a SAM 2 model's configuration and weights, building it, and telling it from all others."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from hydra.utils import instantiate
from maskwire_core.bundle import MaskDefaults
from maskwire_core.config import EncoderSettings
from maskwire_core.models import DEMO, PUBLISHED, ModelError, added, canonical, verify
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from sam2 import build_sam  # noqa: F401 - importing it registers the package's configurations with hydra

DEMO_NOTE = "demonstration model: small, trained briefly, rough masks; use a published SAM 2 checkpoint for real work"

_DEMO_CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
_DEMO_CHANGES: dict[str, Any] = {
    "image_size": 512,
    "image_encoder.trunk.embed_dim": 48,
    "image_encoder.trunk.stages": [1, 2, 3, 1],
    "image_encoder.trunk.global_att_blocks": [5],
    "image_encoder.neck.backbone_channel_list": [384, 192, 96, 48],
    "memory_attention.layer.self_attention.feat_sizes": [32, 32],
    "memory_attention.layer.cross_attention.feat_sizes": [32, 32],
}
# Its predicted IoUs and stability scores are low: with sam2's thresholds, everything mode would keep next to nothing.
_DEMO_EVERYTHING = MaskDefaults(pred_iou_thresh=0.35, stability_score_thresh=0.4)
# What build_sam2 sets by default (apply_postprocessing=True).
_POSTPROCESSING: dict[str, Any] = {
    "sam_mask_decoder_extra_args.dynamic_multimask_via_stability": True,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_delta": 0.05,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh": 0.98,
}
# The parts that see a single image; the others follow objects through videos.
_IMAGE_PARTS = ("image_encoder.", "sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        name: Name under which it is served.
        config: A YAML file, or the name of a configuration in the sam2 package.
        checkpoint: A .pt or .safetensors file.
        note: What users should know about it.
        changes: What is set differently from the configuration, by dotted path in its model section.
        everything: Parameters of everything mode that requests leave unsaid.
    """

    name: str
    config: str
    checkpoint: Path
    note: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    everything: MaskDefaults = field(default_factory=MaskDefaults)


def find(settings: EncoderSettings) -> list[ModelSource]:
    """The models that the settings name, the default one first.

    Raises:
        ModelError: A name is unknown, a file is not there, or its digest is wrong.
    """
    if settings.config is not None and settings.checkpoint is None:
        raise ModelError("--config needs --checkpoint, the weights that belong to it")
    if settings.checkpoint is not None and len(settings.model) > 1:
        raise ModelError("--checkpoint belongs to a single --model; make others known with 'maskwire models add'")
    return [_find(name, settings) for name in dict.fromkeys(map(canonical, settings.model))]


def _find(name: str, settings: EncoderSettings) -> ModelSource:
    folder, checkpoint = settings.models.expanduser(), settings.checkpoint
    if settings.config is not None and checkpoint is not None:
        return ModelSource(name, settings.config, _existing(checkpoint))
    if name == DEMO:
        weights = checkpoint or Path(str(resources.files(__package__) / "weights" / "demo.safetensors"))
        return ModelSource(DEMO, _DEMO_CONFIG, _existing(weights), DEMO_NOTE, _DEMO_CHANGES, _DEMO_EVERYTHING)
    if (published := PUBLISHED.get(name)) is not None:
        if checkpoint is None:
            checkpoint = folder / f"{name}.pt"
            verify(checkpoint, published)
        return ModelSource(name, published.config, _existing(checkpoint))
    if (own := added(folder, name)) is not None and checkpoint is None:
        verify(Path(own.checkpoint), own)
        return ModelSource(name, own.config, Path(own.checkpoint))
    known = ", ".join((DEMO, *PUBLISHED))
    raise ModelError(
        f"unknown model {name!r}: it is none of {known}, and was not added with 'maskwire models add'; for a model of "
        "your own give --config and --checkpoint"
    )


def _existing(checkpoint: Path) -> Path:
    if not checkpoint.is_file():
        raise ModelError(f"no checkpoint at {checkpoint}: put the file there or name it with --checkpoint")
    return checkpoint


def build(source: ModelSource) -> tuple[Any, str]:
    """Builds a model with its weights.

    Returns:
        A `sam2.modeling.sam2_base.SAM2Base` in eval mode, fp32, on the CPU; and its fingerprint.

    Raises:
        ModelError: A file cannot be read, or weights and configuration do not belong together.
    """
    config = configuration(source)
    try:
        model = instantiate(config, _recursive_=True)
    except Exception as error:  # hydra wraps whatever a configuration's constructors raise
        raise ModelError(f"{source.config} does not describe a SAM 2 model: {error}") from error
    weights, wanted = _weights(source.checkpoint), model.state_dict()
    wrong = {
        "missing": [name for name in wanted if name.startswith(_IMAGE_PARTS) and name not in weights],
        "unexpected": [name for name in weights if name not in wanted],
        "of another shape": [name for name in weights if name in wanted and weights[name].shape != wanted[name].shape],
    }
    if any(wrong.values()):
        told = "; ".join(f"{len(names)} {kind}, such as {names[0]}" for kind, names in wrong.items() if names)
        raise ModelError(
            f"{source.checkpoint} does not fit {source.config} (weights {told}); choose this checkpoint's configuration"
        )
    model.load_state_dict(weights, strict=False)
    return model.eval().requires_grad_(False), _fingerprint(model, config)


def configuration(source: ModelSource) -> DictConfig:
    """The resolved model section of a source's configuration, with its changes.

    Raises:
        ModelError: There is no such configuration.
    """
    try:
        loaded = OmegaConf.load(source.config) if Path(source.config).is_file() else compose(config_name=source.config)
    except Exception as error:  # hydra's and YAML's errors share no base class
        raise ModelError(f"no model configuration {source.config!r}: give a YAML file or one of sam2's") from error
    config = loaded.get("model") if isinstance(loaded, DictConfig) else None
    if not isinstance(config, DictConfig):
        raise ModelError(f"{source.config} has no 'model' section")
    for key, value in {**_POSTPROCESSING, **source.changes}.items():
        OmegaConf.update(config, key, value, force_add=True)
    OmegaConf.resolve(config)
    return config


def _weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        weights: dict[str, torch.Tensor] = loaded.get("model", loaded)
        return weights
    except Exception as error:  # torch and safetensors raise many kinds for damaged files
        raise ModelError(f"{path} is not a readable checkpoint (.pt or .safetensors): {error}") from error


def _fingerprint(model: Any, config: DictConfig) -> str:
    digest = hashlib.sha256(OmegaConf.to_yaml(config, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(_IMAGE_PARTS):
            digest.update(f"\0{name}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
