"""A SAM 2 image encoder on a device, and the export of its decoder."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from maskwire_core.bundle import DecoderBundle, DecoderConfig
from maskwire_core.config import EncoderSettings
from maskwire_core.models import ModelError
from numpy.typing import NDArray
from torch import Tensor, nn

from maskwire_encoder import checkpoints, export
from maskwire_encoder.accelerated import SIZES, Accelerated
from maskwire_encoder.canary import Canary
from maskwire_encoder.features import ImageFeatures
from maskwire_encoder.packages import Run, compiled
from maskwire_encoder.preprocessing import prepare

log = logging.getLogger(__name__)


class Model:
    """One model, ready to encode.

    Attributes:
        source: Where it came from.
        fingerprint: Digest of weights and configuration.
        image_size: Side of its square input in pixels.
        device: Where it runs.
        largest: Most images in a batch.
    """

    def __init__(self, source: checkpoints.ModelSource, settings: EncoderSettings) -> None:
        self.source = source
        log.info("loading %s from %s", self.source.name, self.source.checkpoint)
        self._sam, self.fingerprint = checkpoints.build(self.source)
        self.image_size: int = self._sam.image_size
        self.device = torch.device(_device(settings.device))
        self.decoder = self._export()
        self._sam.to(self.device)
        self._accelerated = self._accelerate(settings) if self.device.type == "cuda" else None
        self.largest = self._accelerated.largest if self._accelerated is not None else settings.max_batch or 1

    def prepare(self, rgb: NDArray[np.uint8]) -> Tensor:
        """Pixels (HxWx3, RGB) to what `encode` takes: 3xSxS, fp32; for a CUDA device, the pixels themselves."""
        return self._accelerated.prepare(rgb) if self._accelerated is not None else prepare(rgb, self.image_size)

    @torch.inference_mode()
    def encode(self, images: Sequence[Tensor] | Tensor) -> list[dict[str, NDArray[Any]]]:
        """Encodes what `prepare` made.

        Returns:
            For each image, tensors of the decoder's names in the stored layout: image_embed (tokens x C), high_res_1
            (tokens x 4 x C/4), high_res_0 (tokens x 16 x C/8); fp32, or fp16 where that is stored.
        """
        if self._accelerated is not None:
            return self._accelerated.encode(tuple(images))
        high_res_0, high_res_1, embed = self._sam.forward_image(torch.stack(tuple(images)).to(self.device))[
            "backbone_fpn"
        ]
        if self._sam.directly_add_no_mem_embed:
            embed = embed + self._sam.no_mem_embed.reshape(1, -1, 1, 1)
        laid_out = {
            "image_embed": export.to_patches(embed, 1)[:, :, 0],
            "high_res_1": export.to_patches(high_res_1, 2),
            "high_res_0": export.to_patches(high_res_0, 4),
        }
        arrays = {name: tensor.float().cpu().numpy() for name, tensor in laid_out.items()}
        return [{name: array[index] for name, array in arrays.items()} for index in range(len(images))]

    def _accelerate(self, settings: EncoderSettings) -> Accelerated:
        torch.cuda.set_per_process_memory_fraction(settings.device_memory, self.device)
        features = ImageFeatures(self._sam).eval().requires_grad_(False).to(self.device)
        accelerated = Accelerated(
            features, self.image_size, self.device, settings.max_batch or 32, half=settings.store_codec == "fp16"
        )
        canary = Canary(self._sam, features, self.device)

        def compile_as(module: nn.Module, precision: str) -> Run:
            folder = settings.cache.expanduser() / "compiled"
            return compiled(module, canary.inputs, SIZES[-1], f"{self.fingerprint} {precision}", folder)

        accelerated.start(canary, settings.precision, compile_as if settings.compile else None)
        log.info("%s: %s, batches of up to %d", self.source.name, accelerated.precision, accelerated.largest)
        return accelerated

    def _export(self) -> DecoderBundle:
        decoder: Any = self._sam.sam_mask_decoder
        config = DecoderConfig(
            model=self.source.name,
            fingerprint=self.fingerprint,
            image_size=self.image_size,
            mask_size=4 * self._sam.sam_image_embedding_size,
            dynamic_multimask=decoder.dynamic_multimask_via_stability,
            stability_delta=decoder.dynamic_multimask_stability_delta,
            stability_threshold=decoder.dynamic_multimask_stability_thresh,
        )
        return export.export_decoder(self._sam, config)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"--device {name}: torch sees no CUDA device; use --device cpu")
    return name
