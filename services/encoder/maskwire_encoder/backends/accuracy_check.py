"""The accuracy check: whether a faster way of encoding gives the same masks as fp32, by the model's own decoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maskwire_encoder.backends.features import from_patches

LEAST_IOU = 0.999
"""Least mean IoU with the reference's masks that `Deviation.acceptable` accepts."""

Features = Sequence[Tensor]
"""image_embed, high_res_1 and high_res_0, as `ImageFeatures` returns them."""

_GRID = 3


@dataclass(frozen=True)
class Deviation:
    """How far the masks on some embeddings are from the reference's."""

    iou: float  # mean IoU of the masks, over all prompts and candidates
    logit: float  # largest difference of a mask logit
    finite: bool = True  # whether all embeddings and logits are finite

    @property
    def acceptable(self) -> bool:
        """Whether the masks are those of the reference."""
        return self.finite and self.iou >= LEAST_IOU


class AccuracyCheck:
    """Synthetic images, prompts, and the masks that the model gives for them in fp32.

    Args:
        sam: A `sam2.modeling.sam2_base.SAM2Base` in fp32 on `device`.
        features: Its `ImageFeatures`, on `device` too.
        device: Where the check runs.
        count: Number of images.

    Attributes:
        inputs: The images as model inputs: count x 3 x S x S, fp32.
    """

    def __init__(self, sam: Any, features: torch.nn.Module, device: torch.device, count: int = 3) -> None:
        self._decoder = ReferenceDecoder(sam)
        self.inputs = synthetic_images(count, sam.image_size).to(device)
        step = sam.image_size / _GRID
        ticks = torch.arange(_GRID, device=device) * step + step / 2
        first = torch.cartesian_prod(ticks, ticks)[:, None]
        # Each click of the grid alone, and together with a negative one beside it.
        second = (first + step / 3).clamp(max=sam.image_size - 1)
        self._points = torch.cat([first.expand(-1, 2, -1), torch.cat([first, second], 1)])
        single = torch.tensor([1, -1], device=device).expand(_GRID**2, 2)
        pair = torch.tensor([1, 0], device=device).expand(_GRID**2, 2)
        self._labels = torch.cat([single, pair]).int()
        with torch.inference_mode():
            self._expected = [self._decode(features(image[None]), 0) for image in self.inputs]

    @torch.inference_mode()
    def check(self, features: Features) -> Deviation:
        """Compares embeddings of a batch of `inputs`, repeated in order if the batch is larger.

        Args:
            features: As `ImageFeatures` returns them, in any precision.
        """
        ious, logit, all_finite = [], 0.0, all(bool(tensor.isfinite().all()) for tensor in features)
        for index in range(len(features[0])):
            expected, got = self._expected[index % len(self._expected)], self._decode(features, index)
            either = ((expected > 0) | (got > 0)).sum((-2, -1))
            both = ((expected > 0) & (got > 0)).sum((-2, -1))
            iou = torch.where(either > 0, both / either.clamp(min=1), torch.ones(()).to(both.device))
            finite = got.isfinite().all((-2, -1))
            all_finite = all_finite and bool(finite.all())
            ious.append(torch.where(finite, iou, torch.zeros_like(iou)).mean())
            logit = max(logit, float((got - expected).abs().max().nan_to_num(float("inf"))))
        return Deviation(float(torch.stack(ious).mean()), logit, all_finite)

    def _decode(self, features: Features, index: int) -> Tensor:
        """Mask logits on one image of a batch: prompts x 3 x S x S."""
        masks, _ = self._decoder([tensor[index : index + 1] for tensor in features], self._points, self._labels)
        return masks


class ReferenceDecoder:
    """sam2's own prompt encoder and mask decoder, on embeddings in the stored layout.

    Args:
        sam: A `sam2.modeling.sam2_base.SAM2Base` in fp32; its image encoder is not kept.
    """

    def __init__(self, sam: Any) -> None:
        self._prompt_encoder = sam.sam_prompt_encoder
        self._mask_decoder = sam.sam_mask_decoder
        self._side: int = sam.sam_image_embedding_size

    @torch.inference_mode()
    def __call__(self, features: Features, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Decodes prompts on one image.

        Args:
            features: As `ImageFeatures` returns them for one image, in any precision.
            points: NxPx2, in pixels of the model's input.
            labels: NxP, int32: 1 positive, 0 negative, -1 padding.

        Returns:
            Logits of the three candidates, Nx3xSxS, and their predicted IoU, Nx3.
        """
        embed, high_res_1, high_res_0 = (tensor.float() for tensor in features)
        sparse, dense = self._prompt_encoder(points=(points, labels), boxes=None, masks=None)
        masks, iou, _, _ = self._mask_decoder(
            image_embeddings=from_patches(embed[:, :, None], self._side),
            image_pe=self._prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=True,
            high_res_features=[from_patches(high_res_0, self._side), from_patches(high_res_1, self._side)],
        )
        return masks, iou


def synthetic_images(count: int, size: int, seed: int = 7) -> Tensor:
    """Model inputs with something to segment: ellipses on noise of several scales, the same for one seed.

    Returns:
        count x 3 x size x size, fp32, on the CPU.
    """
    random = torch.Generator().manual_seed(seed)
    canvas = torch.zeros(count, 3, size, size)
    for cells in (4, 16, 64):
        noise = torch.randn(count, 3, cells, cells, generator=random)
        canvas += F.interpolate(noise, (size, size), mode="bilinear") / 2
    ticks = torch.linspace(0, 1, size)
    for image in canvas:
        for _ in range(6):
            x, y, wide, high = torch.rand(4, generator=random)
            inside = ((ticks - x) / (0.05 + wide / 5)) ** 2 + ((ticks[:, None] - y) / (0.05 + high / 5)) ** 2 < 1
            image[:, inside] = torch.randn(3, 1, generator=random)
    return canvas.clamp(-2, 2)
