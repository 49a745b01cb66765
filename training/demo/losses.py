"""Losses of mask logits, all on S/4 masks given as the covered share of each pixel."""

import torch
from torch import Tensor
from torch.nn import functional as F


def mask_loss(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """20 focal (alpha 0.25 for inside as 1 - 0.75, gamma 2) + dice, the weights of SAM's training.

    Args:
        logits: NxCxP.
        target: NxP, 0 to 1.

    Returns:
        Loss NxC; IoU of the masks NxC, without gradient.
    """
    target = target[:, None]
    inside = logits.sigmoid()
    entropy = F.softplus(logits) - logits * target
    wrong = target + inside * (1 - 2 * target)
    focal = ((0.75 - 0.5 * target) * wrong.square() * entropy).mean(-1)
    dice = 1 - (2 * (inside * target).sum(-1) + 1) / (inside.sum(-1) + target.sum(-1) + 1)
    with torch.no_grad():
        iou = overlap(logits > 0, target > 0.5)
    return 20 * focal + dice, iou


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """IoU along the last axis of bool masks."""
    both = (one & other).sum(-1).float()
    return both / (one.sum(-1) + other.sum(-1) - both).clamp(min=1)
