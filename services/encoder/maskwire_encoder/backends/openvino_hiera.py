"""SAM 2's image encoder as an OpenVINO model.

The arithmetic is that of `sam2.modeling.backbones` (Hiera, FpnNeck) and `SAM2Base.forward_image`, on rows of channels
from beginning to end. What does not depend on the image is computed here: the position embedding, and products of
layers with nothing in between.
"""

from functools import reduce
from typing import Any, cast

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops
from torch import Tensor, nn

_UNKNOWN = "its image encoder is not built as those of the published SAM 2 models"


PRECISIONS = ("bf16 attention", "bf16", "fp32")
"""Fastest first. In bf16 the trunk multiplies by its weights in bfloat16. Norms, sums, the neck and attention stay in
fp32, which is what masks are sensitive to; in the first, attention over the whole image is in bfloat16 too."""


def build(sam: Any, precision: str) -> ov.Model:
    """Writes the image encoder of a model.

    Args:
        sam: A `sam2.modeling.sam2_base.SAM2Base` in fp32.
        precision: One of `PRECISIONS`.

    Returns:
        A model from 1x3xSxS to image_embed, high_res_1 and high_res_0 in the stored layout.

    Raises:
        ValueError: The configuration has something that is not written here.
    """
    return _Writer(sam, precision).model()


