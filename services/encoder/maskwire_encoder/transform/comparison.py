"""Compares masks from transformed embeddings with those from exact ones.

Measured are clicks on a checkerboard over photographs, and boxes around what half of these clicks answer. Decoding them
is most of what choosing a step costs; twice as many would lessen the standard error by a third. The mean over some of
all photographs is not that over all: so a bound must hold for the mean less two standard errors, with the photographs
as samples, for clicks and for boxes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from maskwire_core.storage.codecs import NotFinite
from maskwire_core.storage.levels import pack_planes
from torch import Tensor

from maskwire_encoder.backends.accuracy_check import Features, ReferenceDecoder
from maskwire_encoder.backends.features import NAMES
from maskwire_encoder.transform.basis import Basis, Transform

ERRORS = 2
"""Standard errors that a mean must be above its bound."""

_GRID = 4  # fields of a checkerboard along a side
_CLICKED = [(i, j) for i in range(_GRID) for j in (i, (i + 2) % _GRID)]  # those of one colour, each 2nd on the diagonal
_FEW = 6  # photographs, or a third of all if that is more, that tell whether the others need to be looked at


class _Prompts(NamedTuple):
    points: Tensor
    labels: Tensor
    masks: Tensor  # N x S x S, bool: the candidate with the best score on the exact embedding
    best: Tensor  # N, its index


class Comparison:
    """Compares masks on transformed embeddings with those on exact ones.

    Args:
        sam: A `sam2.modeling.sam2_base.SAM2Base` in fp32.
        pictures: Features of each photograph, as `ImageFeatures` returns them.
    """

    def __init__(self, sam: Any, pictures: Sequence[Features]) -> None:
        device = pictures[0][0].device
        self._decoder = ReferenceDecoder(sam)
        self._pictures = pictures
        self._tensors = [
            {name: tensor[0].cpu().numpy() for name, tensor in zip(NAMES, picture, strict=True)} for picture in pictures
        ]
        clicks = (torch.tensor(_CLICKED, device=device) + 0.5)[:, None] * sam.image_size / _GRID
        self._prompts = []
        for picture in pictures:
            clicked = self._ask(picture, clicks, torch.ones(len(clicks), 1, dtype=torch.int32, device=device))
            corners = _boxes(clicked.masks[::2], sam.image_size)
            labels = torch.tensor([2, 3], dtype=torch.int32, device=device).expand(len(corners), 2)
            self._prompts.append((clicked, self._ask(picture, corners, labels)))

    def iou(self, bases: Mapping[str, Basis], hopeless: float) -> tuple[float, float]:
        """The mean IoU over photographs and its standard error, of clicks or of boxes, whichever is less after errors.
        Of a step that is too fine to be stored, 1 and 0.

        Args:
            bases: The transform of each tensor.
            hopeless: A mean over some photographs below which the others are not looked at.
        """
        transform = Transform(bases, 1, 1)
        few = max(_FEW, len(self._pictures) // 3)
        ious: tuple[list[float], ...] = ([], [])  # of clicks and of boxes, a mean for each photograph
        for picture, tensors, prompts in zip(self._pictures, self._tensors, self._prompts, strict=True):
            if len(ious[0]) == few and min(sum(means) for means in ious) < few * hopeless:
                break
            try:
                values = transform.values(transform.planes(tensors))
            except NotFinite:  # so fine a step that int16 does not hold the levels
                return 1, 0
            again = [
                torch.from_numpy(values[name]).reshape(tensor.shape).to(tensor.device)
                for name, tensor in zip(NAMES, picture, strict=True)
            ]
            for means, kind in zip(ious, prompts, strict=True):
                logits, _ = self._decoder(again, kind.points, kind.labels)
                got = _chosen(logits, kind.best)
                either = (got | kind.masks).sum((1, 2))
                both = (got & kind.masks).sum((1, 2))
                means.append(float(torch.where(either > 0, both / either.clamp(min=1), 1.0).mean()))
        return min((_mean(means) for means in ious), key=lambda each: each[0] - ERRORS * each[1])

    def share(self, bases: Mapping[str, Basis]) -> float:
        """Stored bytes relative to those of fp32; 1 for a step that is too fine to be stored."""
        stored = exact = 0
        for tensors in self._tensors:
            try:
                stored += sum(len(pack_planes(each)) for each in Transform(bases, 1, 1).planes(tensors).values())
            except NotFinite:
                return 1
            exact += sum(each.nbytes for each in tensors.values())
        return stored / exact

    def _ask(self, picture: Features, points: Tensor, labels: Tensor) -> _Prompts:
        logits, scores = self._decoder(picture, points, labels)
        best = scores.argmax(1)
        return _Prompts(points, labels, _chosen(logits, best), best)


def _chosen(logits: Tensor, best: Tensor) -> Tensor:
    """One mask of each prompt, by its index (N): N x 3 x S x S to N x S x S, bool."""
    return torch.take_along_dim(logits, best[:, None, None, None], 1)[:, 0] > 0


def _boxes(masks: Tensor, size: int) -> Tensor:
    """The corners of masks (N x S x S), in pixels of the model's input: N x 2 x 2. An empty mask has the picture's."""
    corners = []
    for mask in masks:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        if len(rows):
            corners.append([[int(columns[0]), int(rows[0])], [int(columns[-1]) + 1, int(rows[-1]) + 1]])
        else:
            corners.append([[0, 0], [len(mask), len(mask)]])
    return torch.tensor(corners, dtype=torch.float32, device=masks.device) * (size / masks.shape[1])


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean of samples, and its standard error."""
    spread, mean = torch.std_mean(torch.tensor(values, dtype=torch.float64))
    return float(mean), float(spread) / math.sqrt(len(values))
