"""Chooses the step of a model's transform: the largest with which masks stay as close to the exact ones as is asked."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from maskwire_core.storage.codecs import NotFinite
from torch import nn

from maskwire_encoder.backends.features import NAMES
from maskwire_encoder.transform.basis import Basis, Transform
from maskwire_encoder.transform.comparison import ERRORS, Comparison
from maskwire_encoder.transform.fitting import Fit
from maskwire_encoder.transform.photographs import Photographs

log = logging.getLogger(__name__)

_FINEST, _START, _COARSEST = -14.0, -10.0, 0.0  # powers of two of the step, in logits
_TRIALS = 4  # steps that are tried at most
_NEAR = 0.1  # how much larger than a good step another must be to be tried, in powers of two
_GROWTH = 0.7  # losses grow with about this power of the step
_SAFE = 0.97  # of the loss that is allowed: what a guess aims at
_HOPELESS = 1.5  # times this loss, on a third of the photographs: a step is too coarse, without looking at the others
_LARGEST = 1 / 4  # of fp32's bytes: less than half of fp16's


def fit(sam: Any, features: nn.Module, photographs: Photographs, least_iou: float) -> Transform:
    """Fits the transform of a model, and chooses its step.

    Args:
        sam: A `sam2.modeling.sam2_base.SAM2Base` in fp32.
        features: Its `ImageFeatures`.
        photographs: What it is fitted to and measured on.
        least_iou: Least mean IoU of masks from transformed embeddings with those from exact ones, less two standard
            errors; see `Comparison`.

    Returns:
        The transform; without bases, but with what the last step reached, if no step gives this IoU in half of fp16's
        bytes.

    Raises:
        ModelError: A photograph cannot be read.
    """
    device = next(features.parameters()).device
    gathered = Fit(sam)
    with torch.no_grad():
        for photograph in photographs.to_fit(sam.image_size):
            gathered.add(features(photograph.to(device)))
        measured = [features(photograph.to(device)) for photograph in photographs.to_measure(sam.image_size)]
        comparison = Comparison(sam, measured)
    try:
        directions = dict(zip(NAMES, gathered.directions(), strict=True))
    except NotFinite:  # which `Model.verify` tells
        return Transform({}, 0, 1)
    chosen: tuple[Mapping[str, Basis], float] | None = None
    finest, power, coarsest = _FINEST, _START, _COARSEST
    for _ in range(_TRIALS):
        bases = {name: each.basis(2**power) for name, each in directions.items()}
        iou, error = comparison.iou(bases, 1 - _HOPELESS * (1 - least_iou))
        log.info("step %.2g: mean IoU %.4f, with a standard error of %.4f", 2**power, iou, error)
        loss = 1 - iou + ERRORS * error
        if loss <= 1 - least_iou:
            chosen, finest = (bases, iou), power
        else:
            coarsest = power
        if chosen is None and power == _FINEST:
            break
        guess = power + math.log2(max(_SAFE * (1 - least_iou), 1e-4) / max(loss, 1e-4)) / _GROWTH
        if finest < guess < coarsest:
            power = guess
        elif chosen is None and guess <= finest:
            power = _FINEST
        else:
            power = (finest + coarsest) / 2
        if chosen is not None and power - finest < _NEAR:
            break
    if chosen is None:
        return Transform({}, iou, comparison.share(bases))
    share = comparison.share(chosen[0])
    return Transform(chosen[0] if share <= _LARGEST else {}, chosen[1], share)