class _Writer:
    """Values are 1xHxWxC; windows of a block are windows x tokens x C."""

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
        pixels = ops.convolution(image, _array(patches.weight), list(patches.stride), padding, padding, [1, 1])
        positions = self.trunk._get_pos_embed((self.side, self.side)) + patches.bias
        tokens = ops.add(_transpose(pixels, 0, 2, 3, 1), _array(positions))
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
        """A `MultiScaleBlock`."""
        normed = _norm(block.norm1, tokens)
        shortcut = tokens
        if block.dim != block.dim_out:
            shortcut = _pooled(self._linear(block.proj, normed), block.q_stride)
        _, height, width, _ = shortcut.shape
        answers = self._ask(block.attn, _windows(normed, block.window_size), block.q_stride, not block.window_size)
        if block.window_size:
            answers = _joined(answers, height, width)
        tokens = ops.add(shortcut, answers)
        first, second = block.mlp.layers
        if not isinstance(block.mlp.act, nn.GELU) or block.mlp.sigmoid_output:
            raise ValueError(_UNKNOWN)
        hidden = ops.gelu(self._linear(first, _norm(block.norm2, tokens)), "erf")
        return ops.add(tokens, self._linear(second, hidden))

    def _ask(self, attention: Any, windows: ov.Node, stride: tuple[int, int] | None, everywhere: bool) -> ov.Node:
        """`MultiScaleAttention` of windows (W x h x w x C), each by itself; the only one may be the whole image."""
        heads, channels = attention.num_heads, attention.dim_out
        weight, bias = (_array(value).reshape(3, channels, -1) for value in (attention.qkv.weight, attention.qkv.bias))
        scale = np.float32((channels // heads) ** -0.5)
        q = self._product(windows, weight[0] * scale, bias[0, :, 0] * scale)
        k, v = (self._product(windows, weight[part], bias[part, :, 0]) for part in (1, 2))
        if stride:
            q = _pooled(q, stride)
        count, height, width, _ = q.shape
        q, k, v = (_transpose(_reshape(value, count, -1, heads, channels // heads), 0, 2, 1, 3) for value in (q, k, v))
        answers = _attend(q, k, v, "bf16" if everywhere and self.bf16_attention else "f32")
        return self._linear(attention.proj, _reshape(_transpose(answers, 0, 2, 1, 3), count, height, width, channels))

    def _linear(self, layer: nn.Linear, value: ov.Node) -> ov.Node:
        return self._product(value, _array(layer.weight), _array(layer.bias))

    def _product(self, value: ov.Node, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> ov.Node:
        if not self.bf16:
            return _product(value, weight, bias)
        low = ops.matmul(ops.convert(value, "bf16"), ops.convert(ops.constant(weight), "bf16"), False, True)
        return ops.add(ops.convert(low, "f32"), bias)

    def _stored(self, levels: list[ov.Node]) -> dict[str, ov.Node]:
        """The neck's two upper levels and the decoder's convolutions on the lower ones, in the stored layout."""
        lateral = [_convolution(sequence.conv) for sequence in self.neck.convs][::-1]
        embed = ops.add(_product(levels[2], *lateral[2]), _doubled(_product(levels[3], *lateral[3])))
        if self.sam.directly_add_no_mem_embed:
            embed = ops.add(embed, _array(self.sam.no_mem_embed))
        decoder = self.sam.sam_mask_decoder
        fine = []
        for level, convolution in ((0, decoder.conv_s0), (1, decoder.conv_s1)):
            # Two products with nothing in between are one.
            (weight, bias), (last, last_bias) = lateral[level], _convolution(convolution)
            fine.append(_product(levels[level], last @ weight, last @ bias + last_bias))
        return {
            "image_embed": _patches(embed, 0),
            "high_res_1": _patches(fine[1], 1),
            "high_res_0": _patches(fine[0], 2),
        }


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return cast(NDArray[np.float32], tensor.detach().cpu().float().contiguous().numpy())


def _convolution(layer: nn.Conv2d) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A 1x1 convolution as a product's weight and bias."""
    if tuple(layer.kernel_size) != (1, 1) or layer.bias is None:
        raise ValueError(_UNKNOWN)
    return _array(layer.weight)[:, :, 0, 0], _array(layer.bias)


def _product(value: ov.Node, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> ov.Node:
    return ops.add(ops.matmul(value, np.ascontiguousarray(weight), False, True), bias)


def _attend(q: ov.Node, k: ov.Node, v: ov.Node, dtype: str) -> ov.Node:
    """Attention of what is projected, split and scaled."""
    low = [ops.convert(value, dtype) for value in (q, k, v, ops.constant(np.float32(1)))]
    return ops.convert(ops.scaled_dot_product_attention(low[0], low[1], low[2], None, low[3]), "f32")


def _norm(layer: nn.LayerNorm, value: ov.Node) -> ov.Node:
    normed = ops.mvn(value, np.array([-1]), True, layer.eps, "inside_sqrt")
    return ops.add(ops.multiply(normed, _array(layer.weight)), _array(layer.bias))


def _reshape(value: ov.Node, *shape: int) -> ov.Node:
    return ops.reshape(value, np.array(shape), False)


def _transpose(value: ov.Node, *order: int) -> ov.Node:
    return ops.transpose(value, np.array(order))


def _pooled(value: ov.Node, stride: tuple[int, int]) -> ov.Node:
    """The largest of each cell."""
    count, height, width, channels = value.shape
    rows, columns = stride
    # Not ReduceMax or MaxPool: OpenVINO has no fast code for the one here, and would permute for the other.
    value = _largest(_reshape(value, count, height // rows, rows, width * channels))
    value = _largest(_reshape(value, count, height // rows * width // columns, columns, channels))
    return _reshape(value, count, height // rows, width // columns, channels)


def _largest(value: ov.Node) -> ov.Node:
    """Over axis 2."""
    return reduce(ops.maximum, ops.split(value, np.array(2), value.shape[2]).outputs())


def _doubled(value: ov.Node) -> ov.Node:
    """Twice as high and wide, each pixel four times."""
    _, height, width, channels = value.shape
    pixels = _reshape(value, 1, height, 1, width, 1, channels)
    return _reshape(
        ops.broadcast(pixels, np.array([1, height, 2, width, 2, channels])), 1, 2 * height, 2 * width, channels
    )


def _windows(value: ov.Node, size: int) -> ov.Node:
    """`window_partition`; size 0 is one window of everything."""
    if not size:
        return value
    _, height, width, channels = value.shape
    below, right = -height % size, -width % size
    if below or right:
        value = ops.pad(value, np.zeros(4, int), np.array([0, below, right, 0]), "constant", np.float32(0))
    cells = _reshape(value, (height + below) // size, size, (width + right) // size, size, channels)
    return _reshape(_transpose(cells, 0, 2, 1, 3, 4), -1, size, size, channels)


def _joined(windows: ov.Node, height: int, width: int) -> ov.Node:
    """`window_unpartition`."""
    _, size, _, channels = windows.shape
    rows, columns = -(-height // size), -(-width // size)
    cells = _transpose(_reshape(windows, rows, columns, size, size, channels), 0, 2, 1, 3, 4)
    value = _reshape(cells, 1, rows * size, columns * size, channels)
    if (rows * size, columns * size) == (height, width):
        return value
    zeros, ends = np.array([0, 0]), np.array([height, width])
    return ops.slice(value, zeros, ends, np.array([1, 1]), np.array([1, 2]))


def _patches(value: ov.Node, steps: int) -> ov.Node:
    """`export.to_patches`, with patches of 2 ** steps pixels."""
    _, height, width, channels = value.shape
    rows, columns = height >> steps, width >> steps
    split = _reshape(value, rows, *[2] * steps, columns, *[2] * steps, channels)
    order = [axis + step for step in range(steps) for axis in (1, 2 + steps)]
    split = _transpose(split, 0, 1 + steps, *order, 2 + 2 * steps)
    return _reshape(split, rows * columns, *([4**steps] if steps else []), channels)
