"""Whether embeddings give the masks that torch's fp32 embeddings give, on a picture made for it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AGREEMENT = 0.995
"""Mean IoU of masks from which on arithmetic counts as the model's."""

_GRID = 3
_BOXES = ((0.1, 0.1, 0.6, 0.6), (0.3, 0.2, 0.95, 0.8), (0.05, 0.05, 0.95, 0.95))


def picture(size: int) -> NDArray[np.uint8]:
    """Ellipses with soft edges over a gradient, and noise: SxSx3, the same every time."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    pixels = np.stack([40 + 120 * x, 60 + 120 * y, np.full_like(x, 90)], axis=2)
    for _ in range(8):
        centre, radii = random.uniform(0.1, 0.9, 2), random.uniform(0.04, 0.25, 2)
        distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
        inside = 1 / (1 + np.exp(np.clip(60 * (distance - 1), -50, 50)))[..., None]
        pixels = pixels * (1 - inside) + random.uniform(0, 255, 3) * inside
    pixels += random.normal(0, 4, pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8)


@torch.inference_mode()
def masks(sam: Any, tensors: Mapping[str, NDArray[np.float32]]) -> Tensor:
    """Masks for clicks on a grid and a few boxes, by sam2's own decoder.

    Args:
        sam: The model, in fp32.
        tensors: An embedding in the stored layout.

    Returns:
        Candidates of all prompts: Nx(S/4)x(S/4), bool.
    """
    decoder, encoder, size = sam.sam_mask_decoder, sam.sam_prompt_encoder, sam.image_size
    device = next(sam.parameters()).device
    embed, high_res_1, high_res_0 = (
        _feature_map(torch.from_numpy(tensors[name]).to(device), sam.sam_image_embedding_size)
        for name in ("image_embed", "high_res_1", "high_res_0")
    )
    places = [(index + 0.5) / _GRID for index in range(_GRID)]
    prompts = [([(x, y)], [1]) for x in places for y in places]
    prompts += [([box[:2], box[2:]], [2, 3]) for box in _BOXES]
    found = []
    for points, labels in prompts:
        sparse, dense = encoder(
            (torch.tensor([points], device=device) * size, torch.tensor([labels], dtype=torch.int32, device=device)),
            None,
            None,
        )
        logits, *_ = decoder.predict_masks(
            embed, encoder.get_dense_pe(), sparse, dense, False, [high_res_0, high_res_1]
        )
        found.append(logits[0, 1:] > 0)
    return torch.cat(found)


def agreement(expected: Tensor, found: Tensor) -> float:
    """Mean IoU of masks (NxHxW, bool); those that are empty twice agree."""
    both = (expected & found).sum((1, 2)).double()
    either = (expected | found).sum((1, 2)).double()
    return float(torch.where(either > 0, both / either, 1.0).mean())


def _feature_map(stored: Tensor, side: int) -> Tensor:
    """The inverse of `export.to_patches`, for one image: 1xCxHxW."""
    channels = stored.shape[-1]
    steps = (stored.numel() // (side * side * channels)).bit_length() // 2
    split = stored.reshape(side, side, *[2] * (2 * steps), channels)
    rows, columns = range(2, 2 + 2 * steps, 2), range(3, 3 + 2 * steps, 2)
    size = side << steps
    return split.permute(split.ndim - 1, 0, *rows, 1, *columns).reshape(1, channels, size, size)
