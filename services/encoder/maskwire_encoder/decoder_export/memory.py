"""Exports as ONNX graphs what `SAM2VideoPredictor` has beyond a single image: memory attention, memory encoder and
object pointers.

The graphs compute what `sam2.modeling.sam2_base.SAM2Base` does, exact up to rounding, and are rearranged like those of
`export`:

- What does not depend on an object is computed once per frame (`frame`): the first layer's attention among the frame's
  tokens, its queries to the memories, and the memory encoder's view of the frame.
- The projection of values moves behind the weighted sum, where it and the output projection are one product; memories
  are summed with their own 64 channels instead of 256.
- Rotary encodings are constants. Channels are sorted into even and odd ones, so that a rotation works on halves.
- The memory encoder's last block and the projection to 64 channels are one product.
"""

from typing import Any

import numpy as np
import torch
from maskwire_core.models.decoder_bundle import DecoderConfig
from maskwire_core.models.graph_archive import OnnxGraph
from maskwire_core.models.tracker_bundle import TrackerBundle, TrackerConfig
from numpy.typing import NDArray

from maskwire_encoder.decoder_export.export import DecoderExporter
from maskwire_encoder.decoder_export.layers import array, linear, mlp, norm
from maskwire_encoder.decoder_export.onnx_graph import Graph, Shape

_QUERIES = 512
"""Image tokens that ask the memories at once. At 1024 px there are 4096 tokens and about 28,700 memory tokens, so that
all attention weights at once would take 450 MiB."""

_SINGLE_HEAD_ERROR = (
    "this SAM 2 configuration's memory attention has several heads or positions that Maskwire cannot export"
)


def export_tracker(model: Any, config: DecoderConfig) -> TrackerBundle:
    """Exports a model's memory, and its prompt encoder and mask decoder with object pointers.

    Args:
        model: A `sam2.modeling.sam2_base.SAM2Base` in fp32, with the weights of its memory.
        config: The model's configuration as a mask decoder.

    Returns:
        The bundle; the same weights give the same bytes.

    Raises:
        ValueError: The model has layers that cannot be exported.
    """
    exporter = _TrackerExporter(model)
    graphs = exporter.decoder_graphs() | {
        "frame": exporter.frame(),
        "recall": exporter.recall(),
        "memorize": exporter.memorize(),
        "given_mask": exporter.given_mask(),
    }
    memory = TrackerConfig(
        decoder=config,
        memories=model.num_maskmem,
        memory_channels=model.mem_dim,
        pointers=model.max_obj_ptrs_in_encoder,
        signed_distances=model.use_signed_tpos_enc_to_obj_ptrs,
        past_pointers_only=model.only_obj_ptrs_in_the_past_for_eval,
        candidates_when_tracking=model.multimask_output_in_sam and model.multimask_output_for_tracking,
        candidates_when_prompted=model.multimask_output_in_sam,
        fewest_points_of_candidates=model.multimask_min_pt_num,
        most_points_of_candidates=model.multimask_max_pt_num,
        pointer_of_candidate=model.sam_mask_decoder.use_multimask_token_for_obj_ptr,
        no_object_pointer=tuple(array(model.no_obj_ptr)[0].tolist()),
    )
    return TrackerBundle(memory, graphs, exporter.weights)


