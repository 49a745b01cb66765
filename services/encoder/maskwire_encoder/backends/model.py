"""A SAM 2 image encoder on a device, and the export of its decoder."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from maskwire_core.config import EncoderSettings
from maskwire_core.models.decoder_bundle import DecoderBundle, DecoderConfig
from maskwire_core.models.registry import ModelError
from maskwire_core.storage import codecs
from numpy.typing import NDArray
from torch import Tensor, nn

from maskwire_encoder.backends import selection
from maskwire_encoder.backends.accuracy_check import AccuracyCheck, Decoding
from maskwire_encoder.backends.aot_cache import Run, compiled
from maskwire_encoder.backends.cuda import SIZES, Accelerated
from maskwire_encoder.backends.features import NAMES, ImageFeatures
from maskwire_encoder.backends.selection import Backend
from maskwire_encoder.checkpoints import loading
from maskwire_encoder.decoder_export import export
from maskwire_encoder.image_input.preprocessing import PREPROCESSING

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
        largest: Most images in a batch.
    """

    def __init__(self, source: loading.ModelSource, settings: EncoderSettings) -> None:
        self.source = source
        log.info("loading %s from %s", self.source.name, self.source.checkpoint)
        sam, self.fingerprint = loading.build(self.source)
        self.image_size: int = sam.image_size
        self.device = torch.device(_device(settings.device))
        self.decoder = self._export(sam)
        self.backend: Backend
        if self.device.type == "cuda":
            if settings.backend == "openvino":
                raise ModelError("--backend openvino is for --device cpu")
            self.backend = self._accelerate(sam.to(self.device), settings)
        else:
            self.backend = selection.choose(sam, settings, self.fingerprint)
        self.largest = self.backend.largest
        self._decoding, self._codec = Decoding(sam), settings.store_codec

    def prepare(self, rgb: NDArray[np.uint8]) -> Tensor:
        """Pixels (HxWx3, RGB) to what `encode` takes: 3xSxS, fp32; for a CUDA device, the pixels themselves."""
        return self.backend.prepare(rgb)

    def encode(self, images: Sequence[Tensor] | Tensor) -> list[dict[str, NDArray[Any]]]:
        """Encodes what `prepare` made.

        Returns:
            For each image, tensors of the decoder's names in the stored layout: image_embed (tokens x C), high_res_1
            (tokens x 4 x C/4), high_res_0 (tokens x 16 x C/8); fp32, or fp16 where that is stored.
        """
        return self.backend.encode(tuple(images))

    def verify(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Checks the embedding of a made picture, and a click's masks on it: whether they are numbers, also as stored.

        Args:
            tensors: As `encode` gives them.

        Raises:
            ModelError: They are not.
        """
        try:
            for name, tensor in tensors.items():
                codecs.encode(self._codec, name, tensor)
        except codecs.NotFinite as error:
            options = f"--precision {self.backend.precision.split()[0]} --store-codec {self._codec}"
            raise ModelError(
                f"{self.source.name} ({self.source.checkpoint}) fails on a made picture with {options}: {error}; try "
                "--precision fp32 --store-codec fp32, or another checkpoint"
            ) from error
        features = [torch.from_numpy(tensors[name])[None].to(self.device) for name in NAMES]
        points = torch.full((1, 1, 2), self.image_size / 2, device=self.device)
        masks, iou = self._decoding(features, points, torch.ones(1, 1, dtype=torch.int32, device=self.device))
        if not (masks.isfinite().all() and iou.isfinite().all()):
            raise ModelError(
                f"{self.source.name} ({self.source.checkpoint}) fails on a made picture: the masks of a click have "
                "logits or scores that are NaN or infinite; serve another checkpoint"
            )

    @property
    def arithmetic(self) -> str:
        """What beside the weights decides about the values of an embedding."""
        return f"{PREPROCESSING} {self.backend.precision}"

    def _accelerate(self, sam: Any, settings: EncoderSettings) -> Accelerated:
        torch.cuda.set_per_process_memory_fraction(settings.device_memory, self.device)
        features = ImageFeatures(sam).eval().requires_grad_(False).to(self.device)
        accelerated = Accelerated(
            features, self.image_size, self.device, settings.max_batch or 32, half=settings.store_codec == "fp16"
        )
        accuracy = AccuracyCheck(sam, features, self.device)

        def compile_as(module: nn.Module, precision: str) -> Run:
            folder = settings.cache.expanduser() / "compiled"
            return compiled(module, accuracy.inputs, SIZES[-1], f"{self.fingerprint} {precision}", folder)

        accelerated.start(accuracy, settings.precision, compile_as if settings.compile else None)
        log.info("%s: %s, batches of up to %d", self.source.name, accelerated.precision, accelerated.largest)
        return accelerated

    def _export(self, sam: Any) -> DecoderBundle:
        decoder: Any = sam.sam_mask_decoder
        config = DecoderConfig(
            model=self.source.name,
            fingerprint=self.fingerprint,
            image_size=self.image_size,
            mask_size=4 * sam.sam_image_embedding_size,
            dynamic_multimask=decoder.dynamic_multimask_via_stability,
            stability_delta=decoder.dynamic_multimask_stability_delta,
            stability_threshold=decoder.dynamic_multimask_stability_thresh,
            everything=self.source.everything,
        )
        return export.export_decoder(sam, config)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"--device {name}: torch sees no CUDA device; use --device cpu")
    return name
