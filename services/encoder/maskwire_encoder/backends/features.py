"""SAM 2's image encoder as one module, from the model's input to the stored layout."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from maskwire_encoder.decoder_export.export import to_patches

NAMES = ("image_embed", "high_res_1", "high_res_0")
"""Names of the tensors of an embedding, in the order in which `ImageFeatures` returns them."""


class ImageFeatures(nn.Module):
    """`SAM2Base.forward_image`, without what only video needs, returning tensors in the stored layout.

    Position encodings are left out, because only memory attention reads them.

    Args:
        sam: A `sam2.modeling.sam2_base.SAM2Base`, whose weights are shared.
    """

    def __init__(self, sam: Any) -> None:
        super().__init__()
        encoder = sam.image_encoder
        self.trunk = encoder.trunk
        self.neck = encoder.neck
        self.neck.position_encoding = _NoEncoding()
        self.scalp: int = encoder.scalp
        self.conv_s0 = sam.sam_mask_decoder.conv_s0
        self.conv_s1 = sam.sam_mask_decoder.conv_s1
        no_mem_embed = sam.no_mem_embed.detach().reshape(1, -1, 1, 1)
        added = no_mem_embed if sam.directly_add_no_mem_embed else torch.zeros_like(no_mem_embed)
        self.no_mem_embed = nn.Parameter(added, requires_grad=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encodes a batch.

        Args:
            images: Bx3xSxS, as `preprocess` returns them.

        Returns:
            image_embed (B x tokens x C), high_res_1 (B x tokens x 4 x C/4), high_res_0 (B x tokens x 16 x C/8).
        """
        levels, _ = self.neck(self.trunk(images))
        high_res_0, high_res_1, embed = levels[: len(levels) - self.scalp]
        return (
            to_patches(embed + self.no_mem_embed, 1)[:, :, 0],
            to_patches(self.conv_s1(high_res_1), 2),
            to_patches(self.conv_s0(high_res_0), 4),
        )


class _NoEncoding(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.new_zeros(())


def from_patches(patches: Tensor, side: int) -> Tensor:
    """The inverse of `to_patches`.

    Args:
        patches: B x side^2 x patch^2 x C.
        side: Image tokens along one side.

    Returns:
        BxCx(side * patch)x(side * patch).
    """
    batch, _, pixels, channels = patches.shape
    steps = int(math.log2(pixels)) // 2
    split = patches.reshape(batch, side, side, *[2] * (2 * steps), channels)
    rows = [3 + 2 * step for step in range(steps)]
    columns = [axis + 1 for axis in rows]
    size = side * 2**steps
    return split.permute(0, 3 + 2 * steps, 1, *rows, 2, *columns).reshape(batch, channels, size, size)