class _TrackerExporter(DecoderExporter):
    """Builds graphs for frames of N = h x w tokens of C = 256 channels and memories of D = 64 channels.

    Beside what `DecoderExporter` passes from graph to graph: attended (N, C), the frame's tokens after the first
    layer's self-attention; queries_of_memory (N, C), their queries to the memories; seen (N, C), the frame as the
    memory encoder sees it.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        _check(model)
        self._model, self._attention, self._memory = model, model.memory_attention, model.memory_encoder
        self._tokens, self._channels = self.side**2, self.no_mask.shape[1]
        plane = torch.zeros(1, 1, self.side, self.side)
        self._sine = array(model.image_encoder.neck.position_encoding(plane)[0].flatten(1).T)
        self._memory_sine = array(self._memory.position_encoding(plane)[0].flatten(1).T)
        turns = self._attention.layers[0].self_attn.compute_cis(end_x=self.side, end_y=self.side).numpy()
        self._cosine, self._turn_sine = turns.real.astype(np.float32), turns.imag.astype(np.float32)
        # What a stored embedding has added to the frame's tokens; see `ImageFeatures`.
        self._no_memory = array(model.no_mem_embed).reshape(1, -1) * np.float32(model.directly_add_no_mem_embed)
        shape: Shape = ("float32", (self._tokens, self._channels))
        self._frame = dict.fromkeys(("attended", "queries_of_memory", "seen"), shape)

    def frame(self) -> OnnxGraph:
        """Builds the graph that converts a frame's `image_embed` (N, C, fp32) to what all its objects share."""
        graph = Graph({"image_embed": ("float32", (self._tokens, self._channels))})
        layer = self._attention.layers[0]
        shift = np.float32(0.1 if self._attention.pos_enc_at_input else 0) * self._sine - self._no_memory
        attended = self._attend_within(graph, layer, graph.add("Add", "image_embed", shift))
        normed = norm(graph, layer.norm2, attended)
        queries = self._turned(graph, layer.cross_attn_image.q_proj, normed, scaled=True)
        look = self._memory.pix_feat_proj
        weight = array(look.weight)[:, :, 0, 0]
        seen = graph.add("Gemm", "image_embed", weight.T, array(look.bias) - weight @ self._no_memory[0])
        return self._finish(graph, self._frame, attended=attended, queries_of_memory=queries, seen=seen)

    def recall(self) -> OnnxGraph:
        """Builds the graph of `_prepare_memory_conditioned_features`: a frame and an object's memories to image tokens
        without a mask prompt.

        Its inputs beside the frame's: memories (M, N, D) with their places (M,) in the table of temporal encodings;
        pointers (P, C) with their distances (P,), 1 being that of the farthest that may be remembered.
        """
        model, channels, depth = self._model, self._channels, self._model.mem_dim
        frame = {name: self._frame[name] for name in ("attended", "queries_of_memory")}
        remembered: dict[str, Shape] = {
            "memories": ("float32", ("M", self._tokens, depth)),
            "places": ("int64", ("M",)),
            "pointers": ("float32", ("P", channels)),
            "distances": ("float32", ("P",)),
        }
        graph = Graph({**frame, **remembered})
        when = graph.add("Gather", array(model.maskmem_tpos_enc).reshape(-1, 1, depth), "places", axis=0)
        placed = graph.add("Add", graph.add("Add", "memories", self._memory_sine), when)
        pointers = graph.reshape("pointers", -1, depth)  # a pointer is C / D tokens
        values = graph.add("Concat", graph.reshape("memories", -1, depth), pointers, axis=0)
        aged = self._aged_pointers(graph, pointers)
        hidden = "attended"
        for index, layer in enumerate(self._attention.layers):
            cross = layer.cross_attn_image
            queries = "queries_of_memory"
            if index:
                hidden = self._attend_within(graph, layer, hidden)
                queries = self._turned(graph, cross.q_proj, norm(graph, layer.norm2, hidden), scaled=True)
            # Pointers have no place in the frame, so that their keys are not turned.
            keys = graph.reshape(self._turned(graph, cross.k_proj, placed), -1, channels)
            keys = graph.add("Concat", keys, self._sorted_projection(graph, cross.k_proj, aged), axis=0)
            hidden = self._add_attention(graph, cross, hidden, queries, keys, values)
            inner = graph.add("Relu", linear(graph, layer.linear1, norm(graph, layer.norm3, hidden)))
            hidden = graph.add("Add", hidden, linear(graph, layer.linear2, inner))
        tokens = graph.add("Add", norm(graph, self._attention.norm, hidden), self.no_mask)
        return self._finish(graph, {"tokens": self._shared["tokens"]}, tokens=tokens)

    def memorize(self) -> OnnxGraph:
        """Builds the graph of `_encode_new_memory`: a mask on a frame to a memory (N, D), before it is rounded to bf16.

        Its inputs beside `seen`: logits (1, 1, 4h, 4w); binary (1,), 1 for a mask of which only the sign is remembered,
        as of prompted frames, else 0; object_score (1,).
        """
        low, depth = 4 * self.side, self._model.mem_dim
        inputs: dict[str, Shape] = {
            "seen": self._frame["seen"],
            "logits": ("float32", (1, 1, low, low)),
            "binary": ("float32", (1,)),
            "object_score": ("float32", (1,)),
        }
        graph = Graph(inputs)
        tokens = graph.add("Add", self._downsampled_mask(graph), "seen")
        out, bias = array(self._memory.out_proj.weight)[:, :, 0, 0], array(self._memory.out_proj.bias)
        *blocks, last = self._memory.fuser.layers
        for block in blocks:
            inner, weight, offset = self._fuser_block(graph, block, tokens)
            tokens = graph.add("Add", tokens, graph.add("Gemm", inner, weight.T, offset))
        inner, weight, offset = self._fuser_block(graph, last, tokens)
        kept = graph.add("Gemm", tokens, out.T, bias + out @ offset)
        memory = graph.add("Gemm", inner, (out @ weight).T, kept)
        if self._model.no_obj_embed_spatial is not None:
            gone = graph.add("Cast", graph.add("LessOrEqual", "object_score", np.float32(0)), to=1)
            memory = graph.add("Add", memory, graph.add("Mul", gone, array(self._model.no_obj_embed_spatial)))
        return self._finish(graph, {"memory": ("float32", (self._tokens, depth))}, memory=memory)

    def given_mask(self) -> OnnxGraph:
        """Builds the graph of a mask that is taken as it is: the frame's `tokens` and the mask (1, 1, S, S), 0 or 1, to
        tokens from which a prompt's graph gives the object's pointer (`_use_mask_as_output`)."""
        graph = Graph({"tokens": self._shared["tokens"], "given": ("float32", (1, 1, self.size, self.size))})
        small = self._convolution(graph, self._model.mask_downsample, "given")
        small = graph.reshape(small, 1, 4 * self.side, 4 * self.side)
        tokens = graph.add("Sub", "tokens", self._no_memory)
        with_mask = graph.add("Add", tokens, self._dense_embedding(graph, small))
        return self._finish(graph, {"with_mask": self._shared["tokens"]}, with_mask=with_mask)

    def _more_outputs(self, graph: Graph, hidden: str) -> dict[str, tuple[Shape, str]]:
        """Adds the pointers of masks 0 to 3 (4, C)."""
        first, count = int(self.decoder.pred_obj_scores) + 1, self.decoder.num_mask_tokens
        rows = graph.add("Slice", hidden, np.array([first]), np.array([first + count]), np.array([-2]))
        return {"pointers": (("float32", (count, self._channels)), mlp(graph, self._model.obj_ptr_proj, rows))}

    def _aged_pointers(self, graph: Graph, pointers: str) -> str:
        """Adds their temporal encoding to the tokens of pointers (P * C/D, D)."""
        model, channels, depth = self._model, self._channels, self._model.mem_dim
        if not model.add_tpos_enc_to_obj_ptrs:
            return pointers
        half = (channels if model.proj_tpos_enc_in_obj_ptrs else depth) // 2
        steps = torch.arange(half, dtype=torch.float32)
        periods = array(10000 ** (2 * torch.div(steps, 2, rounding_mode="floor") / half))  # get_1d_sine_pe
        angles = graph.add("Div", graph.reshape("distances", -1, 1), periods)
        ages = graph.add("Concat", graph.add("Sin", angles), graph.add("Cos", angles), axis=-1)
        if model.proj_tpos_enc_in_obj_ptrs:
            ages = linear(graph, model.obj_ptr_tpos_proj, ages)
        by_pointer = graph.reshape(pointers, -1, channels // depth, depth)
        return graph.reshape(graph.add("Add", by_pointer, graph.reshape(ages, -1, 1, depth)), -1, depth)

    def _downsampled_mask(self, graph: Graph) -> str:
        """Adds MaskDownSampler on the input `logits`, which are enlarged to the model's input size; (N, C)."""
        model = self._model
        sizes = np.array([1, 1, self.size, self.size], np.int64)
        large = graph.add("Resize", "logits", "", "", sizes, mode="linear", coordinate_transformation_mode="half_pixel")
        soft, hard = graph.add("Sigmoid", large), graph.add("Cast", graph.add("Greater", large, np.float32(0)), to=1)
        pixels = graph.add("Add", soft, graph.add("Mul", graph.add("Sub", hard, soft), "binary"))
        pixels = graph.add("Mul", pixels, np.float32(model.sigmoid_scale_for_mem_enc))
        pixels = graph.add("Add", pixels, np.float32(model.sigmoid_bias_for_mem_enc))
        *steps, last = self._memory.mask_downsampler.encoder
        rows = ""
        for convolution, layer_norm, _ in zip(*[iter(steps)] * 3, strict=True):
            pixels = self._convolution(graph, convolution, pixels)
            rows = graph.add("Transpose", pixels, perm=[0, 2, 3, 1])
            rows = graph.add("Gelu", norm(graph, layer_norm, rows))
            pixels = graph.add("Transpose", rows, perm=[0, 3, 1, 2])
        rows = graph.reshape(rows, self._tokens, -1)
        return graph.add("Gemm", rows, array(last.weight)[:, :, 0, 0].T, array(last.bias))

    def _fuser_block(
        self, graph: Graph, block: Any, tokens: str
    ) -> tuple[str, NDArray[np.float32], NDArray[np.float32]]:
        """Adds a CXBlock up to its last product. Returns that product's input, weight and bias."""
        plane = graph.reshape(tokens, 1, self.side, self.side, self._channels)
        plane = self._convolution(graph, block.dwconv, graph.add("Transpose", plane, perm=[0, 3, 1, 2]))
        rows = graph.reshape(graph.add("Transpose", plane, perm=[0, 2, 3, 1]), self._tokens, self._channels)
        inner = graph.add("Gelu", linear(graph, block.pwconv1, norm(graph, block.norm, rows)))
        gamma = np.ones(self._channels, np.float32) if block.gamma is None else array(block.gamma)
        return inner, gamma[:, None] * array(block.pwconv2.weight), gamma * array(block.pwconv2.bias)

    def _attend_within(self, graph: Graph, layer: Any, value: str) -> str:
        """Adds a layer's attention of the frame's tokens to one another."""
        attention, normed = layer.self_attn, norm(graph, layer.norm1, value)
        queries = self._turned(graph, attention.q_proj, normed, scaled=True)
        keys = self._turned(graph, attention.k_proj, normed)
        return self._add_attention(graph, attention, value, queries, keys, normed)

    def _add_attention(self, graph: Graph, attention: Any, onto: str, queries: str, keys: str, values: str) -> str:
        """Adds attention with one head to `onto` (N, C): projected and scaled queries (N, C), projected keys (K, C),
        values that are not projected (K, C or D)."""
        turned, found = graph.add("Transpose", keys, perm=[1, 0]), []
        for start in range(0, self._tokens, _QUERIES):
            part = queries
            if self._tokens > _QUERIES:
                part = graph.add("Slice", queries, np.array([start]), np.array([start + _QUERIES]), np.array([0]))
            weights = graph.add("Softmax", graph.add("MatMul", part, turned), axis=-1)
            found.append(graph.add("MatMul", weights, values))
        summed = graph.add("Concat", *found, axis=0) if len(found) > 1 else found[0]
        out, projection = array(attention.out_proj.weight), attention.v_proj
        bias = out @ array(projection.bias) + array(attention.out_proj.bias)
        return graph.add("Add", onto, graph.add("Gemm", summed, (out @ array(projection.weight)).T, bias))

    def _sorted_projection(self, graph: Graph, layer: Any, value: str, factor: float = 1) -> str:
        """Adds a projection whose even channels come before its odd ones, which no product of two of them notices."""
        weight, bias = array(layer.weight), array(layer.bias)
        order = np.r_[0 : len(bias) : 2, 1 : len(bias) : 2]
        by = np.float32(factor)
        return graph.add("Add", graph.add("MatMul", value, by * weight[order].T), by * bias[order])

    def _turned(self, graph: Graph, layer: Any, value: str, scaled: bool = False) -> str:
        """Adds a projection turned by the rotary encoding of each token's place, divided by sqrt(C) if `scaled`."""
        channels = layer.out_features
        value = self._sorted_projection(graph, layer, value, channels**-0.5 if scaled else 1)
        middle, end, last = np.array([channels // 2]), np.array([channels]), np.array([-1])
        real, imaginary = (
            graph.add("Slice", value, np.array([0]), middle, last),
            graph.add("Slice", value, middle, end, last),
        )
        turned_real = graph.add(
            "Sub", graph.add("Mul", real, self._cosine), graph.add("Mul", imaginary, self._turn_sine)
        )
        turned_imaginary = graph.add(
            "Add", graph.add("Mul", real, self._turn_sine), graph.add("Mul", imaginary, self._cosine)
        )
        return graph.add("Concat", turned_real, turned_imaginary, axis=-1)

    @staticmethod
    def _convolution(graph: Graph, layer: Any, value: str) -> str:
        return graph.add(
            "Conv",
            value,
            array(layer.weight),
            array(layer.bias),
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=[*layer.padding, *layer.padding],
            group=layer.groups,
        )


def _check(model: Any) -> None:
    """Refuses configurations that the graphs do not cover; sam2's published ones pass.

    Raises:
        ValueError: The model has such a configuration.
    """
    layers = model.memory_attention.layers
    attentions = [each for layer in layers for each in (layer.self_attn, layer.cross_attn_image)]
    if any(each.num_heads != 1 for each in attentions) or any(
        layer.pos_enc_at_attn or layer.pos_enc_at_cross_attn_queries or not layer.pos_enc_at_cross_attn_keys
        for layer in layers
    ):
        raise ValueError(_SINGLE_HEAD_ERROR)
    if not (model.num_maskmem and model.use_obj_ptrs_in_encoder and model.use_mask_input_as_output_without_sam):
        raise ValueError("this SAM 2 configuration has no memory, no object pointers, or passes masks to the decoder")
    if model.soft_no_obj_ptr or not model.fixed_no_obj_ptr or not model.sam_mask_decoder.pred_obj_scores:
        raise ValueError("this SAM 2 configuration treats objects that are gone as Maskwire cannot")
