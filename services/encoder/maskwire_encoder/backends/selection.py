"""What runs an image encoder: torch anywhere, or OpenVINO on a CPU, where its masks are torch's."""

import functools
import inspect
import logging
import threading
import time
from typing import Any, Protocol

import numpy as np
import torch
from maskwire_core.config import EncoderSettings
from maskwire_core.models.registry import ModelError
from numpy.typing import NDArray
from torch import Tensor

from maskwire_encoder.backends.accuracy_cache import Verdicts
from maskwire_encoder.backends.accuracy_check import AccuracyCheck
from maskwire_encoder.backends.features import NAMES, ImageFeatures
from maskwire_encoder.image_input.preprocessing import prepare

log = logging.getLogger(__name__)

Tensors = dict[str, NDArray[Any]]

AGREEMENT = 0.995
"""Mean IoU with the masks of torch's fp32 embeddings below which OpenVINO is not used."""


class Backend(Protocol):
    """Runs an image encoder.

    Attributes:
        precision: Such as "fp32" or "bf16": a part of every content key.
        largest: Most images in a batch.
    """

    precision: str
    largest: int

    def prepare(self, rgb: NDArray[np.uint8]) -> Tensor:
        """See `Model.prepare`."""

    def encode(self, images: tuple[Tensor, ...]) -> list[Tensors]:
        """See `Model.encode`."""


class _OnCpu:
    """Takes inputs that are resized already."""

    def __init__(self, size: int, largest: int) -> None:
        self._size = size
        self.largest = largest

    def prepare(self, rgb: NDArray[np.uint8]) -> Tensor:
        return prepare(rgb, self._size)


class TorchBackend(_OnCpu):
    """sam2's own modules, in fp32, all images in one batch."""

    precision = "fp32"

    def __init__(self, features: ImageFeatures, size: int, largest: int = 1) -> None:
        super().__init__(size, largest)
        self._features = features

    @torch.inference_mode()
    def encode(self, images: tuple[Tensor, ...]) -> list[Tensors]:
        arrays = [tensor.numpy() for tensor in self._features(torch.stack(images))]
        return [dict(zip(NAMES, of_image, strict=True)) for of_image in zip(*arrays, strict=True)]


class OpenVinoBackend(_OnCpu):
    """The same encoder in OpenVINO, one image after the other: on a CPU, batches are no faster.

    Raises:
        ImportError: OpenVINO is not installed.
        ValueError: The model is not built as those that are known.
    """

    def __init__(self, sam: Any, precision: str, threads: int, largest: int = 1) -> None:
        super().__init__(sam.image_size, largest)
        import openvino

        from maskwire_encoder.backends import openvino_hiera

        self.precision = precision
        # The graph says what is computed in bf16; "f32" keeps OpenVINO from deciding for the rest.
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        model = openvino_hiera.build(sam, precision)
        self._request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
        self._lock = threading.Lock()

    def encode(self, images: tuple[Tensor, ...]) -> list[Tensors]:
        return [self._one(image) for image in images]

    def _one(self, image: Tensor) -> Tensors:
        with self._lock:
            outputs = self._request.infer({0: image[None].numpy()})
            return {name: outputs[name] for name in NAMES}


def choose(sam: Any, settings: EncoderSettings, fingerprint: str) -> Backend:
    """The fastest on the CPU that the settings allow and whose masks are those of torch in fp32.

    Masks are compared at the first start; the outcome is kept in the cache folder for as long as model, versions and
    processor are the same.

    Args:
        sam: A `sam2.modeling.sam2_base.SAM2Base` in fp32.
        settings: Of the encoder.
        fingerprint: Digest of the model's weights and configuration.

    Raises:
        ModelError: What the settings ask for is not to be had.
    """
    if settings.precision not in ("auto", "fp32", "bf16"):
        raise ModelError(f"--precision {settings.precision} is for CUDA; a CPU has fp32 and bf16")
    features, largest = ImageFeatures(sam).eval(), settings.max_batch or 1
    reference = TorchBackend(features, sam.image_size, largest)
    if settings.backend == "torch":
        if settings.precision == "bf16":
            raise ModelError("--precision bf16 on a CPU needs OpenVINO; leave --backend torch away")
        return reference
    demanded = settings.backend == "openvino" or settings.precision == "bf16"
    try:
        import openvino

        from maskwire_encoder.backends import openvino_hiera
    except ImportError as error:
        if demanded:
            raise ModelError(f"OpenVINO cannot be loaded ({error}): pip install 'maskwire-server[openvino]'") from error
        log.info("encoding with torch; pip install 'maskwire-server[openvino]' makes CPUs faster")
        return reference
    core = openvino.Core()
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    wanted = settings.precision if settings.precision != "auto" else "bf16 fp32" if "BF16" in capabilities else "fp32"
    precisions = [precision for precision in openvino_hiera.PRECISIONS if precision.split()[0] in wanted]
    processor = (core.get_property("CPU", "FULL_DEVICE_NAME"), *sorted(capabilities))
    here = (inspect.getsource(openvino_hiera), openvino.get_version(), torch.__version__, *processor)
    verdicts = Verdicts(settings.cache.expanduser() / "openvino.json")

    @functools.cache
    def accuracy() -> AccuracyCheck:
        log.info("encoding a picture with torch in fp32, to compare with")
        return AccuracyCheck(sam, features, torch.device("cpu"), count=1)

    for precision in precisions:
        agreement = verdicts.find(fingerprint, precision, *here)
        if agreement is None or agreement >= AGREEMENT:
            log.info("compiling the image encoder for OpenVINO in %s", precision)
            started = time.perf_counter()
            try:
                backend = OpenVinoBackend(sam, precision, settings.threads, largest)
                if agreement is None:
                    (found,) = backend.encode(tuple(accuracy().inputs))
                    deviation = accuracy().check([torch.from_numpy(found[name])[None] for name in NAMES])
                    if not deviation.finite:
                        log.warning("not encoding with OpenVINO in %s: it gives NaN or infinity", precision)
                    agreement = deviation.iou if deviation.finite else 0.0
                    verdicts.keep(agreement, fingerprint, precision, *here)
            except Exception as error:  # OpenVINO raises RuntimeError and more for what it cannot compile
                log.warning("OpenVINO in %s cannot run this model: %s", precision, error)
                continue
            took = time.perf_counter() - started
            if agreement >= AGREEMENT:
                log.info("encoding with OpenVINO in %s: mean IoU %.4f with torch, %.1f s", precision, agreement, took)
                return backend
        log.log(
            logging.WARNING if precision == "fp32" else logging.INFO,
            "not encoding with OpenVINO in %s: mean IoU %.4f with torch, less than %g",
            precision,
            agreement,
            AGREEMENT,
        )
    if demanded:
        raise ModelError("OpenVINO does not give this model's masks; use --backend torch, or --precision fp32")
    return reference
