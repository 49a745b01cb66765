"""Layers of SAM 2's mask decoder, added to an ONNX graph; see `export` for what is rearranged and why.

Image tokens and prompt tokens are matrices of N rows and C channels; attention heads come first: (heads, N, D).
"""

import math
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from maskwire_encoder.decoder_export.onnx_graph import Graph


def array(tensor: Tensor) -> NDArray[np.float32]:
    """A tensor as a contiguous fp32 NumPy array."""
    return cast(NDArray[np.float32], tensor.detach().cpu().float().contiguous().numpy())


def linear(graph: Graph, layer: nn.Linear, value: str) -> str:
    """Adds a linear layer on (N, C)."""
    return graph.add("Gemm", value, array(layer.weight).T, array(layer.bias))


def norm(graph: Graph, layer: Any, value: str) -> str:
    """Adds an `nn.LayerNorm`, or sam2's LayerNorm2d, over the channels of (..., C)."""
    return graph.add("LayerNormalization", value, array(layer.weight), array(layer.bias), axis=-1, epsilon=layer.eps)


def mlp(graph: Graph, layer: Any, value: str) -> str:
    """Adds a `sam2.modeling.sam2_utils.MLP`, or a single linear layer."""
    if isinstance(layer, nn.Linear):
        return linear(graph, layer, value)
    if not isinstance(layer.act, nn.ReLU):
        raise ValueError(f"cannot export an MLP with {type(layer.act).__name__}; SAM 2's have ReLU")
    for part in layer.layers[:-1]:
        value = graph.add("Relu", linear(graph, part, value))
    value = linear(graph, layer.layers[-1], value)
    return graph.add("Sigmoid", value) if layer.sigmoid_output else value


def split_heads(graph: Graph, value: str, heads: int, transposed: bool = False) -> str:
    """(N, heads * D) to (heads, N, D), or to (heads, D, N) if `transposed`."""
    perm = [1, 2, 0] if transposed else [1, 0, 2]
    return graph.add("Transpose", graph.reshape(value, 0, heads, -1), perm=perm)


def join_heads(graph: Graph, value: str, channels: int) -> str:
    """(heads, N, D) to (N, heads * D)."""
    return graph.reshape(graph.add("Transpose", value, perm=[1, 0, 2]), -1, channels)


