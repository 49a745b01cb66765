"""The training objective on one batch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.demo.batches import Batch
from training.demo.decoder import decode, places
from training.demo.forward import encode
from training.demo.losses import mask_loss
from training.demo.network import Network
from training.demo.prompts import Prompts

KEPT_MASKS = 0.85
"""Share of corrective clicks that come with the previous mask, as they do in use."""

BESIDE_BOX = 4.0
"""Weight of pixels that are beside a box that was given: nothing there belongs to its object."""

THOUGHT_BEST = 0.5
"""Of a click's loss, the share of the candidate with the highest predicted IoU: the one that is served. The rest is
that of the best one, which alone would make the three candidates so different that choosing costs more than it gives.
"""

CORRECTED = 1.5
"""Weight of the loss after corrections beside that of the first prompt."""

MENDED = 0.4
"""Share of objects whose first correction is of a damaged target in place of the model's own mask."""

EARLIER = 5
"""Fewer clicks than this are added at once, on half the batches, before masks are corrected one click at a time."""


def objective(network: Network, batch: Batch, corrections: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of a first prompt and of corrective clicks for each object.

    First: of three candidates the best counts (a click may mean a part or the whole) and the one that would be chosen,
    and the single mask more the less ambiguous the prompt is. Then `corrections` clicks on average, up to five; only
    the last of them has a gradient, so that masks are corrected at any depth for the price of one. They correct the
    model's own mask or, for some objects, a damaged target: its own mistakes alone teach that the object is another
    than it thought, damaged targets alone that the mask was nearly right. On half the batches earlier clicks are known
    without having been answered one by one, so that long prompts are cheap.

    Returns:
        The loss; IoU by kind of prompt.
    """
    features, place = encode(network, batch.images), places(network)
    prompts = Prompts(batch, network.size)
    boxed = prompts.boxed
    decoded = decode(network, features, place, prompts.points, prompts.labels)
    logits = decoded.logits.float().contiguous()
    weight = 1 + (BESIDE_BOX - 1) * prompts.beside_box()
    losses, iou = mask_loss(logits, batch.targets, weight)
    best = 1 + losses[:, 1:].argmin(1)
    every = torch.arange(len(best), device=best.device)
    single, three = torch.where(boxed, 1.0, 0.3), torch.where(boxed, 0.2, 1.0)
    served = 1 + decoded.iou[:, 1:].detach().argmax(1)
    loss = (single * losses[:, 0] + three * candidates_loss(losses, served)).mean()
    loss = loss + 3 * (decoded.iou.float() - iou).square().mean(1).mean()
    loss = loss + 0.05 * F.softplus(-decoded.object_score.float()).mean()  # every prompt means an object
    chosen = torch.where(boxed, 0, best)
    reached = iou[every, chosen]
    told = {
        "click": reached[~boxed & ~prompts.nothing],
        "box": reached[boxed],
        "nothing": reached[prompts.nothing],
    }
    count = int((torch.rand(()) * 2 * corrections).round().clamp(max=5))
    mask = logits[every, chosen].detach()
    if count:
        mended = torch.rand(len(mask), 1, device=mask.device) < MENDED
        mask = torch.where(mended, prompts.damaged(), mask)
        for _ in range(int(torch.randint(1 - EARLIER, EARLIER, ()))):
            prompts.correct(prompts.damaged())
    for index in range(count):
        prompts.correct(mask)
        kept = torch.rand(len(mask), device=mask.device) < KEPT_MASKS
        last = index == count - 1
        with torch.set_grad_enabled(last):
            decoded = decode(network, features, place, prompts.points, prompts.labels, mask.clamp(-32, 32), kept)
        logits = decoded.logits[:, :1].float().contiguous()
        mask = logits[:, 0].detach()
        if last:
            losses, iou = mask_loss(logits, batch.targets, weight)
            loss = loss + CORRECTED * losses.mean() + (decoded.iou[:, :1].float() - iou).square().mean()
            told[f"+{count}"] = iou[:, 0]
    return loss, told


def candidates_loss(losses: Tensor, served: Tensor) -> Tensor:
    """N: of each prompt's three candidates, the best one's loss and that of the one which is served.

    Args:
        losses: Nx4, the first of the single mask.
        served: N, 1 to 3.
    """
    chosen = losses.gather(1, served[:, None])[:, 0]
    return (1 - THOUGHT_BEST) * losses[:, 1:].amin(1) + THOUGHT_BEST * chosen
