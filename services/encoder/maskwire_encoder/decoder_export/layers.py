"""Layers of SAM 2's mask decoder, added to a graph."""

import math
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from maskwire_encoder.decoder_export.onnx_graph import Graph


def array(tensor: Tensor) -> NDArray[np.float32]:
    return cast(NDArray[np.float32], tensor.detach().cpu().float().numpy())


def linear(graph: Graph, layer: nn.Linear, value: str) -> str:
    return graph.add("Gemm", value, array(layer.weight).T, array(layer.bias))


def norm(graph: Graph, norm: Any, value: str) -> str:
    """`nn.LayerNorm`, or sam2's LayerNorm2d over rows of channels."""
    return graph.add("LayerNormalization", value, array(norm.weight), array(norm.bias), axis=-1, epsilon=norm.eps)


def mlp(graph: Graph, mlp: Any, value: str) -> str:
    """`sam2.modeling.sam2_utils.MLP`, or a single linear layer."""
    if isinstance(mlp, nn.Linear):
        return linear(graph, mlp, value)
    if not isinstance(mlp.act, nn.ReLU):
        raise ValueError(f"cannot export an MLP with {type(mlp.act).__name__}; SAM 2's have ReLU")
    for layer in mlp.layers[:-1]:
        value = graph.add("Relu", linear(graph, layer, value))
    value = linear(graph, mlp.layers[-1], value)
    return graph.add("Sigmoid", value) if mlp.sigmoid_output else value


def split(graph: Graph, value: str, heads: int, transposed: bool = False) -> str:
    """(N, heads * D) to (heads, N, D), or to (heads, D, N)."""
    perm = [1, 2, 0] if transposed else [1, 0, 2]
    return graph.add("Transpose", graph.reshape(value, 0, heads, -1), perm=perm)


def join(graph: Graph, value: str, channels: int) -> str:
    """(heads, N, D) to (N, heads * D)."""
    return graph.reshape(graph.add("Transpose", value, perm=[1, 0, 2]), -1, channels)


def scale(attention: Any) -> np.float32:
    return np.float32(1 / math.sqrt(attention.internal_dim // attention.num_heads))


def attend(graph: Graph, attention: Any, q: str, keys: str, values: str) -> str:
    """`sam2.modeling.sam.transformer.Attention` on what is projected and split; keys as (heads, D, N)."""
    weights = graph.add("Softmax", graph.add("MatMul", graph.add("Mul", q, scale(attention)), keys), axis=-1)
    return linear(graph, attention.out_proj, join(graph, graph.add("MatMul", weights, values), attention.internal_dim))


def ask(graph: Graph, attention: Any, queries: str, keys: str, values: str) -> str:
    """The same on rows of channels."""
    heads = attention.num_heads
    return attend(
        graph,
        attention,
        split(graph, linear(graph, attention.q_proj, queries), heads),
        split(graph, linear(graph, attention.k_proj, keys), heads, transposed=True),
        split(graph, linear(graph, attention.v_proj, values), heads),
    )


def by_head(attention: Any, layer: nn.Linear) -> NDArray[np.float32]:
    """Weights of a projection as (heads, D, channels in)."""
    return array(layer.weight).reshape(attention.num_heads, -1, layer.in_features)


def ask_folded(graph: Graph, attention: Any, prompt: str, keys: str, values: str) -> str:
    """Prompt tokens ask image tokens, which are multiplied as they are with a row for each head and prompt token."""
    heads, channels = attention.num_heads, attention.k_proj.in_features
    # The keys' bias would add the same to all of a row: softmax does not see it.
    q = graph.add("Mul", linear(graph, attention.q_proj, prompt), scale(attention))
    rows = graph.add("MatMul", split(graph, q, heads), by_head(attention, attention.k_proj))
    scores = graph.add("Gemm", graph.reshape(rows, -1, channels), keys, transB=1)
    seen = graph.reshape(graph.add("MatMul", graph.add("Softmax", scores, axis=-1), values), heads, -1, channels)
    answers = graph.add("MatMul", seen, by_head(attention, attention.v_proj).transpose(0, 2, 1))
    answers = graph.add("Add", join(graph, answers, attention.internal_dim), array(attention.v_proj.bias))
    return linear(graph, attention.out_proj, answers)


def answer_folded(graph: Graph, attention: Any, image: str, keys: str, values: str, onto: str, tokens: int) -> str:
    """Image tokens ask prompt tokens likewise; `onto` with the answers added.

    Args:
        graph: To which it is added.
        attention: The attention.
        image: Image tokens; empty for the input `queries`, their projections. Then each row is one head's, with zeros
            for the others.
        keys: Prompt tokens with their positions.
        values: Prompt tokens.
        onto: Image tokens.
        tokens: Number of image tokens.
    """
    heads, channels = attention.num_heads, attention.out_proj.out_features
    k = graph.add("Mul", linear(graph, attention.k_proj, keys), scale(attention))
    if image:
        k = split(graph, k, heads)
        rows = graph.reshape(graph.add("MatMul", k, by_head(attention, attention.q_proj)), -1, channels)
        offsets = graph.add("MatMul", k, array(attention.q_proj.bias).reshape(heads, -1, 1))
        scores = graph.add("Gemm", rows, image, graph.reshape(offsets, -1, 1), transB=1)
    else:
        depth = attention.internal_dim // heads
        of_head = np.repeat(np.eye(heads, dtype=np.float32), depth, axis=1)[:, None]
        rows = graph.reshape(graph.add("Mul", graph.reshape(k, 1, -1, heads * depth), of_head), -1, heads * depth)
        scores = graph.add("Gemm", rows, "queries", transB=1)
    # A softmax over the few prompt tokens. Along the middle axis its steps are operations on long rows.
    scores = graph.reshape(scores, heads, -1, tokens)
    weights = graph.add("Exp", graph.add("Sub", scores, graph.add("ReduceMax", scores, np.array([1]))))
    weights = graph.add("Div", weights, graph.add("ReduceSum", weights, np.array([1])))
    # The weights of a head sum to 1, so that each head brings its share of the bias.
    out = array(attention.out_proj.weight).T.reshape(heads, -1, channels)
    share = array(attention.out_proj.bias) / np.float32(heads)
    v = split(graph, linear(graph, attention.v_proj, values), heads)
    answers = graph.reshape(graph.add("Add", graph.add("MatMul", v, out), share), -1, channels)
    return graph.add("Gemm", graph.reshape(weights, -1, tokens), answers, onto, transA=1)
