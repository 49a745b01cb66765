"""Exports a SAM 2 model's prompt encoder and mask decoder as ONNX graphs with few multiplications and transpositions.

The graphs compute what `sam2.modeling.sam` does (PromptEncoder, TwoWayTransformer, MaskDecoder.predict_masks), exact up
to rounding, but rearranged:

- Image tokens are the rows of a matrix. A 2x2 stride-2 (transposed) convolution is one matrix product, and
  high-resolution features are added in patch order, so that only the finished masks are transposed.
- What depends on the image alone is computed once per image: the first layer's projections of image tokens, and biases
  that would be added for every prompt.
- The other projections of image tokens are folded into the few prompt tokens, one head at a time:
  (Wq x) . (Wk y) = x . (Wq^T Wk y). For many prompt tokens the plain form is cheaper.
- Only the masks that are returned are computed.
- The positions of image tokens are computed from the few numbers that they come from, once when a graph is loaded: a
  table of them would be a third of what browsers download to decode at 1024 px.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from maskwire_core.models.decoder_bundle import BEST, DecoderBundle, DecoderConfig
from maskwire_core.models.graph_archive import OnnxGraph
from numpy.typing import NDArray
from torch import Tensor

from maskwire_encoder.decoder_export.layers import (
    array,
    attend,
    attention_layer,
    folded_image_to_token,
    folded_token_to_image,
    linear,
    mlp,
    norm,
    split_heads,
)
from maskwire_encoder.decoder_export.onnx_graph import Graph, Shape
from maskwire_encoder.transform.basis import Basis


def to_patches(features: Tensor, patch: int) -> Tensor:
    """Rearranges a feature map into the order in which the mask decoder's upscaling produces pixels.

    Args:
        features: BxCxHxW.
        patch: Pixels along one side of an image token at this resolution: 1, 2 or 4.

    Returns:
        B x (H/patch * W/patch) x patch^2 x C. Within a token, pixels are in the order in which stacked 2x2 transposed
        convolutions emit them: the coarse step's (row, column) before the fine step's.
    """
    batch, channels, height, width = features.shape
    rows, columns = height // patch, width // patch
    steps = int(math.log2(patch))
    split = features.reshape(batch, channels, rows, *[2] * steps, columns, *[2] * steps)
    first_row, first_column = 3, 4 + steps
    order = [axis for step in range(steps) for axis in (first_row + step, first_column + step)]
    return split.permute(0, 2, 3 + steps, *order, 1).reshape(batch, rows * columns, patch * patch, channels)


def export_decoder(model: Any, config: DecoderConfig, bases: Mapping[str, Basis] | None = None) -> DecoderBundle:
    """Exports a model's prompt encoder and mask decoder.

    Args:
        model: A `sam2.modeling.sam2_base.SAM2Base` in fp32.
        config: The model's configuration.
        bases: The transform of embeddings that are stored as klt, by the name of each tensor; None if none are.

    Returns:
        The bundle; the same weights give the same bytes.

    Raises:
        ValueError: The model has layers that cannot be exported.
    """
    exporter = DecoderExporter(model)
    graphs = exporter.decoder_graphs()
    if bases is not None:
        graphs["image_klt"] = exporter.image_of_planes(bases)
    return DecoderBundle(config, graphs, exporter.weights)


class DecoderExporter:
    """Builds graphs for an image of N = h x w tokens of C channels and T prompt tokens.

    These values are passed from graph to graph: tokens (N, C), the image tokens with the dense prompt embedding added;
    keys (heads, D, N), values (heads, N, D) and queries (N, heads * D), their projections in the first layer; fine_1
    (N, 4, C/4) and fine_0 (N, 16, C/8), the high-resolution features in patch order.

    Attributes:
        weights: External constants of all graphs by name.
    """

    def __init__(self, model: Any) -> None:
        self.prompts, self.decoder = model.sam_prompt_encoder, model.sam_mask_decoder
        if not self.decoder.use_high_res_features:
            raise ValueError("this SAM 2 configuration has no high-resolution features; Maskwire needs them")
        self.size: int = model.image_size
        self.side: int = model.sam_image_embedding_size
        self.no_mask = array(self.prompts.no_mask_embed.weight)
        self.weights: dict[str, NDArray[Any]] = {}
        tokens, channels = self.side**2, self.no_mask.shape[1]
        layer = self.decoder.transformer.layers[0].cross_attn_token_to_image
        heads, depth = layer.num_heads, layer.internal_dim // layer.num_heads
        self._shared: dict[str, Shape] = {
            "tokens": ("float32", (tokens, channels)),
            "keys": ("float32", (heads, depth, tokens)),
            "values": ("float32", (heads, tokens, depth)),
            "queries": ("float32", (tokens, heads * depth)),
            "fine_1": ("float32", (tokens, 4, channels // 4)),
            "fine_0": ("float32", (tokens, 16, channels // 8)),
        }

    def decoder_graphs(self) -> dict[str, OnnxGraph]:
        """Returns the graphs of a `DecoderBundle`, by name."""
        return {
            "image_fp32": self.image("float32"),
            "image_fp16": self.image("float16"),
            "mask": self.mask(),
            "click": self.prompt(projected=True, folded=True),
            "refine": self.prompt(projected=False, folded=True),
            "plain": self.prompt(projected=False, folded=False),
        }

    def image(self, dtype: str) -> OnnxGraph:
        """Builds the graph that converts a stored embedding to what every prompt on it needs."""
        stored = {"image_embed": "tokens", "high_res_1": "fine_1", "high_res_0": "fine_0"}
        graph = Graph({name: (dtype, self._shared[value][1]) for name, value in stored.items()})
        embed, high_res_1, high_res_0 = (
            name if dtype == "float32" else graph.add("Cast", name, to=1) for name in stored
        )
        first, _, _, second, _ = self.decoder.output_upscaling
        layer = self.decoder.transformer.layers[0]
        tokens = graph.add("Add", embed, self.no_mask)
        positioned = graph.add("Add", tokens, self._positions(graph))
        attention = layer.cross_attn_token_to_image
        return self._finish(
            graph,
            self._shared,
            tokens=tokens,
            keys=split_heads(graph, linear(graph, attention.k_proj, positioned), attention.num_heads, transposed=True),
            values=split_heads(graph, linear(graph, attention.v_proj, tokens), attention.num_heads),
            queries=linear(graph, layer.cross_attn_image_to_token.q_proj, positioned),
            fine_1=graph.add("Add", high_res_1, array(first.bias)),
            fine_0=graph.add("Add", high_res_0, array(second.bias)),
        )

    def image_of_planes(self, bases: Mapping[str, Basis]) -> OnnxGraph:
        """Builds the graph that does the same for an embedding stored as klt: K x rows x columns, int16, for each
        tensor. The way back is linear and K is small, so that it is folded into the products and additions that follow.
        """
        graph = Graph({name: ("int16", (len(basis.back), self.side, self.side)) for name, basis in bases.items()})
        levels = {
            name: graph.reshape(graph.add("Cast", name, to=1), len(basis.back), -1) for name, basis in bases.items()
        }

        def turned_back(
            name: str, onto: NDArray[np.float32], weight: NDArray[np.float32] | None = None, positions: str = ""
        ) -> str:
            """Adds weight^T (mean + levels @ back + positions), plus what is `onto`."""
            mean, back = bases[name].mean, bases[name].back
            if weight is not None:
                mean, back = mean @ weight.T, back @ weight.T
            added: str | NDArray[np.float32] = mean + onto
            if positions:
                assert weight is not None
                added = graph.add("Gemm", positions, np.ascontiguousarray(weight.T), added)
            return graph.add("Gemm", levels[name], np.ascontiguousarray(back), added, transA=1)

        def projected(layer: Any, positions: str = "") -> str:
            weight = array(layer.weight)
            return turned_back("image_embed", self.no_mask[0] @ weight.T + array(layer.bias), weight, positions)

        first, _, _, second, _ = self.decoder.output_upscaling
        layer = self.decoder.transformer.layers[0]
        attention, positions = layer.cross_attn_token_to_image, self._positions(graph)
        fine_1 = turned_back("high_res_1", np.tile(array(first.bias), 4))
        fine_0 = turned_back("high_res_0", np.tile(array(second.bias), 16))
        return self._finish(
            graph,
            self._shared,
            tokens=turned_back("image_embed", self.no_mask[0]),
            keys=split_heads(graph, projected(attention.k_proj, positions), attention.num_heads, transposed=True),
            values=split_heads(graph, projected(attention.v_proj), attention.num_heads),
            queries=projected(layer.cross_attn_image_to_token.q_proj, positions),
            fine_1=graph.reshape(fine_1, *map(int, self._shared["fine_1"][1])),
            fine_0=graph.reshape(fine_0, *map(int, self._shared["fine_0"][1])),
        )

    def mask(self) -> OnnxGraph:
        """Builds the graph that replaces the dense embedding of "no mask" by that of a mask prompt (1, 4h, 4w)."""
        graph = Graph({"tokens": self._shared["tokens"], "mask": ("float32", (1, 4 * self.side, 4 * self.side))})
        with_mask = graph.add("Add", "tokens", self._dense_embedding(graph, "mask"))
        return self._finish(graph, {"with_mask": self._shared["tokens"]}, with_mask=with_mask)

    def _dense_embedding(self, graph: Graph, mask: str) -> str:
        """Adds a mask's dense embedding (N, C), less that of "no mask"."""
        first, norm_1, _, second, norm_2, _, last = self.prompts.mask_downscaling
        pixels = graph.reshape(mask, -1, self.side, 2, 2, self.side, 2, 2)
        pixels = graph.add("Transpose", pixels, perm=[0, 1, 4, 2, 5, 3, 6])
        for convolution, layer_norm in ((first, norm_1), (second, norm_2)):
            weight = array(convolution.weight).transpose(2, 3, 1, 0).reshape(-1, convolution.out_channels)
            pixels = graph.reshape(pixels, -1, len(weight))
            pixels = norm(graph, layer_norm, graph.add("Gemm", pixels, weight, array(convolution.bias)))
            pixels = graph.add("Gelu", pixels)
        weight = array(last.weight)[:, :, 0, 0].T
        return graph.add("Gemm", pixels, weight, array(last.bias) - self.no_mask[0])

    def prompt(self, projected: bool, folded: bool) -> OnnxGraph:
        """Builds a graph that decodes a prompt.

        Its inputs, beside those that depend on the image: points (P, 2), x and y in pixels of the model's input; labels
        (P,), -1 padding, 0 negative, 1 positive, 2 and 3 the corners of a box; masks (M,), the masks to compute, each 0
        to 4 (`BEST`). Its outputs: logits (M, 4h, 4w), predicted IoU of masks 0 to 3 (4,), and object score (1,).

        Args:
            projected: Whether the inputs `keys`, `values` and `queries` replace the first layer's projections of image
                tokens, which are valid without a mask prompt only.
            folded: Whether the other projections of image tokens are folded into the prompt tokens.
        """
        projections = () if projected else ("keys", "values", "queries")
        images = {name: described for name, described in self._shared.items() if name not in projections}
        prompts: dict[str, Shape] = {"points": ("float32", ("P", 2)), "labels": ("int64", ("P",))}
        graph = Graph({**images, **prompts, "masks": ("int64", ("M",))})
        decoder, transformer = self.decoder, self.decoder.transformer
        start = [decoder.iou_token, decoder.mask_tokens]
        if decoder.pred_obj_scores:
            start.insert(0, decoder.obj_score_token)
        outputs = np.concatenate([array(token.weight) for token in start])
        prompt = self._prompt_tokens(graph, outputs)
        hidden, tokens, positions = prompt, "tokens", self._positions(graph)
        token_to_image = folded_token_to_image if folded else attention_layer
        for index, layer in enumerate(transformer.layers):
            ready = projected and index == 0
            hidden = self._self_attention(graph, layer, hidden, prompt)
            queries = graph.add("Add", hidden, prompt)
            positioned = "" if ready else graph.add("Add", tokens, positions)
            attention = layer.cross_attn_token_to_image
            if ready:
                q = split_heads(graph, linear(graph, attention.q_proj, queries), attention.num_heads)
                seen = attend(graph, attention, q, "keys", "values")
            else:
                seen = token_to_image(graph, attention, queries, positioned, tokens)
            hidden = norm(graph, layer.norm2, graph.add("Add", hidden, seen))
            hidden = norm(graph, layer.norm3, graph.add("Add", hidden, mlp(graph, layer.mlp, hidden)))
            keys = graph.add("Add", hidden, prompt)
            attention = layer.cross_attn_image_to_token
            if folded:
                tokens = folded_image_to_token(graph, attention, positioned, keys, hidden, tokens, self.side**2)
            else:
                tokens = graph.add("Add", tokens, attention_layer(graph, attention, positioned, keys, hidden))
            tokens = norm(graph, layer.norm4, tokens)
        # From here on only the output tokens are read, not those of points and boxes.
        rows = (np.array([0]), np.array([len(outputs)]), np.array([-2]))
        hidden, prompt = (graph.add("Slice", value, *rows) for value in (hidden, prompt))
        positioned = graph.add("Add", tokens, positions)
        queries = graph.add("Add", hidden, prompt)
        seen = token_to_image(graph, transformer.final_attn_token_to_image, queries, positioned, tokens)
        hidden = norm(graph, transformer.norm_final_attn, graph.add("Add", hidden, seen))
        return self._heads(graph, hidden, tokens)

    def _prompt_tokens(self, graph: Graph, outputs: NDArray[np.float32]) -> str:
        """Adds the output tokens, followed by the embedding of each point (PromptEncoder._embed_points)."""
        scaled = graph.add("Div", graph.add("Add", "points", np.float32(0.5)), np.float32(self.size))
        positions = self._encoded(graph, graph.add("Sub", graph.add("Mul", scaled, np.float32(2)), np.float32(1)))
        real = graph.add("Cast", graph.add("GreaterOrEqual", "labels", np.int64(0)), to=1)
        positions = graph.add("Mul", positions, graph.add("Unsqueeze", real, np.array([-1])))
        kinds = [self.prompts.not_a_point_embed, *self.prompts.point_embeddings]
        table = np.concatenate([array(kind.weight) for kind in kinds])
        labels = graph.add("Gather", table, graph.add("Add", "labels", np.int64(1)), axis=0)
        return graph.add("Concat", outputs, graph.add("Add", positions, labels), axis=-2)

    def _positions(self, graph: Graph) -> str:
        """Adds the positions of image tokens (N, C)."""
        axis = (np.arange(self.side, dtype=np.float32) + np.float32(0.5)) / np.float32(self.side) * 2 - 1
        x, y = np.meshgrid(axis, axis)
        return self._encoded(graph, np.stack([x.ravel(), y.ravel()], axis=1))

    def _encoded(self, graph: Graph, places: str | NDArray[np.float32]) -> str:
        """Adds the encoding of places, x and y from -1 to 1 (PositionEmbeddingRandom)."""
        gaussian = array(self.prompts.pe_layer.positional_encoding_gaussian_matrix)
        angles = graph.add("Mul", graph.add("MatMul", places, gaussian), np.float32(2 * math.pi))
        return graph.add("Concat", graph.add("Sin", angles), graph.add("Cos", angles), axis=-1)

    @staticmethod
    def _self_attention(graph: Graph, layer: Any, hidden: str, prompt: str) -> str:
        """Adds the self-attention of the prompt tokens in a TwoWayAttentionBlock."""
        if layer.skip_first_layer_pe:
            hidden = attention_layer(graph, layer.self_attn, hidden, hidden, hidden)
        else:
            queries = graph.add("Add", hidden, prompt)
            hidden = graph.add("Add", hidden, attention_layer(graph, layer.self_attn, queries, queries, hidden))
        return norm(graph, layer.norm1, hidden)

    def _heads(self, graph: Graph, hidden: str, tokens: str) -> OnnxGraph:
        """Adds masks and scores, from the output tokens and the image tokens (MaskDecoder.predict_masks)."""
        decoder = self.decoder
        first = 1 if decoder.pred_obj_scores else 0

        def row(index: int) -> str:
            return graph.add("Gather", hidden, np.array([index]), axis=-2)

        iou = graph.reshape(mlp(graph, decoder.iou_prediction_head, row(first)), -1)
        score = graph.add("Identity", np.array([10], np.float32))
        if decoder.pred_obj_scores:
            score = graph.reshape(mlp(graph, decoder.pred_obj_score_head, row(0)), -1)
        heads = enumerate(decoder.output_hypernetworks_mlps)
        hyper = graph.add("Concat", *(mlp(graph, head, row(first + 1 + index)) for index, head in heads), axis=-2)
        candidates = graph.add("Slice", iou, np.array([1]), np.array([BEST]), np.array([-1]))
        best = graph.add("Add", graph.add("ArgMax", candidates, axis=-1), np.int64(1))
        wanted = graph.add("Gather", graph.add("Concat", np.arange(BEST), best, axis=0), "masks", axis=0)
        chosen = graph.add("Transpose", graph.add("Gather", hyper, wanted, axis=0), perm=[1, 0])

        coarse, coarse_norm, _, fine, _ = decoder.output_upscaling
        pixels = tokens
        for convolution, features in ((coarse, "fine_1"), (fine, "fine_0")):
            # The weights of a transposed convolution are (in, out, row, column); columns become (row, column, out).
            weight = array(convolution.weight).transpose(0, 2, 3, 1).reshape(convolution.in_channels, -1)
            onto = graph.reshape(features, -1, weight.shape[1])
            pixels = graph.add("Gemm", pixels, weight, onto)  # `image` has added the bias to the features
            pixels = graph.reshape(pixels, -1, convolution.out_channels)
            pixels = graph.add("Gelu", norm(graph, coarse_norm, pixels) if convolution is coarse else pixels)
        side = 4 * self.side
        logits = graph.add("MatMul", pixels, chosen)
        logits = graph.reshape(logits, self.side, self.side, 2, 2, 2, 2, -1)
        logits = graph.reshape(graph.add("Transpose", logits, perm=[6, 0, 2, 4, 1, 3, 5]), -1, side, side)
        outputs: dict[str, Shape] = {
            "logits": ("float32", ("M", side, side)),
            "iou": ("float32", (decoder.num_mask_tokens,)),
            "object_score": ("float32", (1,)),
        }
        more = self._more_outputs(graph, hidden)
        outputs |= {name: described for name, (described, _) in more.items()}
        values = {name: value for name, (_, value) in more.items()}
        return self._finish(graph, outputs, logits=logits, iou=iou, object_score=score, **values)

    def _more_outputs(self, graph: Graph, hidden: str) -> dict[str, tuple[Shape, str]]:
        """Adds what else a prompt's graph returns, from the output tokens: by name its shape and its value."""
        return {}

    def _finish(self, graph: Graph, outputs: dict[str, Shape], **values: str) -> OnnxGraph:
        self.weights.update(graph.weights)
        return graph.finish(outputs, **values)
