"""SAM 2's image encoder written as an OpenVINO graph, and the backend that runs it.

The arithmetic is that of `sam2.modeling.backbones` (Hiera, FpnNeck) and `SAM2Base.forward_image`, with channels last
throughout. The position embedding, and products of weights with nothing between them, are computed when the graph is
built. `openvino.convert_model` of the torch module is slower, and in bf16 too inaccurate: see
docs/explanation/performance.md.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops
from torch import Tensor, nn

from maskwire_encoder.backends.device import Tensors
from maskwire_encoder.backends.features import NAMES
from maskwire_encoder.decoder_export.layers import array
from maskwire_encoder.image_input.preprocessing import prepare

PRECISIONS = ("bf16 attention", "bf16", "fp32")
"""Fastest first. "bf16" multiplies by the trunk's weights in bfloat16. Norms, sums, the neck and attention, to which
masks are sensitive, stay in fp32. "bf16 attention" runs the attention over the whole image in bfloat16 too."""

_UNKNOWN = "its image encoder is not built like those of the published SAM 2 models"


class OpenVinoBackend:
    """Encodes one image after the other, because batches are no faster on a CPU. For one thread at a time.

    Args:
        sam: A `sam2.modeling.sam2_base.SAM2Base` in fp32.
        precision: One of `PRECISIONS`.
        threads: Number of threads; 0 for OpenVINO's default.
        largest: Largest batch.

    Raises:
        ValueError: The image encoder is not built like those of the published models.
    """

    def __init__(self, sam: Any, precision: str, threads: int, largest: int = 1) -> None:
        self.precision, self.largest = precision, largest
        self._size: int = sam.image_size
        # The graph itself says what is computed in bf16; "f32" keeps OpenVINO from rounding the rest.
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        self._request = ov.Core().compile_model(build(sam, precision), "CPU", options).create_infer_request()

    def prepare(self, rgb: NDArray[np.uint8]) -> Tensor:
        return prepare(rgb, self._size)

    def encode(self, images: Sequence[Tensor]) -> list[Tensors]:
        results = [self._request.infer({0: image[None].numpy()}) for image in images]
        return [{name: result[name] for name in NAMES} for result in results]


def build(sam: Any, precision: str) -> ov.Model:
    """Builds the image encoder of a model.

    Args:
        sam: A `sam2.modeling.sam2_base.SAM2Base` in fp32.
        precision: One of `PRECISIONS`.

    Returns:
        A graph from 1x3xSxS to image_embed, high_res_1 and high_res_0 in the stored layout, fp32.

    Raises:
        ValueError: The image encoder has something that no published model has.
    """
    return _Builder(sam, precision).model()


class _Builder:
    """Adds the layers of one model. Feature maps are 1xHxWxC; windows are (number of windows) x h x w x C."""

    def __init__(self, sam: Any, precision: str) -> None:
        self.sam = sam
        self.bf16, self.bf16_attention = precision != "fp32", precision == "bf16 attention"
        self.trunk, self.neck = sam.image_encoder.trunk, sam.image_encoder.neck
        self.side: int = sam.image_size // 4
        neck = self.neck
        traits = (sam.image_encoder.scalp, neck.fpn_interp_model, neck.fuse_type, list(neck.fpn_top_down_levels))
        if traits != (1, "nearest", "sum", [2, 3]) or len(self.trunk.stage_ends) != 4:
            raise ValueError(_UNKNOWN)

    def model(self) -> ov.Model:
        image = ops.parameter([1, 3, 4 * self.side, 4 * self.side], np.float32, name="image")
        patches = self.trunk.patch_embed.proj
        padding = list(patches.padding)
        pixels = ops.convolution(image, array(patches.weight), list(patches.stride), padding, padding, [1, 1])
        positions = self.trunk._get_pos_embed((self.side, self.side)) + patches.bias
        tokens = ops.add(_transpose(pixels, 0, 2, 3, 1), array(positions))
        levels = []
        for index, block in enumerate(self.trunk.blocks):
            tokens = self._block(block, tokens)
            if index in self.trunk.stage_ends:
                levels.append(tokens)
        outputs = self._stored(levels)
        for name, output in outputs.items():
            output.output(0).set_names({name})
        return ov.Model(list(outputs.values()), [image], "image_encoder")

    def _block(self, block: Any, tokens: ov.Node) -> ov.Node:
        """Adds a `MultiScaleBlock`."""
        normed = _norm(block.norm1, tokens)
        shortcut = tokens
        if block.dim != block.dim_out:
            shortcut = _pooled(self._linear(block.proj, normed), block.q_stride)
        _, height, width, _ = shortcut.shape
        attended = self._attention(
            block.attn, _windows(normed, block.window_size), block.q_stride, not block.window_size
        )
        if block.window_size:
            attended = _joined(attended, height, width)
        tokens = ops.add(shortcut, attended)
        first, second = block.mlp.layers
        if not isinstance(block.mlp.act, nn.GELU) or block.mlp.sigmoid_output:
            raise ValueError(_UNKNOWN)
        hidden = ops.gelu(self._linear(first, _norm(block.norm2, tokens)), "erf")
        return ops.add(tokens, self._linear(second, hidden))

    def _attention(self, attention: Any, windows: ov.Node, stride: tuple[int, int] | None, is_global: bool) -> ov.Node:
        """Adds a `MultiScaleAttention`.

        Args:
            attention: The layer.
            windows: W x h x w x C; attention stays within each window.
            stride: Rows and columns by which queries are pooled; None not to pool them.
            is_global: Whether the only window is the whole image.
        """
        heads, channels = attention.num_heads, attention.dim_out
        weight, bias = (array(value).reshape(3, channels, -1) for value in (attention.qkv.weight, attention.qkv.bias))
        scale = np.float32((channels // heads) ** -0.5)
        q = self._product(windows, weight[0] * scale, bias[0, :, 0] * scale)
        k, v = (self._product(windows, weight[part], bias[part, :, 0]) for part in (1, 2))
        if stride:
            q = _pooled(q, stride)
        count, height, width, _ = q.shape
        q, k, v = (_transpose(_reshape(value, count, -1, heads, channels // heads), 0, 2, 1, 3) for value in (q, k, v))
        attended = _attend(q, k, v, "bf16" if is_global and self.bf16_attention else "f32")
        return self._linear(attention.proj, _reshape(_transpose(attended, 0, 2, 1, 3), count, height, width, channels))

    def _linear(self, layer: nn.Linear, value: ov.Node) -> ov.Node:
        return self._product(value, array(layer.weight), array(layer.bias))

    def _product(self, value: ov.Node, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> ov.Node:
        if not self.bf16:
            return _product(value, weight, bias)
        low = ops.matmul(ops.convert(value, "bf16"), ops.convert(ops.constant(weight), "bf16"), False, True)
        return ops.add(ops.convert(low, "f32"), bias)

    def _stored(self, levels: list[ov.Node]) -> dict[str, ov.Node]:
        """Adds the neck, and the mask decoder's convolutions of high-resolution features, in the stored layout."""
        lateral = [_convolution(sequence.conv) for sequence in self.neck.convs][::-1]
        embed = ops.add(_product(levels[2], *lateral[2]), _doubled(_product(levels[3], *lateral[3])))
        if self.sam.directly_add_no_mem_embed:
            embed = ops.add(embed, array(self.sam.no_mem_embed))
        decoder = self.sam.sam_mask_decoder
        fine = []
        for level, convolution in ((0, decoder.conv_s0), (1, decoder.conv_s1)):
            # The neck's and the decoder's 1x1 convolutions follow each other: one product does for both.
            (weight, bias), (last, last_bias) = lateral[level], _convolution(convolution)
            fine.append(_product(levels[level], last @ weight, last @ bias + last_bias))
        return {
            "image_embed": _patches(embed, 0),
            "high_res_1": _patches(fine[1], 1),
            "high_res_0": _patches(fine[0], 2),
        }


