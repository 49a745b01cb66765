"""Attention between a few prompt tokens and many image tokens, all projections on the prompt's side.

An attention's query and key projections only ever meet in q·k; folding the image side's projection into the few prompt
tokens leaves one product with the unprojected image. The same holds for values. It is sam2's `Attention` rearranged.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def tokens_to_image(attention: Any, queries: Tensor, image: Tensor, places: Tensor) -> Tensor:
    """Prompt tokens (NxJxC) attend to the image (NxTxC, keys are image + places of 1xTxC); NxJxC."""
    heads = attention.num_heads
    width = attention.internal_dim // heads
    # A bias of the keys adds the same to every logit of a query: no effect.
    rows = _spread(attention.q_proj(queries) * width**-0.5, heads) @ attention.k_proj.weight
    mixed: Tensor = _ToImage.apply(rows, image, places)
    values = F.linear(mixed, attention.v_proj.weight).unflatten(1, (heads, -1))
    own = (values * _blocks(heads, width, values.dtype, values.device)).sum(1)
    out: Tensor = attention.out_proj(own + attention.v_proj.bias)
    return out


def image_to_tokens(
    attention: Any, image: Tensor, places: Tensor, keys: Tensor, values: Tensor, bias: Tensor
) -> Tensor:
    """The image (queries are image + places) attends to the prompt's keys and values (NxJxC), logits + bias (NxJ)."""
    heads = attention.num_heads
    width = attention.internal_dim // heads
    rows = _spread(attention.k_proj(keys) * width**-0.5, heads)
    constant = rows @ attention.q_proj.bias + bias.repeat(1, heads)
    out = _spread(attention.v_proj(values), heads) @ attention.out_proj.weight.t()
    mixed: Tensor = _FromImage.apply(rows @ attention.q_proj.weight, constant, out, image, places, heads)
    return mixed + attention.out_proj.bias


def self_attention(attention: Any, x: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Among prompt tokens (NxJxC), logits + bias (NxJ) of the keys."""
    heads = attention.num_heads
    width = attention.internal_dim // heads
    query, key, value = (
        projected.unflatten(-1, (heads, width)).transpose(1, 2)
        for projected in (attention.q_proj(x), attention.k_proj(x), attention.v_proj(values))
    )
    logits = query @ key.transpose(2, 3) * width**-0.5 + bias[:, None, None]
    out: Tensor = attention.out_proj((logits.softmax(-1) @ value).transpose(1, 2).flatten(2))
    return out


def _blocks(heads: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 x heads x 1 x heads*width: 1 where a channel belongs to the head."""
    return torch.eye(heads, dtype=dtype, device=device).repeat_interleave(width, 1)[None, :, None]


def _spread(x: Tensor, heads: int) -> Tensor:
    """NxJxC to N x heads*J x C: each head's row keeps its own channels, the others are 0."""
    return (x[:, None] * _blocks(heads, x.shape[-1] // heads, x.dtype, x.device)).flatten(1, 2)


class _ToImage(torch.autograd.Function):
    """softmax over the image of rows·(image + places), times image; keeps only what its backward pass needs."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, image: Tensor, places: Tensor) -> Tensor:
        keys = image + places
        weights = torch.bmm(rows, keys.transpose(1, 2)).softmax(-1)
        ctx.save_for_backward(rows, image, keys, weights)
        return torch.bmm(weights, image)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, image, keys, weights = ctx.saved_tensors
        gradient = gradient.contiguous()
        by_logit = _softmax_backward(torch.bmm(gradient, image.transpose(1, 2)), weights, -1)
        by_image = torch.baddbmm(torch.bmm(by_logit.transpose(1, 2), rows), weights.transpose(1, 2), gradient)
        return torch.bmm(by_logit, keys), by_image, None


class _FromImage(torch.autograd.Function):
    """By image token and head: softmax over the head's rows of rows·(image + places) + bias, times out, summed."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, bias: Tensor, out: Tensor, image: Tensor, places: Tensor, heads: int) -> Tensor:
        queries = image + places
        logits = torch.baddbmm(bias[..., None], rows, queries.transpose(1, 2)).unflatten(1, (heads, -1))
        weights = logits.softmax(2)
        ctx.save_for_backward(rows, out, queries, weights)
        return torch.bmm(weights.flatten(1, 2).transpose(1, 2), out)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None, None]:
        rows, out, queries, weights = ctx.saved_tensors
        gradient = gradient.contiguous()
        by_weight = torch.bmm(out, gradient.transpose(1, 2)).view(weights.shape)
        by_logit = _softmax_backward(by_weight, weights, 2).flatten(1, 2)
        by_out = torch.bmm(weights.flatten(1, 2), gradient)
        by_image = torch.bmm(by_logit.transpose(1, 2), rows)
        return torch.bmm(by_logit, queries), by_logit.float().sum(-1).to(rows.dtype), by_out, by_image, None, None


def _softmax_backward(gradient: Tensor, weights: Tensor, axis: int) -> Tensor:
    out: Tensor = torch._softmax_backward_data(gradient, weights, axis, weights.dtype)
    return out
