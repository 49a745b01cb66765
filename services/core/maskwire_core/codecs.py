"""How tensors are stored: exactly, halved, or quantised.

    fp32   as they are; 16 MiB for SAM 2 at 1024 px
    fp16   rounded to half precision; 8 MiB
    int8   8 bits a value, one scale a channel; 4 MiB
    int4   4 bits a value, one scale for each 32 values of a row; 2.25 MiB

Scales are fp16 or fp32 and symmetric: a value is its integer times the scale. docs/exactness.md has what each costs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Parts = dict[str, NDArray[Any]]
_GROUP = 32


@dataclass(frozen=True)
class Codec:
    """One way to store tensors.

    Attributes:
        encode: fp32 of any shape, channels last, to stored parts; their names are the codec's own.
        decode: Stored parts and the shape back to fp32.
    """

    encode: Callable[[NDArray[np.float32]], Parts]
    decode: Callable[[Parts, tuple[int, ...]], NDArray[np.float32]]


def _plain(dtype: str) -> Codec:
    limit = float(np.finfo(dtype).max)
    return Codec(
        encode=lambda tensor: {"": np.clip(tensor, -limit, limit).astype(dtype)},
        decode=lambda parts, shape: parts[""].reshape(shape).astype(np.float32),
    )


def _encode_int8(tensor: NDArray[np.float32]) -> Parts:
    channels = tensor.reshape(-1, tensor.shape[-1])
    scale = (np.abs(channels).max(0) / 127).astype("<f4")
    scale[scale == 0] = 1
    return {"": np.rint(channels / scale).astype("<i1"), "scale": scale}


def _decode_int8(parts: Parts, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return (parts[""].reshape(-1, shape[-1]).astype(np.float32) * parts["scale"]).reshape(shape)


def _encode_int4(tensor: NDArray[np.float32]) -> Parts:
    groups = tensor.reshape(-1, _GROUP)
    largest = np.minimum(np.abs(groups).max(1, keepdims=True), np.finfo(np.float16).max)
    scale = (largest / 7).astype("<f2")
    scale[scale == 0] = 1
    levels = np.clip(np.rint(groups / scale.astype(np.float32)), -8, 7).astype(np.int8) & 15
    return {"": (levels[:, ::2] | levels[:, 1::2] << 4).astype("<u1"), "scale": scale}


def _decode_int4(parts: Parts, shape: tuple[int, ...]) -> NDArray[np.float32]:
    packed = parts[""].reshape(-1, _GROUP // 2)
    levels = np.stack([packed & 15, packed >> 4], axis=2).reshape(-1, _GROUP).astype(np.float32)
    levels -= 16 * (levels > 7)
    return np.asarray(levels * parts["scale"].reshape(-1, 1).astype(np.float32)).reshape(shape)


CODECS = {
    "fp32": _plain("<f4"),
    "fp16": _plain("<f2"),
    "int8": Codec(_encode_int8, _decode_int8),
    "int4": Codec(_encode_int4, _decode_int4),
}
