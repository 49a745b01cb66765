"""sam2.build_sam without weights or torch: where a script builds a model, it names one that the servers have."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from maskwire.errors import InvalidRequest


@dataclass(frozen=True)
class ServedModel:
    """A model of the servers, in place of the torch module that sam2 would build.

    Attributes:
        name: Its name, as the encoder takes it; empty for the encoder's default model.
    """

    name: str = ""


def build_sam2(
    config_file: str,
    ckpt_path: str | None = None,
    device: Any = "cuda",
    mode: str = "eval",
    hydra_overrides_extra: Any = (),
    apply_postprocessing: bool = True,
) -> ServedModel:
    """Names the model of a checkpoint. Nothing is read or loaded; whether it is served shows when an image is set.

    Args:
        config_file: Configuration, which names the model if there is no checkpoint: configs/sam2.1/sam2.1_hiera_l.yaml.
        ckpt_path: Checkpoint, whose file name without its ending is the model's name: sam2.1_hiera_large.pt.
        device: No effect: the server has chosen its device.
        mode: No effect: models that answer requests are in "eval".
        hydra_overrides_extra: Must be empty, since the server has configured its model.
        apply_postprocessing: Only True is accepted: a single mask that is unstable gives way to the best of three.

    Raises:
        InvalidRequest: NOT_SERVED: the script asks for another model than the server has.
    """
    if list(hydra_overrides_extra):
        raise InvalidRequest(
            "the server has configured its model; add one with this configuration there ('maskwire models add')",
            "NOT_SERVED",
            "hydra_overrides_extra",
        )
    if not apply_postprocessing:
        raise InvalidRequest(
            "the server's models give way to the best of three masks where the single one is unstable, which is sam2's "
            "default; leave apply_postprocessing out",
            "NOT_SERVED",
            "apply_postprocessing",
        )
    return ServedModel(PurePath(ckpt_path or config_file).name.removesuffix(".pt").removesuffix(".yaml"))


def build_sam2_hf(
    model_id: str,
    device: Any = "cuda",
    mode: str = "eval",
    hydra_overrides_extra: Any = (),
    apply_postprocessing: bool = True,
) -> ServedModel:
    """Names the model of a Hugging Face repository. Nothing is downloaded.

    Args:
        model_id: Name of the repository, such as facebook/sam2.1-hiera-large.
        device: See `build_sam2`.
        mode: See `build_sam2`.
        hydra_overrides_extra: See `build_sam2`.
        apply_postprocessing: See `build_sam2`.

    Raises:
        InvalidRequest: See `build_sam2`.
    """
    build_sam2(model_id, None, device, mode, hydra_overrides_extra, apply_postprocessing)
    return ServedModel(model_id)
