"""Prompts as SAM is trained with: a click, a box or nothing; then clicks where the mask is wrong."""

import torch
from torch import Tensor

from training.demo.batches import Batch
from training.demo.clicks import correction
from training.demo.damage import damaged
from training.demo.decoder import BACKGROUND, CORNER_1, CORNER_2, EMPTY, FOREGROUND, PAD
from training.demo.order import order, unorder

BOXES, BOXED_PARTS, NOTHING, CENTRED = 0.42, 0.8, 0.6, 0.4
"""Shares: boxes among all objects, and among parts of things, since a click is to mean the whole; no prompt among the
prominent ones; the middle of the object, or of the error, among clicks.
"""


class Prompts:
    """The points of N objects, growing by corrective clicks. Randomness is torch's global generator's.

    Attributes:
        points: NxJx2, pixels of the input.
        labels: NxJ.
        boxed: N, whether the prompt is a box.
        nothing: N, whether there is none.
    """

    def __init__(self, batch: Batch, size: int) -> None:
        self.size, self._batch, self._inside = size, batch, batch.targets > 0.5
        self._pixels = pixels(size, batch.targets.device)
        number, device = len(batch.boxes), batch.boxes.device
        kind = torch.rand(number, device=device)
        self.nothing = batch.prominent & (kind > 1 - NOTHING)
        self.boxed = (kind < torch.where(batch.parts, BOXED_PARTS, BOXES)) & ~self.nothing
        centred = torch.rand(number, 1, device=device) < CENTRED
        anywhere = self._place(pick(self._inside)[0])
        click = torch.where(centred, batch.centres, anywhere)[:, None]
        self.points = torch.where(self.boxed[:, None, None], self._boxes(batch), torch.cat([click, click], 1))
        box_labels = torch.tensor([CORNER_1, CORNER_2], device=device)
        labels = torch.where(self.boxed[:, None], box_labels, torch.tensor([FOREGROUND, EMPTY], device=device))
        self.labels = torch.where(self.nothing[:, None], torch.tensor([PAD, EMPTY], device=device), labels)

    def _boxes(self, batch: Batch) -> Tensor:
        """Nx2x2: four of five are jittered, by about 4 % of their sides."""
        sides = (batch.boxes[:, 2:] - batch.boxes[:, :2]).repeat(1, 2)
        jittered = torch.rand(len(sides), 1, device=sides.device) < 0.8
        moved = batch.boxes + torch.randn_like(batch.boxes).clamp(-2, 2) * 0.04 * jittered * sides
        return moved.clamp(0, self.size).unflatten(1, (2, 2))

    def correct(self, logits: Tensor) -> None:
        """Adds a click for each object where its mask is wrong.

        Most are anywhere in what is missing or what is too much, whichever is larger; others in the middle of the
        largest error, where annotators click.

        Args:
            logits: NxP of the mask so far, in window order.
        """
        masks = logits > 0
        missing, surplus = self._inside & ~masks, masks & ~self._inside
        more = missing.sum(1) >= surplus.sum(1)
        chosen, wrong = pick(torch.where(more[:, None], missing, surplus))
        anywhere, _ = pick(self._inside)  # a mask without error gets one more click inside
        place = self._place(torch.where(wrong, chosen, anywhere))
        label = torch.where(more | ~wrong, FOREGROUND, BACKGROUND)
        centred = (torch.rand(len(masks), device=masks.device) < CENTRED) & self._inside.any(1)
        place[centred], label[centred] = self._centres(masks[centred], self._inside[centred])
        self.points = torch.cat([self.points, place[:, None]], 1)
        # In use a first click replaces the padding point that stood for no prompt.
        before = torch.where(self.labels == PAD, EMPTY, self.labels)
        self.labels = torch.cat([before, label[:, None]], 1)

    def beside_box(self) -> Tensor:
        """NxP: 1 for pixels farther from the prompt's box than it may be jittered, 0 for others and without a box."""
        low, high = self.points[:, 0, None], self.points[:, 1, None]
        room = 0.1 * (high - low)
        beside = ((self._pixels < low - room) | (self._pixels > high + room)).any(-1)
        return (beside & self.boxed[:, None]).float()

    def damaged(self) -> Tensor:
        """Logits NxP of damaged targets: masks to correct."""
        return damaged(self._batch.targets, self._batch.boxes, self._pixels)

    def _centres(self, masks: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """For each mask and target (MxP, bool) a click in the middle of the largest error: x and y (Mx2), label."""
        side = self.size // 4
        rasters = (unorder(part[..., None], side, side, 8)[..., 0].cpu().numpy() for part in (masks, targets))
        clicks = [correction(mask, target) for mask, target in zip(*rasters, strict=True)]
        places = torch.tensor([place for place, _ in clicks], device=masks.device).reshape(-1, 2)
        labels = torch.tensor([label for _, label in clicks], device=masks.device, dtype=torch.long)
        return 4.0 * places + torch.randint(0, 4, places.shape, device=masks.device), labels

    def _place(self, index: Tensor) -> Tensor:
        """A random input pixel within S/4 pixels given by their indices."""
        return self._pixels[index] + torch.randint(0, 4, (len(index), 2), device=index.device)


def pixels(size: int, device: torch.device) -> Tensor:
    """Px2: x and y of the upper left input pixel of each S/4 pixel, in window order."""
    along = torch.arange(0, size, 4, device=device, dtype=torch.float32)
    y, x = torch.meshgrid(along, along, indexing="ij")
    return order(torch.stack([x, y], -1)[None], 8).reshape(-1, 2)


def pick(regions: Tensor) -> tuple[Tensor, Tensor]:
    """The index of a random true element of each NxP row (the last element where there is none); whether there is."""
    counts = regions.cumsum(1, dtype=torch.int32)
    total = counts[:, -1]
    rank = (torch.rand(len(total), device=total.device) * total).int() + 1
    index = torch.searchsorted(counts, rank[:, None])[:, 0]
    return index.clamp(max=regions.shape[1] - 1), total > 0
