"""Chooses the step of a model's transform: the largest with which masks stay as close to the exact ones as is asked."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from maskwire_core.storage.codecs import NotFinite
from maskwire_core.storage.levels import pack_planes
from torch import Tensor, nn

from maskwire_encoder.backends.accuracy_check import ReferenceDecoder, synthetic_images
from maskwire_encoder.backends.features import NAMES
from maskwire_encoder.transform.basis import Basis, Transform
from maskwire_encoder.transform.fitting import Fit

log = logging.getLogger(__name__)

PICTURES, MEASURED = 24, 8  # that the transform is fitted to, and others on which it is measured
_GRID = 4  # clicks on each of these, along a side
_FINEST, _COARSEST = -12.0, 0.0  # powers of two of the step, in logits
_HALVINGS = 7  # so that the step is within a tenth of the largest
_LARGEST = 1 / 4  # of fp32's bytes: less than half of fp16's


def fit(sam: Any, features: nn.Module, least_iou: float) -> Transform:
    """Fits the transform of a model, and chooses its step.

    Args:
        sam: A `sam2.modeling.sam2_base.SAM2Base` in fp32.
        features: Its `ImageFeatures`.
        least_iou: Least mean IoU of masks from transformed embeddings with those from exact ones.

    Returns:
        The transform; without bases, but with what the finest step reached, if no step gives this IoU in half of
        fp16's bytes.
    """
    device = next(features.parameters()).device

    def encoded(seed: int) -> Sequence[Tensor]:
        found: Sequence[Tensor] = features(synthetic_images(1, sam.image_size, seed).to(device))
        return found

    gathered = Fit(sam)
    with torch.no_grad():
        for picture in range(PICTURES):
            gathered.add(encoded(picture))
        comparison = _Comparison(sam, [encoded(PICTURES + picture) for picture in range(MEASURED)])
    try:
        directions = dict(zip(NAMES, gathered.directions(), strict=True))
    except NotFinite:  # which `Model.verify` tells
        return Transform({}, 0, 1)
    best, finest, coarsest, power = Transform({}, 0, 1), _FINEST, _COARSEST, _FINEST
    for _ in range(_HALVINGS + 1):
        bases = {name: each.basis(2**power) for name, each in directions.items()}
        iou, share = comparison.of(bases)
        log.info("step %.2g: mean IoU %.4f, %.1f %% of the bytes of fp32", 2**power, iou, 100 * share)
        if iou >= least_iou and share <= _LARGEST:
            best, finest = Transform(bases, iou, share), power
        elif iou >= least_iou:  # in too many bytes
            best, finest = Transform({}, iou, share), power
        elif power == _FINEST:
            return Transform({}, iou, share)
        else:
            coarsest = power
        power = (finest + coarsest) / 2
    return best


class _Comparison:
    """Compares masks of clicks on transformed embeddings with those on exact ones.

    Args:
        sam: A `sam2.modeling.sam2_base.SAM2Base` in fp32.
        pictures: Features of each picture, as `ImageFeatures` returns them.
    """

    def __init__(self, sam: Any, pictures: Sequence[Sequence[Tensor]]) -> None:
        device = pictures[0][0].device
        ticks = (torch.arange(_GRID, device=device) + 0.5) * sam.image_size / _GRID
        self._points = torch.cartesian_prod(ticks, ticks)[:, None]
        self._labels = torch.ones(_GRID**2, 1, dtype=torch.int32, device=device)
        self._decoder = ReferenceDecoder(sam)
        self._pictures = pictures
        self._expected = [self._decoder(picture, self._points, self._labels) for picture in pictures]

    def of(self, bases: Mapping[str, Basis]) -> tuple[float, float]:
        """Measures a transform.

        Returns:
            The mean IoU of each click's best candidate, by the scores on the exact embedding; and the share of fp32's
            bytes that the planes take. Of a step that is too fine to be stored, 1 and 1.
        """
        transform, ious, stored, exact = Transform(bases, 1, 1), [], 0, 0
        for picture, (expected, scores) in zip(self._pictures, self._expected, strict=True):
            tensors = {name: tensor[0].cpu().numpy() for name, tensor in zip(NAMES, picture, strict=True)}
            try:
                planes = transform.planes(tensors)
            except NotFinite:  # so fine a step that int16 does not hold the levels
                return 1, 1
            stored += sum(len(pack_planes(each)) for each in planes.values())
            exact += sum(each.nbytes for each in tensors.values())
            values = transform.values(planes)
            again = [
                torch.from_numpy(values[name]).reshape(tensor.shape).to(tensor.device)
                for name, tensor in zip(NAMES, picture, strict=True)
            ]
            found, _ = self._decoder(again, self._points, self._labels)
            best = scores.argmax(1)[:, None, None, None].expand(-1, 1, *found.shape[2:])
            a, b = expected.gather(1, best) > 0, found.gather(1, best) > 0
            either = (a | b).sum((1, 2, 3))
            ious.append(torch.where(either > 0, (a & b).sum((1, 2, 3)) / either.clamp(min=1), 1.0))
        return float(torch.cat(ious).mean()), stored / exact
