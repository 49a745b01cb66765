"""sam2's own predictor, whose masks Maskwire's must equal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.build_sam import build_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.utils.transforms import SAM2Transforms as SAM2Transforms  # for tests of preprocessing

TINY = "configs/sam2.1/sam2.1_hiera_t.yaml"
_DEMO = [
    "model.image_encoder.trunk.embed_dim=48",
    "model.image_encoder.trunk.stages=[1,2,3,1]",
    "model.image_encoder.trunk.global_att_blocks=[5]",
    "model.image_encoder.neck.backbone_channel_list=[384,192,96,48]",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.8",  # instead of postprocessing's 0.98
]


def _demo(size: int) -> list[str]:
    """The demo model's differences from `TINY`, with an input of `size` x `size` pixels."""
    sizes = [
        f"model.memory_attention.layer.{part}_attention.feat_sizes=[{size // 16},{size // 16}]"
        for part in ("self", "cross")
    ]
    return [f"model.image_size={size}", *sizes, *_DEMO]


def build_random(config: str, seed: int = 0, changes: Sequence[str] = ()) -> Any:
    """Builds a SAM 2 model with seeded random weights.

    Biases and norms are random too, so that code which forgets one of them fails. The decoder's weights are larger than
    its initialisation makes them, so that masks depend on prompts as strongly as those of a trained model.

    Args:
        config: Name of a configuration of sam2, such as TINY.
        seed: Seed of torch's random numbers.
        changes: Hydra overrides, such as "model.image_size=512".
    """
    torch.manual_seed(seed)
    model = build_sam2(config, None, device="cpu", hydra_overrides_extra=list(changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.05)
            elif name.startswith("sam_mask_decoder"):
                parameter.mul_(2.5)
    return model


def build_tiny(seed: int = 0) -> Any:
    """Builds sam2.1_hiera_tiny with random weights."""
    return build_random(TINY, seed)


def build_demo(size: int = 512) -> Any:
    """Builds the demo model in sam2, with the weights that the encoder's package has.

    Args:
        size: Side of its square input in pixels.
    """
    import maskwire_encoder

    model = build_sam2(TINY, None, device="cpu", hydra_overrides_extra=_demo(size), apply_postprocessing=False)
    weights = load_file(Path(maskwire_encoder.__file__).parent / "weights" / "demo.safetensors")
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert not [name for name in missing if name.startswith(("image_encoder", "sam_"))]
    return model


def everything(model: Any, rgb: NDArray[np.uint8], **arguments: Any) -> list[dict[str, Any]]:
    """Returns what SAM2AutomaticMaskGenerator finds.

    Args:
        model: A model of sam2.
        rgb: HxWx3 uint8.
        arguments: As SAM2AutomaticMaskGenerator takes them.
    """
    generator = SAM2AutomaticMaskGenerator(model, **arguments)
    generator.predictor._bb_feat_sizes = feature_sizes(model)
    return cast(list[dict[str, Any]], generator.generate(rgb))


def feature_sizes(model: Any) -> list[tuple[int, int]]:
    """Returns the sizes of the feature maps for the model's image size; sam2 has those of 1024 px as constants."""
    side = model.image_size // 4
    return [(side, side), (side // 2, side // 2), (side // 4, side // 4)]


class Reference:
    """SAM2ImagePredictor with its image set.

    Args:
        model: A model of sam2.
        rgb: The image, HxWx3 uint8.
    """

    def __init__(self, model: Any, rgb: NDArray[np.uint8]) -> None:
        self.predictor = SAM2ImagePredictor(model)
        self.predictor._bb_feat_sizes = feature_sizes(model)
        self.predictor.set_image(rgb)

    def predict(self, prompt: Mapping[str, Any], multimask: bool) -> "Answer":
        """Predicts the masks of one prompt.

        Args:
            prompt: Any of `points` (Nx2, pixels), `labels` (N), `box` (x0, y0, x1, y1) and `mask` (SxS logits). An
                empty prompt becomes one padding point, as in SAM2Base._forward_sam_heads and as in SAM 2's training.
            multimask: Whether to return three candidates instead of one mask.
        """
        points, labels = prompt.get("points"), prompt.get("labels")
        if not any(prompt.get(kind) is not None for kind in ("points", "box", "mask")):
            points, labels = [(0, 0)], [-1]
        mask = prompt.get("mask")
        full, scores, logits = self.predictor.predict(
            point_coords=None if points is None else np.array(points, np.float32),
            point_labels=None if points is None else np.array(labels, np.int32),
            box=None if prompt.get("box") is None else np.array(prompt["box"], np.float32),
            mask_input=None if mask is None else mask[None],
            multimask_output=multimask,
            return_logits=True,
        )
        return Answer(full > 0, np.abs(full) < 1e-3, scores, logits)


@dataclass
class Answer:
    """What the reference predicts for one prompt, as C candidates.

    Attributes:
        masks: CxHxW bool.
        unsure: CxHxW bool: pixels whose logit is within 1e-3 of the threshold.
        scores: C predicted IoUs.
        logits: CxSxS low-resolution logits.
    """

    masks: NDArray[np.bool_]
    unsure: NDArray[np.bool_]
    scores: NDArray[np.float32]
    logits: NDArray[np.float32]


def over_white(path: Path) -> NDArray[np.uint8]:
    """Reads an image as HxWx3 uint8, composited over white in float64, independently of Maskwire's reader."""
    image = Image.open(path)
    if image.mode != "RGBA":
        return np.array(image.convert("RGB"))
    pixels = np.array(image).astype(np.float64)
    alpha = pixels[..., 3:] / 255
    return np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def random_prompt(random: np.random.Generator, kind: str, width: int, height: int) -> dict[str, Any]:
    """Draws a random prompt, as `Reference.predict` takes it.

    Args:
        random: Source of random numbers.
        kind: "points" (one to six), "box", "both" or "none".
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """
    prompt: dict[str, Any] = {}
    if kind in ("points", "both"):
        count = int(random.integers(1, 7))
        prompt["points"] = random.uniform((0, 0), (width, height), (count, 2)).astype(np.float32).tolist()
        prompt["labels"] = random.integers(0, 2, count).tolist()
    if kind in ("box", "both"):
        x, y = np.sort(random.uniform(0, width, 2)), np.sort(random.uniform(0, height, 2))
        prompt["box"] = [float(np.float32(value)) for value in (x[0], y[0], x[1], y[1])]
    return prompt
