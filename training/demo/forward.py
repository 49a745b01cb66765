"""The image encoder's forward pass in window order, for training: SAM 2.1's arithmetic, three times as fast on a CPU.

sam2's own modules hold the parameters. Compared with their forward: no copies between raster and windows (order.py),
plain matrix products instead of fused attention (whose backward pass in bf16 on a CPU took three quarters of a step),
1x1 convolutions as products, two of them without anything between as one.
tests/exactness/test_training_arithmetic.py compares both.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from training.demo.network import STRIDE, Network
from training.demo.order import CELL, order, unorder

Features = tuple[Tensor, Tensor, Tensor]
"""Image embedding BxTx256, and features of S/8 (BxTx4x64) and S/4 (BxTx16x32); T tokens in window order."""

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def encode(network: Network, rgb: Tensor) -> Features:
    """BxSxSx3 uint8 pictures to features, in the parameters' dtype."""
    trunk, neck, decoder = network.image_encoder.trunk, network.image_encoder.neck, network.sam_mask_decoder
    dtype, batch = network.no_mem_embed.dtype, len(rgb)
    mean, std = (torch.tensor(values, device=rgb.device) for values in (_MEAN, _STD))
    planes = ((rgb.float() - mean) / std).permute(0, 3, 1, 2).to(dtype)
    patches = trunk.patch_embed.proj(planes).permute(0, 2, 3, 1)
    side = CELL // 4  # tokens on a side of a cell
    x = order(patches, side) + order(_places(trunk, patches.shape[1]), side).to(dtype)
    levels = []
    for index, block in enumerate(trunk.blocks):
        if block.window_size == side:
            x = _block(block, x.flatten(0, 1)).unflatten(0, (batch, -1))
        elif block.window_size == 0:
            x = _block(block, x.flatten(1, 2)).unflatten(1, (x.shape[1], -1))
        else:
            x = _padded_block(block, x, network.size // CELL * side)
        side = side // 2 if block.q_stride else side
        if index in trunk.stage_ends:
            levels.append(x)
    laterals = [conv.conv for conv in neck.convs][::-1]
    top = _conv(levels[3], laterals[3])
    embed = (_conv(levels[2], laterals[2]) + top + network.no_mem_embed.flatten()).flatten(1, 2)
    tokens = (network.size // STRIDE) ** 2
    high_1 = _two_convs(levels[1], laterals[1], decoder.conv_s1).reshape(batch, tokens, 4, -1)
    high_0 = _two_convs(levels[0], laterals[0], decoder.conv_s0).reshape(batch, tokens, 16, -1)
    return embed, high_1, high_0


def _places(trunk: Any, side: int) -> Tensor:
    """1xHxWxC positional embedding. Bicubic resizing is linear, so it is done as two matrix products."""
    coarse, window = trunk.pos_embed.float(), trunk.pos_embed_window.float()
    count = coarse.shape[-1]
    identity = torch.eye(count, device=coarse.device).reshape(1, count, count, 1)
    weights = F.interpolate(identity, (side, 1), mode="bicubic")[0, :, :, 0].t()
    tiled = window.tile(1, 1, side // window.shape[2], side // window.shape[3])
    return (weights @ coarse @ weights.t() + tiled).permute(0, 2, 3, 1)


def _conv(x: Tensor, conv: Any) -> Tensor:
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def _two_convs(x: Tensor, first: Any, second: Any) -> Tensor:
    weight = second.weight.flatten(1)
    return F.linear(x, weight @ first.weight.flatten(1), weight @ first.bias + second.bias)


def _block(block: Any, x: Tensor) -> Tensor:
    """A block on NxLxC, N windows of L tokens in window order."""
    normed = block.norm1(x)
    shortcut = x
    if block.dim != block.dim_out:
        shortcut = block.proj(normed)
        if block.q_stride:
            shortcut = pool4(shortcut)
    x = shortcut + _attention(block.attn, normed, pooled=bool(block.q_stride))
    return x + _mlp(block.mlp, block.norm2(x))


def _padded_block(block: Any, x: Tensor, side: int) -> Tensor:
    """A block whose windows are not those of the order: B x cells x tokens x C, side² tokens in all."""
    batch, cells, tokens, _ = x.shape
    window = block.window_size
    normed = block.norm1(x)
    shortcut = x
    if block.dim != block.dim_out:
        shortcut = pool4(block.proj(normed)) if block.q_stride else block.proj(normed)
    padding = -side % window
    windows = (side + padding) // window
    padded = F.pad(unorder(normed, side, side, int(tokens**0.5)), (0, 0, 0, padding, 0, padding))
    parts = padded.reshape(batch, windows, window, windows, window, -1).transpose(2, 3)
    if block.q_stride:
        parts = parts.reshape(-1, window // 2, 2, window // 2, 2, normed.shape[-1]).transpose(2, 3)
        side, window, tokens = side // 2, window // 2, tokens // 4
    attended = _attention(block.attn, parts.reshape(batch * windows**2, -1, normed.shape[-1]), bool(block.q_stride))
    raster = attended.reshape(batch, windows, windows, window, window, -1).transpose(2, 3)
    raster = raster.reshape(batch, windows * window, windows * window, -1)[:, :side, :side]
    x = shortcut + order(raster, int(tokens**0.5)).reshape(batch, cells, tokens, -1)
    return x + _mlp(block.mlp, block.norm2(x))


def _attention(attention: Any, x: Tensor, pooled: bool) -> Tensor:
    """NxLxC; pooled: the queries are the maximum of each four tokens."""
    query, key, value = attention.qkv(x).chunk(3, -1)
    if pooled:
        query = pool4(query)
    query = query * (query.shape[-1] // attention.num_heads) ** -0.5
    query, key, value = (_heads(part, attention.num_heads) for part in (query, key, value))
    attended = torch.bmm(torch.bmm(query, key.transpose(1, 2)).softmax(-1), value)
    merged = attended.unflatten(0, (-1, attention.num_heads)).transpose(1, 2).flatten(2)
    projected: Tensor = attention.proj(merged)
    return projected


def _heads(x: Tensor, heads: int) -> Tensor:
    """NxLxC to (N*heads) x L x C/heads."""
    return x if heads == 1 else x.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)


def _mlp(mlp: Any, x: Tensor) -> Tensor:
    out: Tensor = mlp.layers[1](F.gelu(mlp.layers[0](x)))
    return out


class _Pool4(torch.autograd.Function):
    """Maximum of each four consecutive tokens; where several are largest, each takes the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        quarters = x.unflatten(-2, (-1, 4))
        upper = torch.maximum(quarters[..., 0, :], quarters[..., 1, :])
        largest = torch.maximum(upper, torch.maximum(quarters[..., 2, :], quarters[..., 3, :]))
        ctx.save_for_backward(x, largest)
        return largest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, largest = ctx.saved_tensors
        chosen = x.unflatten(-2, (-1, 4)) == largest[..., None, :]
        return (chosen.to(gradient.dtype) * gradient[..., None, :]).view(x.shape)


def pool4(x: Tensor) -> Tensor:
    """... x L x C to ... x L/4 x C: the maximum of each four consecutive tokens."""
    pooled: Tensor = _Pool4.apply(x)
    return pooled
