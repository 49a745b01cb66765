"""sam2's own predictor, the reference that Maskwire's masks must equal."""

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
    "model.image_size=512",
    "model.image_encoder.trunk.embed_dim=48",
    "model.image_encoder.trunk.stages=[1,2,3,1]",
    "model.image_encoder.trunk.global_att_blocks=[5]",
    "model.image_encoder.neck.backbone_channel_list=[384,192,96,48]",
    "model.memory_attention.layer.self_attention.feat_sizes=[32,32]",
    "model.memory_attention.layer.cross_attention.feat_sizes=[32,32]",
]


def build_random(config: str, seed: int = 0, changes: Sequence[str] = ()) -> Any:
    """A SAM 2 model with seeded random weights.

    Biases and norms are random too, so that none of them can be forgotten, and the decoder's weights are larger than
    its initialisation makes them, so that masks depend on prompts as strongly as a trained model's do.
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
    return build_random(TINY, seed)


def build_demo() -> Any:
    import maskwire_encoder

    model = build_sam2(TINY, None, device="cpu", hydra_overrides_extra=_DEMO)
    weights = load_file(Path(maskwire_encoder.__file__).parent / "weights" / "demo.safetensors")
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert not [name for name in missing if name.startswith(("image_encoder", "sam_"))]
    return model


def everything(model: Any, rgb: NDArray[np.uint8], **arguments: Any) -> list[dict[str, Any]]:
    """What SAM2AutomaticMaskGenerator finds."""
    generator = SAM2AutomaticMaskGenerator(model, **arguments)
    generator.predictor._bb_feat_sizes = _feature_sizes(model)
    return cast(list[dict[str, Any]], generator.generate(rgb))


def _feature_sizes(model: Any) -> list[tuple[int, int]]:
    """Those of a model of any image size; sam2 has written down those of 1024."""
    side = model.image_size // 4
    return [(side, side), (side // 2, side // 2), (side // 4, side // 4)]


class Reference:
    """SAM2ImagePredictor on one image."""

    def __init__(self, model: Any, rgb: NDArray[np.uint8]) -> None:
        self.predictor = SAM2ImagePredictor(model)
        self.predictor._bb_feat_sizes = _feature_sizes(model)
        self.predictor.set_image(rgb)

    def predict(self, prompt: Mapping[str, Any], multimask: bool) -> "Answer":
        """Answers one prompt with points, labels, box, mask.

        No prompt at all is one padding point, as SAM2Base._forward_sam_heads has it and as SAM 2 was trained.
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
    """What the reference gives.

    Attributes:
        masks: CxHxW bool.
        unsure: CxHxW bool: pixels whose logit is within 1e-3 of the threshold.
        scores: C.
        logits: CxSxS low-resolution logits.
    """

    masks: NDArray[np.bool_]
    unsure: NDArray[np.bool_]
    scores: NDArray[np.float32]
    logits: NDArray[np.float32]


def over_white(path: Path) -> NDArray[np.uint8]:
    """The pixels that Maskwire's rule for transparency gives, by plain arithmetic."""
    image = Image.open(path)
    if image.mode != "RGBA":
        return np.array(image.convert("RGB"))
    pixels = np.array(image).astype(np.float64)
    alpha = pixels[..., 3:] / 255
    return np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def random_prompt(random: np.random.Generator, kind: str, width: int, height: int) -> dict[str, Any]:
    """A prompt of a kind: "points", "box", "both" or "none"."""
    prompt: dict[str, Any] = {}
    if kind in ("points", "both"):
        count = int(random.integers(1, 7))
        prompt["points"] = random.uniform((0, 0), (width, height), (count, 2)).astype(np.float32).tolist()
        prompt["labels"] = random.integers(0, 2, count).tolist()
    if kind in ("box", "both"):
        x, y = np.sort(random.uniform(0, width, 2)), np.sort(random.uniform(0, height, 2))
        prompt["box"] = [float(np.float32(value)) for value in (x[0], y[0], x[1], y[1])]
    return prompt
