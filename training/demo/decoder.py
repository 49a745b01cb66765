"""The prompt encoder's and mask decoder's forward pass in window order, for training: SAM 2.1's arithmetic."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from training.demo.attention import image_to_tokens, self_attention, tokens_to_image
from training.demo.forward import Features
from training.demo.network import STRIDE, Network
from training.demo.order import order

PAD, EMPTY, BACKGROUND, FOREGROUND, CORNER_1, CORNER_2 = -1, -2, 0, 1, 2, 3
"""Labels of points, as sam2 has them; EMPTY: there is no token (prompts of one batch differ in length)."""

_OUT = 6  # tokens before the prompt's: object score, IoU, four masks


class Decoded(NamedTuple):
    """Logits Nx4x(S/4)² in window order, the first for unambiguous prompts; predicted IoU Nx4; object score Nx1; the
    pixels' features Nx(S/4)²x32, of which the logits are made.
    """

    logits: Tensor
    iou: Tensor
    object_score: Tensor
    pixels: Tensor


def places(network: Network) -> Tensor:
    """1xTx256: the positional code of the image's tokens."""
    side = network.size // STRIDE
    code = network.sam_prompt_encoder.pe_layer((side, side)).float().permute(1, 2, 0)[None]
    return order(code, 2).flatten(1, 2).to(network.no_mem_embed.dtype)


def decode(
    network: Network,
    features: Features,
    place: Tensor,
    points: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    has_mask: Tensor | None = None,
) -> Decoded:
    """Decodes N prompts, of which K = N/B refer to each of B pictures.

    Args:
        network: Holds the parameters.
        features: Features of the B pictures.
        place: Positional code of the image tokens, from `places(network)`.
        points: NxJx2, in pixels of the model's input.
        labels: NxJ.
        mask: Mask prompts as logits in window order, Nx(S/4)².
        has_mask: N booleans: the prompts that have a mask; the rows of `mask` of the others are ignored.
    """
    embed, high_1, high_0 = features
    decoder, prompter = network.sam_mask_decoder, network.sam_prompt_encoder
    (batch, count, channels), number = embed.shape, len(points)
    each = number // batch
    bias = torch.zeros(number, _OUT + points.shape[1] + 1, dtype=embed.dtype, device=embed.device)
    bias[:, _OUT:-1].masked_fill_(labels == EMPTY, -1e4)
    out = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([out.expand(number, -1, -1), _points(network, points, labels, embed.dtype)], 1)
    dense = prompter.no_mask_embed.weight
    if mask is not None and has_mask is not None:
        encoded = _mask(prompter.mask_downscaling, mask.to(embed.dtype))
        dense = torch.where(has_mask[:, None, None], encoded, dense).view(batch, each, count, channels)
    image = (embed[:, None] + dense).expand(batch, each, count, channels).reshape(number, count, channels)
    x = tokens
    for index, layer in enumerate(decoder.transformer.layers):
        if index == 0:
            x = self_attention(layer.self_attn, x, x, bias)
        else:
            x = x + self_attention(layer.self_attn, x + tokens, x, bias)
        x = layer.norm1(x)
        x = layer.norm2(x + tokens_to_image(layer.cross_attn_token_to_image, x + tokens, image, place))
        x = layer.norm3(x + layer.mlp.layers[1](F.relu(layer.mlp.layers[0](x))))
        update = image_to_tokens(layer.cross_attn_image_to_token, image, place, x + tokens, x, bias)
        image = layer.norm4(image + update)
    final = decoder.transformer.final_attn_token_to_image
    x = decoder.transformer.norm_final_attn(x + tokens_to_image(final, x + tokens, image, place))

    up_1, norm, _, up_2, _ = decoder.output_upscaling
    pixels = _up(image, up_1).view(batch, each, count, 4, -1)
    pixels = F.gelu(_norm(pixels + high_1[:, None], norm))
    pixels = _up(pixels, up_2).view(batch, each, count, 16, -1)
    pixels = F.gelu(pixels + high_0[:, None]).view(number, count * 16, -1)
    mixers = enumerate(decoder.output_hypernetworks_mlps, start=2)
    mixed = torch.stack([mlp(x[:, index]) for index, mlp in mixers], 1)
    logits = torch.bmm(pixels, mixed.transpose(1, 2)).transpose(1, 2)
    return Decoded(logits, decoder.iou_prediction_head(x[:, 1]), decoder.pred_obj_score_head(x[:, 0]), pixels)


def _points(network: Network, points: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """NxJ points and the padding point behind them: Nx(J+1)x256."""
    prompter = network.sam_prompt_encoder
    points = F.pad(points.float(), (0, 0, 0, 1))
    labels = F.pad(labels, (0, 1), value=PAD).clamp(min=PAD).long()
    code = prompter.pe_layer._pe_encoding((points + 0.5) / network.size).to(dtype)
    kinds = torch.cat([prompter.not_a_point_embed.weight, *(kind.weight for kind in prompter.point_embeddings)])
    return code * (labels != PAD).to(dtype)[..., None] + kinds[labels + 1]


def _mask(downscaling: Any, mask: Tensor) -> Tensor:
    """Nx(S/4)² logits to NxTx256; strided 2x2 convolutions as products."""
    conv_1, norm_1, _, conv_2, norm_2, _, conv_3 = downscaling
    x = mask.view(len(mask), -1, 4, 4)
    x = F.gelu(_norm(F.linear(x, conv_1.weight.flatten(1), conv_1.bias), norm_1))
    weight = conv_2.weight.permute(0, 2, 3, 1).flatten(1)
    x = F.gelu(_norm(F.linear(x.flatten(2), weight, conv_2.bias), norm_2))
    return F.linear(x, conv_3.weight.flatten(1), conv_3.bias)


def _up(x: Tensor, conv: Any) -> Tensor:
    """A 2x2 transposed convolution of stride 2: four consecutive tokens of each."""
    weight = conv.weight.permute(2, 3, 1, 0).flatten(0, 2)
    return F.linear(x, weight, conv.bias.repeat(4))


def _norm(x: Tensor, norm: Any) -> Tensor:
    """sam2's LayerNorm2d, channels last."""
    return F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)
