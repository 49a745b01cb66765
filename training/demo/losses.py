"""Losses of mask logits, all on S/4 masks given as the covered share of each pixel."""

import torch
from torch import Tensor
from torch.nn import functional as F

INSIDE = 0.62
"""Weight of the focal loss inside a target, beside 1 - INSIDE outside.

A pixel is called inside where that is more likely than 1 - INSIDE. The best mean IoU, say I, is reached by calling
inside what is so with a probability of I / (1 + I) or more: 0.38 where I is 0.6, as with this model. SAM's training has
0.25, which asks for a probability of 0.75: a model that is seldom so sure then leaves out much of what it finds.
"""


def mask_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """20 focal (gamma 2, weighed by INSIDE) + dice, as in SAM's training but for INSIDE.

    Args:
        logits: NxCxP.
        target: NxP, 0 to 1.
        weight: NxP, of each pixel in the focal loss (default: 1 everywhere).

    Returns:
        Loss NxC; IoU of the masks NxC, without gradient.
    """
    target = target[:, None]
    inside = logits.sigmoid()
    entropy = F.softplus(logits) - logits * target
    wrong = target + inside * (1 - 2 * target)
    sides = 1 - INSIDE + (2 * INSIDE - 1) * target
    if weight is not None:
        sides = sides * weight[:, None]
    focal = (sides * wrong.square() * entropy).mean(-1)
    dice = 1 - (2 * (inside * target).sum(-1) + 1) / (inside.sum(-1) + target.sum(-1) + 1)
    with torch.no_grad():
        iou = overlap(logits > 0, target > 0.5)
    return 20 * focal + dice, iou


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """IoU along the last axis of bool masks."""
    both = (one & other).sum(-1).float()
    return both / (one.sum(-1) + other.sum(-1) - both).clamp(min=1)
