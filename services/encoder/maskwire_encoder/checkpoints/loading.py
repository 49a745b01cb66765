"""Finds the configuration and weights of a SAM 2 model, builds the model, and identifies it by a fingerprint."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from maskwire.model_names import canonical
from maskwire.suggest import no_such
from maskwire_core.config import EncoderSettings
from maskwire_core.models import registry
from maskwire_core.models.decoder_bundle import MaskDefaults
from maskwire_core.models.registry import ModelError
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from maskwire_encoder.checkpoints import model_config, state_dicts

log = logging.getLogger(__name__)

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
    # Its logits are soft: by sam2's 0.98 nearly every single mask would give way to the best of three, of which none is
    # trained for corrections.
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh": 0.8,
}
# The demo model's predicted IoUs and stability scores are low: few masks would pass sam2's thresholds.
_DEMO_EVERYTHING = MaskDefaults(pred_iou_thresh=0.35, stability_score_thresh=0.4)
# Set by sam2.build_sam.build_sam2 with its default apply_postprocessing=True.
_POSTPROCESSING: dict[str, Any] = {
    "sam_mask_decoder_extra_args.dynamic_multimask_via_stability": True,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_delta": 0.05,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh": 0.98,
}
_DEMO_WEIGHTS = Path(str(resources.files("maskwire_encoder") / "weights" / "demo.safetensors"))
_MOST_NAMED = 5  # tensors named in an error message
# The parts of a model that single images need; the others track objects in videos.
_IMAGE_PARTS = ("image_encoder.", "sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from."""

    name: str  # name under which it is served
    config: str  # path to a YAML file, or the name of a configuration in the sam2 package
    checkpoint: Path  # path to a .pt or .safetensors file
    note: str = ""  # a remark for users of the model
    changes: Mapping[str, Any] = field(default_factory=dict)  # override the configuration, by path in its model section
    everything: MaskDefaults = field(default_factory=MaskDefaults)  # parameters of automatic mask generation


class Built(NamedTuple):
    """A model with its weights."""

    model: Any  # a `sam2.modeling.sam2_base.SAM2Base` in eval mode, fp32, on the CPU
    fingerprint: str  # digest of what single images need; it does not depend on how the weights were wrapped
    has_memory: bool  # whether the weights have all that follows objects through videos, too


def find(settings: EncoderSettings) -> list[ModelSource]:
    """Finds the models that the settings name, the default one first.

    Raises:
        ModelError: A name is unknown, a file is missing, or its digest is wrong.
    """
    if settings.config is not None and settings.checkpoint is None:
        raise ModelError("--config needs --checkpoint, the weights that belong to it")
    if settings.checkpoint is not None and len(settings.model) > 1:
        raise ModelError("--checkpoint belongs to a single --model; make others known with 'maskwire models add'")
    return [_find(name, settings) for name in dict.fromkeys(map(canonical, settings.model))]


def _find(name: str, settings: EncoderSettings) -> ModelSource:
    folder, checkpoint = settings.models.expanduser(), settings.checkpoint
    if checkpoint is not None:
        registry.check_file(checkpoint)
        if settings.config is not None:
            return ModelSource(name, settings.config, checkpoint)
    if name == registry.DEMO:
        return _demo(checkpoint or _DEMO_WEIGHTS)
    if (known := registry.PUBLISHED.get(name) or registry.added(folder, name)) is not None:
        if checkpoint is None:
            checkpoint = registry.checkpoint_path(known, folder)
            registry.verify(checkpoint, known)
        return ModelSource(name, known.config, checkpoint)
    names = (registry.DEMO, *registry.PUBLISHED, *(model.name for model in registry.all_added(folder)))
    raise ModelError(
        f"{no_such('model', name, names)} (known are {', '.join(names)}; for a model of "
        "your own give --config and --checkpoint, or make it known with 'maskwire models add')"
    )


def _demo(weights: Path) -> ModelSource:
    return ModelSource(registry.DEMO, _DEMO_CONFIG, weights, DEMO_NOTE, _DEMO_CHANGES, _DEMO_EVERYTHING)


