"""A SAM 2 model on a device: its image encoder, and its exported mask decoder."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from maskwire.pictures import Stretch
from maskwire_core.config import EncoderSettings
from maskwire_core.models.decoder_bundle import DecoderConfig
from maskwire_core.models.registry import ModelError
from maskwire_core.models.tracker_bundle import TrackerBundle
from maskwire_core.storage import codecs
from numpy.typing import NDArray
from torch import Tensor, nn

from maskwire_encoder.backends import selection
from maskwire_encoder.backends.accuracy_check import AccuracyCheck, ReferenceDecoder
from maskwire_encoder.backends.aot_cache import Forward, compile_cached
from maskwire_encoder.backends.cuda import SIZES, CudaBackend
from maskwire_encoder.backends.device import Tensors
from maskwire_encoder.backends.features import NAMES, ImageFeatures
from maskwire_encoder.backends.selection import Backend
from maskwire_encoder.checkpoints import loading
from maskwire_encoder.decoder_export.export import export_decoder
from maskwire_encoder.decoder_export.memory import export_tracker
from maskwire_encoder.image_input.preprocessing import FRAMES, PREPROCESSING
from maskwire_encoder.transform.basis import Transform
from maskwire_encoder.transform.kept import find_or_fit
from maskwire_encoder.transform.photographs import Photographs

log = logging.getLogger(__name__)

_LARGEST_CUDA_BATCH = 32


class Model:
    """A model that is ready to encode.

    Args:
        source: Where its configuration and weights come from.
        settings: The encoder's settings.

    Attributes:
        source: As given.
        fingerprint: Digest of its weights and configuration.
        image_size: Side of its square input in pixels.
        device: Where it runs.
        decoder: Its exported mask decoder.
        transform: What its embeddings pass through before they are stored as klt; None if they are not.
        store_codec: How embeddings are stored unless a caller asks otherwise, a key of `codecs.CODECS`.
        tracker: What follows objects through videos with it, exported; None if its weights know single images only.
        backend: What runs its image encoder.
        largest: Largest batch.
        rounds_to_fp16: Whether the device gives embeddings in fp16.

    Raises:
        ModelError: The model cannot be loaded, or not with these settings.
    """

    def __init__(self, source: loading.ModelSource, settings: EncoderSettings) -> None:
        self.source = source
        log.info("loading %s from %s", self.source.name, self.source.checkpoint)
        sam, self.fingerprint, has_memory = loading.build(self.source)
        self.image_size: int = sam.image_size
        self.device = torch.device(_device_name(settings.device))
        config = self._config(sam)
        self.tracker = self._export_tracker(sam, config) if has_memory else None
        self.transform = self._fit(sam, settings) if settings.store_codec == "klt" else None
        fits = settings.store_codec != "klt" or self.transform is not None
        self.store_codec = settings.store_codec if fits else "fp16"
        self.decoder = export_decoder(sam, config, self.transform.bases if self.transform is not None else None)
        self.backend: Backend
        if self.device.type == "cuda":
            if settings.backend == "openvino":
                raise ModelError("--backend openvino is for --device cpu")
            self.backend = self._start_cuda(sam.to(self.device), settings)
        else:
            self.backend = selection.choose(sam, settings, self.fingerprint)
        self.largest = self.backend.largest
        self.rounds_to_fp16 = self.device.type == "cuda" and settings.store_codec == "fp16"
        self._decoder = ReferenceDecoder(sam)

    def prepare(self, rgb: NDArray[np.uint8]) -> Tensor:
        """Converts pixels (HxWx3, RGB) to what `encode` takes: 3xSxS, fp32; on CUDA, the pixels themselves."""
        return self.backend.prepare(rgb)

    def encode(self, images: Sequence[Tensor] | Tensor) -> list[Tensors]:
        """Encodes a batch of images from `prepare`.

        Returns:
            For each image, tensors in the stored layout: image_embed (tokens x C), high_res_1 (tokens x 4 x C/4) and
            high_res_0 (tokens x 16 x C/8); fp32, or fp16 if the device has rounded them as they are stored.
        """
        return self.backend.encode(list(images))

    def to_store(self, tensors: Tensors, codec: str) -> Mapping[str, NDArray[Any]]:
        """Returns what `embedding.pack` takes for a codec: the tensors from `encode`, or for klt their planes.

        Raises:
            NotFinite: See `Transform.planes`.
        """
        return self.transform.planes(tensors) if codec == "klt" and self.transform is not None else tensors

    def verify(self, tensors: Tensors) -> None:
        """Checks that an embedding can be stored, and that the masks of a click on it are finite.

        Args:
            tensors: From `encode`.

        Raises:
            ModelError: There is NaN or infinity.
        """
        failed = f"{self.source.name} ({self.source.checkpoint}) fails on a synthetic image"
        try:
            for name, tensor in self.to_store(tensors, self.store_codec).items():
                codecs.encode(self.store_codec, name, tensor)
        except codecs.NotFinite as error:
            options = f"--precision {self.backend.precision.split()[0]} --store-codec {self.store_codec}"
            raise ModelError(
                f"{failed} with {options}: {error}; try --precision fp32 --store-codec fp32, or another checkpoint"
            ) from error
        features = [torch.from_numpy(tensors[name])[None].to(self.device) for name in NAMES]
        points = torch.full((1, 1, 2), self.image_size / 2, device=self.device)
        masks, iou = self._decoder(features, points, torch.ones(1, 1, dtype=torch.int32, device=self.device))
        if not (masks.isfinite().all() and iou.isfinite().all()):
            raise ModelError(
                f"{failed}: the masks of a click have logits or scores that are NaN or infinite; "
                "serve another checkpoint"
            )

    def arithmetic_of(self, stretch: Stretch, is_frame: bool) -> str:
        """Preprocessing and precision, on which an embedding's values depend beside the weights.

        Args:
            stretch: How samples of more than 8 bits are mapped to 8 bits.
            is_frame: Whether the image is resized as a frame of a video.
        """
        parts = [PREPROCESSING, self.backend.precision]
        return " ".join([*parts, *([stretch] if stretch != "auto" else []), *([FRAMES] if is_frame else [])])

    def _start_cuda(self, sam: Any, settings: EncoderSettings) -> CudaBackend:
        torch.cuda.set_per_process_memory_fraction(settings.device_memory, self.device)
        features = ImageFeatures(sam).eval().requires_grad_(False).to(self.device)
        largest = settings.max_batch or _LARGEST_CUDA_BATCH
        backend = CudaBackend(features, self.image_size, self.device, largest, half=settings.store_codec == "fp16")
        accuracy = AccuracyCheck(sam, features, self.device)

        def compile_as(module: nn.Module, precision: str) -> Forward:
            folder = settings.cache.expanduser() / "compiled"
            return compile_cached(module, accuracy.inputs, SIZES[-1], f"{self.fingerprint} {precision}", folder)

        backend.start(accuracy, settings.precision, compile_as if settings.compile else None)
        log.info("%s: %s, batches of up to %d", self.source.name, backend.precision, backend.largest)
        return backend

    def _fit(self, sam: Any, settings: EncoderSettings) -> Transform | None:
        features = ImageFeatures(sam.to(self.device)).eval().requires_grad_(False).to(self.device)
        folder = settings.cache.expanduser() / "transforms"
        pictures = Photographs(settings.fit_on, settings.max_image_pixels)
        fitted = find_or_fit(sam, features, self.fingerprint, pictures, settings.store_iou, folder)
        sam.cpu()  # from where it is exported
        if fitted.bases:
            log.info(
                "%s: embeddings are stored as klt in %.1f %% of the bytes of fp32, mean IoU %.4f with exact ones",
                self.source.name,
                100 * fitted.share,
                fitted.iou,
            )
            return fitted
        log.warning(
            "%s: embeddings are stored as fp16, since klt reaches a mean IoU of %.4f with exact ones in %.1f %% of the "
            "bytes of fp32; --store-iou asks for %g and two standard errors more, in 25 %%",
            self.source.name,
            fitted.iou,
            100 * fitted.share,
            settings.store_iou,
        )
        return None

    def _export_tracker(self, sam: Any, config: DecoderConfig) -> TrackerBundle | None:
        try:
            return export_tracker(sam, config)
        except ValueError as error:
            log.warning("%s serves single images only: %s", self.source.name, error)
            return None

    def _config(self, sam: Any) -> DecoderConfig:
        decoder: Any = sam.sam_mask_decoder
        return DecoderConfig(
            model=self.source.name,
            fingerprint=self.fingerprint,
            image_size=self.image_size,
            mask_size=4 * sam.sam_image_embedding_size,
            dynamic_multimask=decoder.dynamic_multimask_via_stability,
            stability_delta=decoder.dynamic_multimask_stability_delta,
            stability_threshold=decoder.dynamic_multimask_stability_thresh,
            everything=self.source.everything,
        )


def _device_name(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"--device {name}: torch sees no CUDA device; use --device cpu")
    return name
