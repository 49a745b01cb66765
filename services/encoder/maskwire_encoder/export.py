"""The mask decoder of a SAM 2 model as ONNX graphs that multiply stored embeddings as they are.

The arithmetic is that of `sam2.modeling.sam` (PromptEncoder, TwoWayTransformer, MaskDecoder.predict_masks), written
token-major: image tokens are rows, a 2x2 stride-2 transposed convolution is one matrix product, and high-resolution
features are added in patch order, so that no permute happens before the masks are laid out at the very end.
"""

import math
import warnings
from typing import Any, cast

import numpy as np
import onnx
import torch
from maskwire_core.bundle import DecoderBundle, DecoderConfig
from torch import Tensor, nn
from torch.nn import functional as F

OPSET = 18


def to_patches(features: Tensor, patch: int) -> Tensor:
    """Lays a feature map out as the mask decoder's upscaling produces it.

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


class Attention(nn.Module):
    """Multi-head attention of `sam2.modeling.sam.transformer.Attention`, for one sequence without a batch axis."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = source.q_proj, source.k_proj, source.v_proj, source.out_proj
        self.heads = source.num_heads
        self.scale = 1 / math.sqrt(source.internal_dim // source.num_heads)

    def split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], self.heads, -1).transpose(0, 1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = self.split(self.q(q)), self.split(self.k(k)), self.split(self.v(v))
        weights = torch.softmax((q * self.scale) @ k.transpose(1, 2), dim=-1)
        return cast(Tensor, self.out((weights @ v).transpose(0, 1).reshape(q.shape[1], -1)))


class Layer(nn.Module):
    """One `TwoWayAttentionBlock`."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.source = source
        self.self_attention = Attention(source.self_attn)
        self.to_image = Attention(source.cross_attn_token_to_image)
        self.to_tokens = Attention(source.cross_attn_image_to_token)

    def forward(self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor) -> tuple[Tensor, Tensor]:
        source = self.source
        if source.skip_first_layer_pe:
            queries = self.self_attention(queries, queries, queries)
        else:
            positioned = queries + query_pe
            queries = queries + self.self_attention(positioned, positioned, queries)
        queries = source.norm1(queries)
        queries = source.norm2(queries + self.to_image(queries + query_pe, keys + key_pe, keys))
        queries = source.norm3(queries + source.mlp(queries))
        keys = source.norm4(keys + self.to_tokens(keys + key_pe, queries + query_pe, queries))
        return queries, keys


class Decoder(nn.Module):
    """Prompt encoder and mask decoder for one prompt on one image.

    forward(image_embed, high_res_1, high_res_0, points, labels, dense) with, for an image of h x w tokens:
        image_embed: (h*w, C) image tokens; high_res_1: (h*w, 4, C/4); high_res_0: (h*w, 16, C/8), in patch order.
        points: (N, 2) x, y in pixels of the model's input; N may be 0.
        labels: (N,) int64: -1 padding, 0 negative, 1 positive, 2 and 3 a box's corners.
        dense: (1 or h*w, C): the "no mask" embedding, or the mask encoder's output.
    Returns logits (masks, 4h, 4w) of all mask tokens (0 is the single mask), predicted IoU (masks,), object score (1,).
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        prompts, decoder = model.sam_prompt_encoder, model.sam_mask_decoder
        if not decoder.use_high_res_features:
            raise ValueError("this SAM 2 configuration has no high-resolution features; Maskwire needs them")
        self.size = model.image_size
        self.side = model.sam_image_embedding_size
        self.decoder = decoder
        self.layers = nn.ModuleList(Layer(layer) for layer in decoder.transformer.layers)
        self.final_attention = Attention(decoder.transformer.final_attn_token_to_image)
        heads = [decoder.iou_token, decoder.mask_tokens]
        self.object_head = decoder.pred_obj_score_head if decoder.pred_obj_scores else None
        if self.object_head is not None:
            heads.insert(0, decoder.obj_score_token)
        self.masks = decoder.num_mask_tokens
        labels = [prompts.not_a_point_embed, *prompts.point_embeddings]
        self.register_buffer("output_tokens", torch.cat([head.weight for head in heads]))
        self.register_buffer("label_embeddings", torch.cat([label.weight for label in labels]))
        self.register_buffer("gaussian", prompts.pe_layer.positional_encoding_gaussian_matrix)
        self.register_buffer("image_pe", prompts.get_dense_pe()[0].flatten(1).T.contiguous())
        first, self.norm, _, second, _ = decoder.output_upscaling
        for name, conv in (("first", first), ("second", second)):
            # ConvTranspose2d weights are (in, out, row, column); columns of the product are (row, column, out).
            self.register_buffer(f"{name}_weight", conv.weight.permute(0, 2, 3, 1).flatten(1).contiguous())
            self.register_buffer(f"{name}_bias", conv.bias.repeat(4))

    def forward(
        self, image_embed: Tensor, high_res_1: Tensor, high_res_0: Tensor, points: Tensor, labels: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        buffers = cast(dict[str, Tensor], dict(self.named_buffers(recurse=False)))
        angles = ((points + 0.5) / self.size * 2 - 1) @ buffers["gaussian"] * (2 * math.pi)
        positions = torch.cat([angles.sin(), angles.cos()], dim=-1) * (labels >= 0).to(points.dtype)[:, None]
        prompt = torch.cat([buffers["output_tokens"], positions + buffers["label_embeddings"][labels + 1]])

        queries, keys, image_pe = prompt, image_embed + dense, buffers["image_pe"]
        for layer in self.layers:
            queries, keys = layer(queries, keys, prompt, image_pe)
        queries = queries + self.final_attention(queries + prompt, keys + image_pe, keys)
        queries = self.decoder.transformer.norm_final_attn(queries)
        first = 0 if self.object_head is None else 1
        iou = self.decoder.iou_prediction_head(queries[first : first + 1])[0]
        tokens = queries[first + 1 : first + 1 + self.masks]
        if self.object_head is None:
            object_score = torch.full_like(iou[:1], 10.0)
        else:
            object_score = self.object_head(queries[:1])[0]

        pixels = (keys @ buffers["first_weight"] + buffers["first_bias"]).reshape(high_res_1.shape) + high_res_1
        pixels = F.gelu(F.layer_norm(pixels, pixels.shape[-1:], self.norm.weight, self.norm.bias, self.norm.eps))
        pixels = (pixels @ buffers["second_weight"] + buffers["second_bias"]).reshape(high_res_0.shape)
        pixels = F.gelu(pixels + high_res_0)
        hyper = torch.stack([mlp(tokens[i]) for i, mlp in enumerate(self.decoder.output_hypernetworks_mlps)])
        masks = (hyper @ pixels.flatten(0, 1).T).reshape(self.masks, self.side, self.side, 2, 2, 2, 2)
        masks = masks.permute(0, 1, 3, 5, 2, 4, 6).reshape(self.masks, 4 * self.side, 4 * self.side)
        return masks, iou, object_score


class MaskEncoder(nn.Module):
    """A mask prompt (4h, 4w) as the dense prompt embedding (h*w, C)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.downscaling = model.sam_prompt_encoder.mask_downscaling

    def forward(self, mask: Tensor) -> Tensor:
        return cast(Tensor, self.downscaling(mask[None, None])[0].flatten(1).T)


def _export(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], dynamic: dict[str, Any]) -> bytes:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            kwargs=inputs,
            input_names=list(inputs),
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes={name: dynamic.get(name) for name in inputs},
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx gave no program")
    graph = program.model_proto
    del graph.metadata_props[:]
    for node in graph.graph.node:  # source paths and stack traces of this process
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(graph, full_check=True)
    return graph.SerializeToString(deterministic=True)


def export_decoder(model: Any, config: DecoderConfig) -> DecoderBundle:
    """Exports the prompt encoder and mask decoder of a SAM 2 model.

    Args:
        model: A `sam2.modeling.sam2_base.SAM2Base` in fp32.
        config: What a decoder worker must know beside the graphs.

    Returns:
        The bundle. The same weights and library versions give the same bytes.
    """
    decoder = Decoder(model).cpu().float()
    tokens, channels = cast(Tensor, decoder.image_pe).shape
    inputs = {
        "image_embed": torch.zeros(tokens, channels),
        "high_res_1": torch.zeros(tokens, 4, channels // 4),
        "high_res_0": torch.zeros(tokens, 16, channels // 8),
        "points": torch.zeros(3, 2),
        "labels": torch.ones(3, dtype=torch.int64),
        "dense": torch.zeros(tokens, channels),
    }
    count, dense = torch.export.Dim("count", min=0, max=4096), torch.export.Dim.AUTO
    graph = _export(
        decoder,
        inputs,
        ["logits", "iou", "object_score"],
        {"points": {0: count}, "labels": {0: count}, "dense": {0: dense}},
    )
    mask = {"mask": torch.zeros(config.mask_size, config.mask_size)}
    return DecoderBundle(
        config=config,
        decoder=graph,
        mask_encoder=_export(MaskEncoder(model).cpu().float(), mask, ["dense"], {}),
        no_mask=np.ascontiguousarray(model.sam_prompt_encoder.no_mask_embed.weight.detach().cpu().float().numpy()),
    )
