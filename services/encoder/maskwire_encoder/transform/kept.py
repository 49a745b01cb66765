"""Fitted transforms, kept for the next start in the cache folder."""

import hashlib
import inspect
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from maskwire_core.storage import levels
from torch import nn

from maskwire_encoder.transform import basis, choosing, comparison, fitting, photographs
from maskwire_encoder.transform.basis import Basis, Transform
from maskwire_encoder.transform.photographs import Photographs

log = logging.getLogger(__name__)

_PARTS = ("mean", "forward", "back")


def find_or_fit(
    sam: Any, features: nn.Module, fingerprint: str, pictures: Photographs, least_iou: float, folder: Path
) -> Transform:
    """Returns the transform of a model; see `choosing.fit`.

    Encoders that share the folder, or a copy of it, store the same bytes, whatever their processors: the decoder that
    they export, and with it the content key of their embeddings, depends on the transform.

    Args:
        sam: A `sam2.modeling.sam2_base.SAM2Base` in fp32.
        features: Its `ImageFeatures`.
        fingerprint: Digest of the model's weights and configuration.
        pictures: What it is fitted to and measured on.
        least_iou: Least mean IoU of masks from transformed embeddings with those from exact ones.
        folder: Where outcomes are kept. If it cannot be read or written, the next start fits again.

    Raises:
        ModelError: A photograph cannot be read.
    """
    sources = [inspect.getsource(module) for module in (levels, basis, fitting, choosing, comparison, photographs)]
    key = hashlib.sha256("\0".join((fingerprint, pictures.digest, repr(least_iou), *sources)).encode()).hexdigest()
    path = folder / f"{key}.npz"
    found = _read(path)
    if found is None:
        log.info("fitting the transform of embeddings, once for this model")
        started = time.perf_counter()
        found = choosing.fit(sam, features, pictures, least_iou)
        log.info("fitted in %.0f s", time.perf_counter() - started)
        _write(path, found)
    return found


def _read(path: Path) -> Transform | None:
    try:
        with np.load(path, allow_pickle=False) as kept:
            names = sorted({entry.partition(".")[0] for entry in kept.files if "." in entry})
            bases = {name: Basis(*(kept[f"{name}.{part}"] for part in _PARTS)) for name in names}
            return Transform(bases, float(kept["iou"]), float(kept["share"]))
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _write(path: Path, transform: Transform) -> None:
    arrays = {f"{name}.{part}": getattr(each, part) for name, each in transform.bases.items() for part in _PARTS}
    partial = path.with_name(f"{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, iou=np.float64(transform.iou), share=np.float64(transform.share), **arrays)
        partial.replace(path)
    except OSError as error:
        log.info("the next start fits the transform again: %s", error)
