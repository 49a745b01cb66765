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
from torch import Tensor

from maskwire_encoder import backends, checkpoints, export
from maskwire_encoder.backends import Tensors
from maskwire_encoder.preprocessing import PREPROCESSING, prepare

log = logging.getLogger(__name__)


class Model:
    """One model, ready to encode.

    Attributes:
        source: Where it came from.
        fingerprint: Digest of weights and configuration.
        image_size: Side of its square input in pixels.
        device: Where it runs.
        decoder: Its exported mask decoder.
        backend: What runs its image encoder.
    """

    def __init__(self, source: checkpoints.ModelSource, settings: EncoderSettings) -> None:
        self.source = source
        log.info("loading %s from %s", source.name, source.checkpoint)
        sam, self.fingerprint = checkpoints.build(source)
        self.image_size: int = sam.image_size
        self.device = torch.device(_device(settings.device))
        log.info("exporting the mask decoder of %s", source.name)
        self.decoder = self._export(sam)
        self.backend = backends.choose(sam, self.device, settings)

    def prepare(self, rgb: NDArray[np.uint8]) -> Tensor:
        """Pixels (HxWx3, RGB) to the model's input (3xSxS, fp32, on the CPU)."""
        return prepare(rgb, self.image_size)

    def encode(self, images: Sequence[Tensor] | Tensor) -> list[Tensors]:
        """Encodes inputs, 3xSxS each.

        Returns:
            For each, fp32 tensors of the decoder's names in the stored layout: image_embed (tokens x C), high_res_1
            (tokens x 4 x C/4), high_res_0 (tokens x 16 x C/8).
        """
        return self.backend.encode(tuple(images))

    @property
    def arithmetic(self) -> str:
        """What beside the weights decides about the values of an embedding."""
        return f"{PREPROCESSING} {self.backend.precision}"

    def _export(self, sam: Any) -> DecoderBundle:
        decoder = sam.sam_mask_decoder
        config = DecoderConfig(
            model=self.source.name,
            fingerprint=self.fingerprint,
            image_size=self.image_size,
            mask_size=4 * sam.sam_image_embedding_size,
            dynamic_multimask=decoder.dynamic_multimask_via_stability,
            stability_delta=decoder.dynamic_multimask_stability_delta,
            stability_threshold=decoder.dynamic_multimask_stability_thresh,
        )
        return export.export_decoder(sam, config)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"--device {name}: torch sees no CUDA device; use --device cpu")
    return name