def build(source: ModelSource, notify: Callable[[str], None] = log.warning) -> Built:
    """Builds a model with its weights.

    Args:
        source: The model's configuration and weights.
        notify: Called with a sentence if the checkpoint had to be unwrapped, as those of trainers must.

    Raises:
        ModelError: A file cannot be read, the weights do not fit the configuration, or weights are NaN or infinite.
    """
    config = configuration(source)
    model = model_config.build(config, source.config)
    wanted = model.state_dict()
    found, told = state_dicts.read(source.checkpoint, wanted)
    if misfit := _misfit(found, wanted):
        taken = f" ({told})" if told else ""
        raise ModelError(
            f"{source.checkpoint}{taken} does not fit {source.config}: {misfit}; {_fitting(found, source)}"
        )
    weights = {name: tensor.to(wanted[name].dtype) for name, tensor in found.items()}
    if broken := _not_finite(weights):
        raise ModelError(
            f"{source.checkpoint} has weights that are NaN or infinite, as after a training that diverged: {broken}; "
            "take an earlier checkpoint"
        )
    if told:
        notify(f"{source.checkpoint}: {told}")
    model.load_state_dict(weights, strict=False)
    return Built(model.eval().requires_grad_(False), _fingerprint(model, config), weights.keys() >= wanted.keys())


def configuration(source: ModelSource) -> DictConfig:
    """Loads the model section of a source's configuration, resolved and with the source's changes.

    Raises:
        ModelError: There is no such configuration.
    """
    return model_config.load(source.config, {**_POSTPROCESSING, **source.changes})


def _misfit(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Describes how weights differ from those of a model; empty if they fit. Video parts may be missing."""
    wrong = {
        "missing": [name for name in wanted if name.startswith(_IMAGE_PARTS) and name not in weights],
        "unexpected": [name for name in weights if name not in wanted],
        "of another shape": [
            f"{name} ({_shape(weights[name])} instead of {_shape(wanted[name])})"
            for name in weights
            if name in wanted and weights[name].shape != wanted[name].shape
        ],
        "quantised": [
            f"{name} ({weights[name].dtype})"
            for name in weights
            if name in wanted and not weights[name].is_floating_point()
        ],
    }
    return "; ".join(
        f"{len(names)} tensor{'s' if len(names) > 1 else ''} {kind}, such as {names[0]}"
        for kind, names in wrong.items()
        if names
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single value"


def _fitting(weights: Mapping[str, Tensor], source: ModelSource) -> str:
    """Advice that names the known models whose configurations fit the weights."""
    sources = [_demo(_DEMO_WEIGHTS)]
    sources += [
        ModelSource(published.name, published.config, source.checkpoint) for published in registry.PUBLISHED.values()
    ]
    width = weights.get("image_encoder.trunk.patch_embed.proj.bias")
    fitting = []
    for known in sources:
        config = configuration(known)
        if width is None or len(width) != config.image_encoder.trunk.embed_dim:
            continue  # building a model takes seconds
        if not _misfit(weights, model_config.build(config, known.config).state_dict()):
            fitting.append(known)
    if not fitting:
        return "choose the configuration that this checkpoint was trained with"
    told = [known.name if known.name == registry.DEMO else f"{known.name} ({known.config})" for known in fitting]
    return f"these tensors fit {' and '.join(told)}"


def _not_finite(weights: Mapping[str, Tensor]) -> str:
    """Names the tensors with NaN or infinity, and counts these values; empty if all are finite."""
    bad = {name: int((~tensor.isfinite()).sum()) for name, tensor in weights.items()}
    told = [f"{name} ({count} of {weights[name].numel()} values)" for name, count in bad.items() if count]
    more = f" and {len(told) - _MOST_NAMED} more tensors" if len(told) > _MOST_NAMED else ""
    return ", ".join(told[:_MOST_NAMED]) + more


def _fingerprint(model: Any, config: DictConfig) -> str:
    digest = hashlib.sha256(OmegaConf.to_yaml(config, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(_IMAGE_PARTS):
            digest.update(f"\0{name}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