def _convolution(layer: nn.Conv2d) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight (out x in) and bias of a 1x1 convolution."""
    if tuple(layer.kernel_size) != (1, 1) or layer.bias is None:
        raise ValueError(_UNKNOWN)
    return array(layer.weight)[:, :, 0, 0], array(layer.bias)


def _product(value: ov.Node, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> ov.Node:
    return ops.add(ops.matmul(value, np.ascontiguousarray(weight), False, True), bias)


def _attend(q: ov.Node, k: ov.Node, v: ov.Node, dtype: str) -> ov.Node:
    """Attention with projected queries, keys and values, split into heads; queries are scaled already."""
    low = [ops.convert(value, dtype) for value in (q, k, v, ops.constant(np.float32(1)))]
    return ops.convert(ops.scaled_dot_product_attention(low[0], low[1], low[2], None, low[3]), "f32")


def _norm(layer: nn.LayerNorm, value: ov.Node) -> ov.Node:
    normed = ops.mvn(value, np.array([-1]), True, layer.eps, "inside_sqrt")
    return ops.add(ops.multiply(normed, array(layer.weight)), array(layer.bias))


def _reshape(value: ov.Node, *shape: int) -> ov.Node:
    return ops.reshape(value, np.array(shape), False)


def _transpose(value: ov.Node, *order: int) -> ov.Node:
    return ops.transpose(value, np.array(order))


def _pooled(value: ov.Node, stride: tuple[int, int]) -> ov.Node:
    """Max pooling without overlap."""
    count, height, width, channels = value.shape
    rows, columns = stride
    # ReduceMax has no fast implementation for this layout, and MaxPool would need a transposition.
    value = _largest(_reshape(value, count, height // rows, rows, width * channels))
    value = _largest(_reshape(value, count, height // rows * width // columns, columns, channels))
    return _reshape(value, count, height // rows, width // columns, channels)


def _largest(value: ov.Node) -> ov.Node:
    """The maximum over axis 2."""
    return reduce(ops.maximum, ops.split(value, np.array(2), value.shape[2]).outputs())


def _doubled(value: ov.Node) -> ov.Node:
    """Nearest-neighbour upsampling by two."""
    _, height, width, channels = value.shape
    pixels = _reshape(value, 1, height, 1, width, 1, channels)
    return _reshape(
        ops.broadcast(pixels, np.array([1, height, 2, width, 2, channels])), 1, 2 * height, 2 * width, channels
    )


def _windows(value: ov.Node, size: int) -> ov.Node:
    """sam2's `window_partition`; size 0 makes the whole image one window."""
    if not size:
        return value
    _, height, width, channels = value.shape
    below, right = -height % size, -width % size
    if below or right:
        value = ops.pad(value, np.zeros(4, int), np.array([0, below, right, 0]), "constant", np.float32(0))
    cells = _reshape(value, (height + below) // size, size, (width + right) // size, size, channels)
    return _reshape(_transpose(cells, 0, 2, 1, 3, 4), -1, size, size, channels)


def _joined(windows: ov.Node, height: int, width: int) -> ov.Node:
    """sam2's `window_unpartition`."""
    _, size, _, channels = windows.shape
    rows, columns = -(-height // size), -(-width // size)
    cells = _transpose(_reshape(windows, rows, columns, size, size, channels), 0, 2, 1, 3, 4)
    value = _reshape(cells, 1, rows * size, columns * size, channels)
    if (rows * size, columns * size) == (height, width):
        return value
    zeros, ends = np.array([0, 0]), np.array([height, width])
    return ops.slice(value, zeros, ends, np.array([1, 1]), np.array([1, 2]))


def _patches(value: ov.Node, steps: int) -> ov.Node:
    """`export.to_patches` with patches of 2 ** steps pixels along a side."""
    _, height, width, channels = value.shape
    rows, columns = height >> steps, width >> steps
    split = _reshape(value, rows, *[2] * steps, columns, *[2] * steps, channels)
    order = [axis + step for step in range(steps) for axis in (1, 2 + steps)]
    split = _transpose(split, 0, 1 + steps, *order, 2 + 2 * steps)
    return _reshape(split, rows * columns, *([4**steps] if steps else []), channels)
