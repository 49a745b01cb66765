"""What runs an image encoder: torch anywhere, or OpenVINO on a CPU, where its masks are torch's."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from maskwire_core.config import EncoderSettings
from maskwire_core.models import ModelError
from numpy.typing import NDArray
from torch import Tensor

from maskwire_encoder import canary, export
from maskwire_encoder.preprocessing import prepare

log = logging.getLogger(__name__)

Tensors = Mapping[str, NDArray[np.float32]]


class Backend(Protocol):
    """Runs an image encoder.

    Attributes:
        name: "torch" or "openvino".
        precision: "fp32" or "bf16", a part of every content key.
    """

    name: str
    precision: str

    def encode(self, images: Sequence[Tensor]) -> list[Tensors]:
        """Encodes 3xSxS inputs. See `Model.encode`."""


class TorchBackend:
    """sam2's own modules, in fp32, all images in one batch."""

    name, precision = "torch", "fp32"

    def __init__(self, sam: Any, device: torch.device) -> None:
        self._sam, self._device = sam.to(device), device

    @torch.inference_mode()
    def encode(self, images: Sequence[Tensor]) -> list[Tensors]:
        batch = torch.stack(tuple(images)).to(self._device)
        high_res_0, high_res_1, embed = self._sam.forward_image(batch)["backbone_fpn"]
        if self._sam.directly_add_no_mem_embed:
            embed = embed + self._sam.no_mem_embed.reshape(1, -1, 1, 1)
        laid_out = {
            "image_embed": export.to_patches(embed, 1)[:, :, 0],
            "high_res_1": export.to_patches(high_res_1, 2),
            "high_res_0": export.to_patches(high_res_0, 4),
        }
        arrays = {name: tensor.float().cpu().numpy() for name, tensor in laid_out.items()}
        return [{name: array[index] for name, array in arrays.items()} for index in range(len(batch))]


class OpenVinoBackend:
    """The same encoder in OpenVINO, one image after the other: on a CPU, batches are no faster.

    Raises:
        ImportError: OpenVINO is not installed.
        ValueError: The model is not built as those that are known.
    """

    name = "openvino"

    def __init__(self, sam: Any, precision: str, threads: int) -> None:
        import openvino

        from maskwire_encoder import hiera

        self.precision = precision
        # The graph says what is computed in bf16; "f32" keeps OpenVINO from deciding for the rest.
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        model = hiera.build(sam, bf16=precision == "bf16")
        self._request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
        self._lock = threading.Lock()

    def encode(self, images: Sequence[Tensor]) -> list[Tensors]:
        return [self._one(image) for image in images]

    def _one(self, image: Tensor) -> Tensors:
        with self._lock:
            outputs = self._request.infer({0: image[None].numpy()})
            return {name: outputs[name] for name in ("image_embed", "high_res_1", "high_res_0")}


def choose(sam: Any, device: torch.device, settings: EncoderSettings) -> Backend:
    """The fastest backend that the settings allow and whose masks are those of torch in fp32.

    Raises:
        ModelError: What the settings ask for is not to be had.
    """
    reference = TorchBackend(sam, device)
    if settings.backend == "torch" or device.type != "cpu":
        if settings.backend == "openvino" or settings.precision == "bf16":
            raise ModelError("--backend openvino and --precision bf16 are for --device cpu, and bf16 for OpenVINO")
        return reference
    demanded = settings.backend == "openvino" or settings.precision == "bf16"
    try:
        import openvino
    except ImportError as error:
        if demanded:
            raise ModelError(f"OpenVINO cannot be loaded ({error}): pip install 'maskwire[openvino]'") from error
        log.info("encoding with torch; pip install 'maskwire[openvino]' makes CPUs faster")
        return reference
    fast = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precisions = (["bf16"] if fast else []) + ["fp32"] if settings.precision == "auto" else [settings.precision]
    picture = prepare(canary.picture(sam.image_size), sam.image_size)
    log.info("encoding a picture with torch in fp32, to compare with")
    expected = canary.masks(sam, reference.encode([picture])[0])
    for precision in precisions:
        log.info("compiling the image encoder for OpenVINO in %s", precision)
        started = time.perf_counter()
        try:
            backend = OpenVinoBackend(sam, precision, settings.threads)
            (found,) = backend.encode([picture])
        except Exception as error:  # OpenVINO raises RuntimeError and more for what it cannot compile
            log.warning("OpenVINO in %s cannot run this model: %s", precision, error)
            continue
        agreement = canary.agreement(expected, canary.masks(sam, found))
        if agreement >= canary.AGREEMENT:
            took = time.perf_counter() - started
            log.info("encoding with OpenVINO in %s: mean IoU %.4f with torch, %.1f s", precision, agreement, took)
            return backend
        log.warning(
            "not encoding with OpenVINO in %s: mean IoU %.4f with torch, less than %g",
            precision,
            agreement,
            canary.AGREEMENT,
        )
    if demanded:
        raise ModelError("OpenVINO does not give this model's masks; use --backend torch, or --precision fp32")
    return reference
