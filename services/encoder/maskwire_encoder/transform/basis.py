"""Values of an embedding to whole numbers, and back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from maskwire_core.storage.codecs import NotFinite, is_finite
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Planes = NDArray[np.int16]

_MOST = 32767


@dataclass(frozen=True)
class Basis:
    """The transform of one tensor. A row is what the tensor has for one image token: D values.

    level = round((row - mean) @ forward);   row = mean + level @ back, about
    """

    mean: Floats  # D
    forward: Floats  # D x K, divided by the step
    back: Floats  # K x D, multiplied by the step


@dataclass(frozen=True)
class Transform:
    """The transform of an embedding.

    Attributes:
        bases: By the name of each tensor.
        iou: Mean IoU of masks from transformed embeddings with those from exact ones, as measured.
        share: Share of the bytes of fp32 that a transformed embedding takes, as measured.
    """

    bases: Mapping[str, Basis]
    iou: float
    share: float

    def planes(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, Planes]:
        """Transforms an embedding.

        Args:
            tensors: In the stored layout, fp32 or fp16.

        Returns:
            By tensor what the codec "klt" stores: int16, K x rows x columns.

        Raises:
            NotFinite: A value is NaN or infinite, or too far from those that the transform was fitted to.
        """
        planes = {}
        for name, tensor in tensors.items():
            if not is_finite(tensor):
                raise NotFinite(f"{name} has {np.count_nonzero(~np.isfinite(tensor))} values that are NaN or infinite")
            basis = self.bases[name]
            rows = tensor.reshape(len(tensor), -1).astype(np.float32, copy=False)
            levels = np.rint(basis.forward.T @ (rows - basis.mean).T)
            if np.abs(levels).max(initial=0) > _MOST:
                raise NotFinite(f"{name} has values of up to {np.abs(tensor).max():.3g}, more than klt holds")
            side = math.isqrt(len(tensor))
            planes[name] = levels.astype(np.int16).reshape(-1, side, side)
        return planes

    def values(self, planes: Mapping[str, Planes]) -> dict[str, Floats]:
        """The inverse of `planes`, but for what is lost: tokens x D by name."""
        return {
            name: each.reshape(len(each), -1).T.astype(np.float32) @ self.bases[name].back + self.bases[name].mean
            for name, each in planes.items()
        }
