"""Training batches, each drawn from its own number: batch n is the same whoever draws it, and after a resume."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from training.demo.curriculum import Stage
from training.demo.order import order
from training.demo.pack import Pack
from training.demo.scenes import Scenes


class Batch(NamedTuple):
    """B pictures with K objects each, N = B*K.

    Attributes:
        images: BxSxSx3, uint8, RGB.
        targets: Nx(S/4)², covered share of each S/4 pixel, fp32, in window order.
        boxes: Nx4, x1 y1 x2 y2 in input pixels.
        centres: Nx2, x y: the place farthest from the object's border.
        prominent: N, whether the object is its picture's most prominent.
        parts: N, whether it is of a source of parts.
    """

    images: Tensor
    targets: Tensor
    boxes: Tensor
    centres: Tensor
    prominent: Tensor
    parts: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Batches(Dataset[Batch]):
    """Batch n of a stage."""

    def __init__(self, pack: Pack, stage: Stage, seed: int) -> None:
        self.stage, self.seed, self._scenes = stage, seed, Scenes(pack, stage.size)

    def __getitem__(self, number: int) -> Batch:
        cv2.setNumThreads(0)
        random = np.random.default_rng((self.seed, self.stage.size, number))
        images, objects = [], []
        for _ in range(self.stage.batch):
            image, masks, prominent, part = self._picture(random)
            images.append(image)
            objects += [(*_measure(mask, random), flag, part) for mask, flag in zip(masks, prominent, strict=True)]
        shares, boxes, centres, prominents, parts = zip(*objects, strict=True)
        targets = order(torch.from_numpy(np.stack(shares))[..., None], 8).flatten(1)
        return Batch(
            torch.from_numpy(np.stack(images)),
            targets,
            torch.tensor(boxes, dtype=torch.float32),
            torch.tensor(centres, dtype=torch.float32),
            torch.tensor(prominents),
            torch.tensor(parts),
        )

    def _picture(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[bool], bool]:
        """A scene, flipped at random, with K of its objects, larger ones more often; and whether those are parts."""
        scene = self._scenes.draw(random, self.stage.easy, self.stage.real)
        weights = np.sqrt([np.count_nonzero(mask) for mask in scene.masks])
        count = self.stage.objects
        replace = len(weights) < count
        chosen = random.choice(len(weights), count, replace=replace, p=weights / weights.sum())
        if scene.prominent is not None and random.random() < 0.6:
            chosen[0] = scene.prominent
        image, masks = scene.image, np.stack([scene.masks[index] for index in chosen])
        if random.random() < 0.5:
            image, masks = image[:, ::-1], masks[:, :, ::-1]
        if random.random() < 0.1:
            image, masks = image[::-1], masks[:, ::-1]
        if random.random() < 0.1:
            image, masks = image.transpose(1, 0, 2), masks.transpose(0, 2, 1)
        return np.ascontiguousarray(image), masks, [bool(index == scene.prominent) for index in chosen], scene.parts


def _measure(mask: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, list[int], list[int]]:
    """Share of each S/4 pixel, box and centre of a mask."""
    share = cv2.resize(mask.astype(np.float32), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
    depth = cv2.distanceTransform(np.pad(share > 0.5, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int((depth if depth.any() else share).argmax()), share.shape)
    return share, box, [4 * int(x) + int(random.integers(4)), 4 * int(y) + int(random.integers(4))]
