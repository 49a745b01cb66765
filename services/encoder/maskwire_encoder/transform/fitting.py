"""Fits the transform of a model's embeddings: a Karhunen-Loeve transform, weighted by how much an error moves masks.

For each tensor, whose row for an image token has D values:

1. C (D x D) is the covariance of rows on calibration pictures, m their mean.
2. G (D x D) is the mean over random clicks of the sum of g g^T over rows, g being the gradient, by a row, of the logits
   near the masks' borders with random signs: the square of a logit's error is e^T G e on average, for errors e of rows.
3. W = G^(1/2), and V the eigenvectors of W C W: in the basis V^T W an error of one size moves borders by as much
   whatever its direction and tensor, and the values are uncorrelated. So one step serves all, in units of a logit.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from maskwire_core.storage.codecs import NotFinite
from numpy.typing import NDArray
from torch import Tensor

from maskwire_encoder.backends.features import NAMES, from_patches
from maskwire_encoder.transform.basis import Basis

CLICKS = 4  # on each picture
_NEAR = 1.0  # logits up to this are near a border
_LEAST_SENSITIVITY = 1e-3  # of a direction, relative to the mean: no error is without cost
_LEAST_DEVIATION = 1 / 6  # standard deviation of a level; those that vary less would nearly always be 0

Matrix = NDArray[np.float64]


class Fit:
    """Gathers what the transform depends on, picture by picture.

    Args:
        sam: A `sam2.modeling.sam2_base.SAM2Base` in fp32.
    """

    def __init__(self, sam: Any) -> None:
        self._sam = sam
        self._random = np.random.default_rng(0)
        self._sums = [_Sums() for _ in NAMES]

    def add(self, features: Sequence[Tensor]) -> None:
        """Adds a picture's features, as `ImageFeatures` returns them."""
        gradients = self._gradients(features)
        for sums, tensor, gradient in zip(self._sums, features, gradients, strict=True):
            sums.add(_rows(tensor), _rows(gradient))

    def directions(self) -> list["Directions"]:
        """The directions of each tensor, in the order of NAMES.

        Raises:
            NotFinite: A feature or a gradient was NaN or infinite.
        """
        return [sums.directions() for sums in self._sums]

    def _gradients(self, features: Sequence[Tensor]) -> Sequence[Tensor]:
        """Gradients of the logits near borders by the features, summed over clicks. Their signs are random, so that the
        products of different clicks' gradients vanish on average."""
        sam, device = self._sam, features[0].device
        side: int = sam.sam_image_embedding_size
        places = self._random.uniform(0, sam.image_size, (CLICKS, 1, 2))
        points = torch.from_numpy(places).float().to(device)
        labels = torch.ones(CLICKS, 1, dtype=torch.int32, device=device)
        with torch.no_grad():
            sparse, dense = sam.sam_prompt_encoder(points=(points, labels), boxes=None, masks=None)
            positions = sam.sam_prompt_encoder.get_dense_pe()
        leaves = [tensor.detach().float().clone().requires_grad_() for tensor in features]
        embed, high_res_1, high_res_0 = leaves
        with torch.enable_grad():
            logits, *_ = sam.sam_mask_decoder(
                image_embeddings=from_patches(embed[:, :, None], side),
                image_pe=positions,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
                repeat_image=True,
                high_res_features=[from_patches(high_res_0, side), from_patches(high_res_1, side)],
            )
            near = (logits.detach().abs() < _NEAR).float()
            signs = torch.from_numpy(self._random.choice([-1.0, 1.0], tuple(logits.shape))).float().to(device)
            weight = near * signs / near.sum((1, 2, 3), keepdim=True).clamp(min=1).sqrt()
            return torch.autograd.grad((logits * weight).sum(), leaves)


class Directions:
    """The directions of one tensor, those that move borders most first.

    Args:
        mean: D, the mean of rows.
        forward: D x D, whose columns give a row's values in the directions.
        back: D x D, its inverse.
        variances: D, of these values.
    """

    def __init__(self, mean: Matrix, forward: Matrix, back: Matrix, variances: Matrix) -> None:
        self._mean, self._forward, self._back, self._variances = mean, forward, back, variances

    def basis(self, step: float) -> Basis:
        """The transform with a step, in units of a logit. It has the directions that vary more than a part of it."""
        kept = max(1, int(np.count_nonzero(self._variances > (step * _LEAST_DEVIATION) ** 2)))
        return Basis(
            self._mean.astype(np.float32),
            np.ascontiguousarray(self._forward[:, :kept] / step, np.float32),
            np.ascontiguousarray(self._back[:kept] * step, np.float32),
        )


class _Sums:
    """Sums over rows of a tensor, and over gradients by them."""

    def __init__(self) -> None:
        self.pictures, self.rows = 0, 0
        self.sum, self.products, self.gradients = Tensor(), Tensor(), Tensor()

    def add(self, rows: Tensor, gradients: Tensor) -> None:
        """Adds a picture (tokens x D, fp64)."""
        added = rows.sum(0), rows.T @ rows, gradients.T @ gradients
        if not self.rows:
            self.sum, self.products, self.gradients = added
        else:
            self.sum, self.products, self.gradients = (
                before + more for before, more in zip((self.sum, self.products, self.gradients), added, strict=True)
            )
        self.pictures += 1
        self.rows += len(rows)

    def directions(self) -> Directions:
        if not all(bool(each.isfinite().all()) for each in (self.products, self.gradients)):
            raise NotFinite("the features of a picture, or their gradients, are NaN or infinite")
        mean = (self.sum / self.rows).cpu().numpy()
        covariance = (self.products / self.rows).cpu().numpy() - np.outer(mean, mean)
        sensitivities, axes = np.linalg.eigh((self.gradients / (self.pictures * CLICKS)).cpu().numpy())
        roots = np.sqrt(np.maximum(sensitivities, max(_LEAST_SENSITIVITY * sensitivities.mean(), 1e-12)))
        weight, inverse = axes * roots @ axes.T, axes / roots @ axes.T
        variances, vectors = np.linalg.eigh(weight @ covariance @ weight)
        variances, vectors = variances[::-1], vectors[:, ::-1]
        return Directions(mean, weight @ vectors, vectors.T @ inverse, variances)


def _rows(tensor: Tensor) -> Tensor:
    """1 x tokens x ... to tokens x D, fp64."""
    return tensor.detach().reshape(tensor.shape[1], -1).double()