def scale(attention: Any) -> np.float32:
    """The factor of an attention's scores, 1 / sqrt(D)."""
    return np.float32(1 / math.sqrt(attention.internal_dim // attention.num_heads))


def attend(graph: Graph, attention: Any, q: str, k: str, v: str) -> str:
    """Adds attention without its input projections.

    Args:
        graph: The graph.
        attention: A `sam2.modeling.sam.transformer.Attention`.
        q: Projected queries (heads, Q, D), not scaled yet.
        k: Projected keys (heads, D, N).
        v: Projected values (heads, N, D).

    Returns:
        (Q, C).
    """
    weights = graph.add("Softmax", graph.add("MatMul", graph.add("Mul", q, scale(attention)), k), axis=-1)
    seen = join_heads(graph, graph.add("MatMul", weights, v), attention.internal_dim)
    return linear(graph, attention.out_proj, seen)


def attention_layer(graph: Graph, attention: Any, queries: str, keys: str, values: str) -> str:
    """Adds a whole `sam2.modeling.sam.transformer.Attention` on rows of channels; (Q, C) for queries (Q, C)."""
    heads = attention.num_heads
    return attend(
        graph,
        attention,
        split_heads(graph, linear(graph, attention.q_proj, queries), heads),
        split_heads(graph, linear(graph, attention.k_proj, keys), heads, transposed=True),
        split_heads(graph, linear(graph, attention.v_proj, values), heads),
    )


def _by_head(attention: Any, layer: nn.Linear) -> NDArray[np.float32]:
    """The weights of a projection as (heads, D, channels in)."""
    return array(layer.weight).reshape(attention.num_heads, -1, layer.in_features)


def folded_token_to_image(graph: Graph, attention: Any, prompt: str, keys: str, values: str) -> str:
    """Adds attention from prompt tokens to image tokens, whose projections are folded into the prompt tokens.

    (Wq x) . (Wk y) = (Wk^T Wq x) . y, so that the image tokens y are multiplied as they are, with one row for each head
    and prompt token.

    Args:
        graph: The graph.
        attention: A `sam2.modeling.sam.transformer.Attention`.
        prompt: Prompt tokens with their positions (T, C).
        keys: Image tokens with their positions (N, C).
        values: Image tokens (N, C).

    Returns:
        (T, C).
    """
    heads, channels = attention.num_heads, attention.k_proj.in_features
    # The bias of keys is left out: it adds the same to all scores of a row, which softmax ignores.
    q = graph.add("Mul", linear(graph, attention.q_proj, prompt), scale(attention))
    rows = graph.add("MatMul", split_heads(graph, q, heads), _by_head(attention, attention.k_proj))
    scores = graph.add("Gemm", graph.reshape(rows, -1, channels), keys, transB=1)
    seen = graph.reshape(graph.add("MatMul", graph.add("Softmax", scores, axis=-1), values), heads, -1, channels)
    projected = graph.add("MatMul", seen, _by_head(attention, attention.v_proj).transpose(0, 2, 1))
    projected = join_heads(graph, projected, attention.internal_dim)
    return linear(graph, attention.out_proj, graph.add("Add", projected, array(attention.v_proj.bias)))


def folded_image_to_token(
    graph: Graph, attention: Any, queries: str, keys: str, values: str, onto: str, tokens: int
) -> str:
    """Adds attention from image tokens to prompt tokens, folded likewise, and adds its result to the image tokens.

    Args:
        graph: The graph.
        attention: A `sam2.modeling.sam.transformer.Attention`.
        queries: Image tokens with their positions (N, C); empty to use the graph's input `queries`, which are their
            projections.
        keys: Prompt tokens with their positions (T, C).
        values: Prompt tokens (T, C).
        onto: Image tokens (N, C).
        tokens: N.

    Returns:
        (N, C).
    """
    heads, channels = attention.num_heads, attention.out_proj.out_features
    k = graph.add("Mul", linear(graph, attention.k_proj, keys), scale(attention))
    if queries:
        k = split_heads(graph, k, heads)
        rows = graph.reshape(graph.add("MatMul", k, _by_head(attention, attention.q_proj)), -1, channels)
        offsets = graph.add("MatMul", k, array(attention.q_proj.bias).reshape(heads, -1, 1))
        scores = graph.add("Gemm", rows, queries, graph.reshape(offsets, -1, 1), transB=1)
    else:
        # One product for all heads: a row has the channels of one head, and zeros for the others.
        depth = attention.internal_dim // heads
        of_head = np.repeat(np.eye(heads, dtype=np.float32), depth, axis=1)[:, None]
        rows = graph.reshape(graph.add("Mul", graph.reshape(k, 1, -1, heads * depth), of_head), -1, heads * depth)
        scores = graph.add("Gemm", rows, "queries", transB=1)
    # Softmax over the few prompt tokens; along the middle axis, its steps are operations on long rows.
    scores = graph.reshape(scores, heads, -1, tokens)
    weights = graph.add("Exp", graph.add("Sub", scores, graph.add("ReduceMax", scores, np.array([1]))))
    weights = graph.add("Div", weights, graph.add("ReduceSum", weights, np.array([1])))
    # The weights of a head sum to 1, so that a share of the output bias can be added to each head's values.
    out = array(attention.out_proj.weight).T.reshape(heads, -1, channels)
    share = array(attention.out_proj.bias) / np.float32(heads)
    v = split_heads(graph, linear(graph, attention.v_proj, values), heads)
    projected = graph.reshape(graph.add("Add", graph.add("MatMul", v, out), share), -1, channels)
    return graph.add("Gemm", graph.reshape(weights, -1, tokens), projected, onto, transA=1)
