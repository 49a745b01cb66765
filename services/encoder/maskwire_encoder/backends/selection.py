"""The backends of a CPU, torch and OpenVINO, and the choice between them."""

import functools
import inspect
import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from maskwire_core.config import EncoderSettings
from maskwire_core.models.registry import ModelError
from numpy.typing import NDArray
from torch import Tensor

from maskwire_encoder.backends.accuracy_cache import AccuracyCache
from maskwire_encoder.backends.accuracy_check import AccuracyCheck
from maskwire_encoder.backends.device import Tensors
from maskwire_encoder.backends.features import NAMES, ImageFeatures
from maskwire_encoder.image_input.preprocessing import prepare

log = logging.getLogger(__name__)

LEAST_CPU_IOU = 0.995
"""Least mean IoU with the masks of torch in fp32 for which OpenVINO is used."""


class Backend(Protocol):
    """Runs an image encoder."""

    precision: str  # such as "fp32" or "bf16"; a part of every content key
    largest: int  # largest batch

    def prepare(self, rgb: NDArray[np.uint8]) -> Tensor:
        """See `Model.prepare`."""

    def encode(self, images: Sequence[Tensor]) -> list[Tensors]:
        """See `Model.encode`."""


class TorchBackend:
    """Runs sam2's own modules in fp32, all images of a batch at once."""

    precision = "fp32"

    def __init__(self, features: ImageFeatures, size: int, largest: int = 1) -> None:
        self.largest = largest
        self._features, self._size = features, size

    def prepare(self, rgb: NDArray[np.uint8]) -> Tensor:
        return prepare(rgb, self._size)

    @torch.inference_mode()
    def encode(self, images: Sequence[Tensor]) -> list[Tensors]:
        arrays = [tensor.numpy() for tensor in self._features(torch.stack(list(images)))]
        return [dict(zip(NAMES, of_image, strict=True)) for of_image in zip(*arrays, strict=True)]


def choose(sam: Any, settings: EncoderSettings, fingerprint: str) -> Backend:
    """Chooses the fastest backend that the settings allow and whose masks are those of torch in fp32.

    The first start compares masks. The outcomes stay in the cache folder and hold for the same model, versions and
    processor.

    Args:
        sam: A `sam2.modeling.sam2_base.SAM2Base` in fp32, on the CPU.
        settings: The encoder's settings.
        fingerprint: Digest of the model's weights and configuration.

    Raises:
        ModelError: The requested backend or precision is unavailable.
    """
    if settings.precision not in ("auto", "fp32", "bf16"):
        raise ModelError(f"--precision {settings.precision} is for CUDA; a CPU has fp32 and bf16")
    features, largest = ImageFeatures(sam).eval(), settings.max_batch or 1
    reference = TorchBackend(features, sam.image_size, largest)
    if settings.backend == "torch":
        if settings.precision == "bf16":
            raise ModelError("--precision bf16 on a CPU needs OpenVINO; leave --backend torch away")
        return reference
    required = settings.backend == "openvino" or settings.precision == "bf16"
    try:
        import openvino

        from maskwire_encoder.backends import openvino_hiera
    except ImportError as error:
        if required:
            raise ModelError(f"OpenVINO cannot be loaded ({error}): pip install 'maskwire-server[openvino]'") from error
        log.info("encoding with torch; pip install 'maskwire-server[openvino]' makes CPUs faster")
        return reference
    core = openvino.Core()
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    processor = (core.get_property("CPU", "FULL_DEVICE_NAME"), *sorted(capabilities))
    here = (inspect.getsource(openvino_hiera), openvino.get_version(), torch.__version__, *processor)
    known = AccuracyCache(settings.cache.expanduser() / "openvino.json")

    @functools.cache
    def accuracy() -> AccuracyCheck:
        log.info("encoding an image with torch in fp32, to compare with")
        return AccuracyCheck(sam, features, torch.device("cpu"), count=1)

    automatic = ("bf16", "fp32") if "BF16" in capabilities else ("fp32",)
    dtypes = automatic if settings.precision == "auto" else (settings.precision,)
    for precision in openvino_hiera.PRECISIONS:
        if precision.split()[0] not in dtypes:
            continue
        compared = (fingerprint, precision, *here)
        iou = known.get(*compared)
        if iou is None or iou >= LEAST_CPU_IOU:
            log.info("compiling the image encoder for OpenVINO in %s", precision)
            started = time.perf_counter()
            try:
                backend = openvino_hiera.OpenVinoBackend(sam, precision, settings.threads, largest)
                if iou is None:
                    iou = _mean_iou(backend, accuracy())
                    known.put(iou, *compared)
            except Exception as error:  # OpenVINO raises RuntimeError and others for what it cannot compile
                log.warning("OpenVINO in %s cannot run this model: %s", precision, error)
                continue
            took_s = time.perf_counter() - started
            if iou >= LEAST_CPU_IOU:
                log.info("encoding with OpenVINO in %s: mean IoU %.4f with torch, %.1f s", precision, iou, took_s)
                return backend
        log.log(
            logging.WARNING if precision == "fp32" else logging.INFO,
            "not encoding with OpenVINO in %s: mean IoU %.4f with torch, less than %g",
            precision,
            iou,
            LEAST_CPU_IOU,
        )
    if required:
        raise ModelError("OpenVINO does not give this model's masks; use --backend torch, or --precision fp32")
    return reference


def _mean_iou(backend: Backend, accuracy: AccuracyCheck) -> float:
    """The mean IoU of a backend's masks with those of torch in fp32; 0 if values are NaN or infinite."""
    (found,) = backend.encode(list(accuracy.inputs))
    deviation = accuracy.check([torch.from_numpy(found[name])[None] for name in NAMES])
    if not deviation.finite:
        log.warning("OpenVINO in %s gives NaN or infinity", backend.precision)
    return deviation.iou if deviation.finite else 0.0
