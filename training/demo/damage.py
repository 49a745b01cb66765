"""Damaged targets: what is to be mended when corrections are trained without waiting for the model's own mistakes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.demo.order import order

_MARGIN = 0.4
"""Masks spill over into a margin around the object of this share of its box's sides."""


_FAINTEST = 2.5
"""Standard deviations of noise that half a percent of the area exceeds."""


def damaged(targets: Tensor, boxes: Tensor, pixels: Tensor) -> Tensor:
    """Logits of masks that miss parts of their targets and spill over into what is near.

    Parts are where smooth noise is beyond a threshold, drawn for each object: from none to half of it. Randomness is
    torch's global generator's.

    Args:
        targets: NxP, covered share of each S/4 pixel, in window order.
        boxes: Nx4, x1 y1 x2 y2 of the targets in pixels of the input.
        pixels: Px2, x and y of the S/4 pixels in pixels of the input, in window order.
    """
    number, device = len(targets), targets.device
    inside = targets > 0.5
    margin = _MARGIN * (boxes[:, 2:] - boxes[:, :2])
    low, high = (boxes[:, :2] - margin)[:, None], (boxes[:, 2:] + margin)[:, None]
    near = ((pixels >= low) & (pixels <= high)).all(2)
    missing, surplus = (_blobs(targets) > _FAINTEST * torch.rand(number, 1, device=device) for _ in range(2))
    mask = (inside & ~missing) | (near & ~inside & surplus)
    certain = 1 + 8 * torch.rand(number, 1, device=device)
    return torch.where(mask, certain, -certain) + 0.5 * torch.randn_like(targets)


def _blobs(targets: Tensor) -> Tensor:
    """Smooth noise of NxP, standard normal, in window order; as coarse for all objects as is drawn."""
    number, count = targets.shape
    side, cells = round(count**0.5), int(torch.randint(3, 13, ()))
    noise = torch.randn(number, 1, cells, cells, device=targets.device)
    smooth = F.interpolate(noise, (side, side), mode="bicubic")[:, 0, ..., None]
    blobs = order(smooth, 8).flatten(1)
    return blobs / blobs.std(1, keepdim=True)
