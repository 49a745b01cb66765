"""Codecs of stored tensors, with the size of an embedding of SAM 2 at 1024 px:

    fp32   exact; 16 MiB
    fp16   rounded to half precision; 8 MiB
    int8   8 bits per value, one scale per channel; 4 MiB
    int4   4 bits per value, but 6 for the image tokens, which masks depend on most; a minimum and a step per channel
           and block of 128 rows; 2.4 MiB
    klt    whole numbers that a transform fitted to the model made of the values, without loss; 1 MiB or less. The
           transform is the encoder's (maskwire_encoder/transform), its inverse a graph of the exported decoder.

docs/explanation/exactness.md says what each costs in accuracy.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwire_core.storage.levels import pack_planes, unpack_planes

Parts = dict[str, NDArray[Any]]
_BLOCK = 128


@dataclass(frozen=True)
class Codec:
    """A codec of tensors."""

    # From a tensor's name and its values (fp32, any shape, channels last; for klt int16, planes x rows x columns) to
    # the parts to store, by the codec's names.
    encode: Callable[[str, NDArray[Any]], Parts]
    # From the name, the stored parts and the shape to the values: a view of the stored part if that holds plain values
    # (fp32, fp16), int16 for klt, otherwise fp32.
    decode: Callable[[str, Parts, tuple[int, ...]], NDArray[Any]]
    # From the name and the shape to the dtype and the number of values of each part; None if it depends on the values.
    parts: Callable[[str, tuple[int, ...]], dict[str, tuple[str, int | None]]]


class NotFinite(ValueError):
    """A value is NaN or infinite, or too large for a codec."""


def encode(codec: str, name: str, tensor: NDArray[Any]) -> Parts:
    """Encodes a tensor into the parts to store, by name.

    Args:
        codec: A key of `CODECS`.
        name: Name of the tensor.
        tensor: Values, fp32 or fp16, any shape, channels last; for klt int16, planes x rows x columns.

    Raises:
        NotFinite: A value is NaN or infinite, or too large for the codec.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        parts = CODECS[codec].encode(name, tensor)
    if not all(is_finite(part) for part in parts.values()):
        if np.isfinite(tensor).all():
            raise NotFinite(f"{name} has values of up to {np.abs(tensor).max():.3g}, more than {codec} holds")
        raise NotFinite(f"{name} has {np.count_nonzero(~np.isfinite(tensor))} values that are NaN or infinite")
    return parts


def is_finite(array: NDArray[Any]) -> bool:
    """Whether all values are finite. Compares bit patterns, which for fp16 takes a tenth of numpy.isfinite's time.

    Args:
        array: fp16, fp32 or fp64 values, or integers, which are always finite.
    """
    if array.dtype.kind != "f" or not array.size:
        return True
    signed, unsigned = f"i{array.dtype.itemsize}", f"u{array.dtype.itemsize}"
    array = np.ascontiguousarray(array)
    positive, negative = np.array([np.inf, -np.inf], array.dtype).view(unsigned)
    return bool(array.view(signed).max() < positive.astype(signed) and array.view(unsigned).max() < negative)


def _plain(dtype: str) -> Codec:
    return Codec(
        encode=lambda _, tensor: {"": tensor.astype(dtype)},
        decode=lambda _, parts, shape: parts[""].reshape(shape),
        parts=lambda _, shape: {"": (dtype, math.prod(shape))},
    )


def _encode_int8(_: str, tensor: NDArray[np.float32]) -> Parts:
    channels = tensor.reshape(-1, tensor.shape[-1])
    scale = (np.abs(channels).max(0) / 127).astype("<f4")
    scale[scale == 0] = 1
    return {"": np.rint(channels / scale).astype("<i1"), "scale": scale}


def _decode_int8(_: str, parts: Parts, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return (parts[""].reshape(-1, shape[-1]).astype(np.float32) * parts["scale"]).reshape(shape)


def _parts_int8(_: str, shape: tuple[int, ...]) -> dict[str, tuple[str, int | None]]:
    return {"": ("|i1", math.prod(shape)), "scale": ("<f4", shape[-1])}


def _encode_int4(name: str, tensor: NDArray[np.float32]) -> Parts:
    bits = _bits(name)
    rows = tensor.reshape(-1, tensor.shape[-1])
    blocks = np.pad(rows, ((0, -len(rows) % _BLOCK), (0, 0)), mode="edge").reshape(-1, _BLOCK, rows.shape[1])
    low = blocks.min(1).astype("<f2")
    step = ((blocks.max(1) - low).clip(0) / (2**bits - 1)).astype("<f2")
    step[step == 0] = 1
    levels = np.rint((blocks - low[:, None].astype(np.float32)) / step[:, None].astype(np.float32))
    levels = levels.clip(0, 2**bits - 1).astype(np.uint8).reshape(-1)
    packed = np.packbits(np.unpackbits(levels[:, None], axis=1)[:, 8 - bits :])
    return {"": packed, "low": low, "step": step}


def _decode_int4(name: str, parts: Parts, shape: tuple[int, ...]) -> NDArray[np.float32]:
    bits, channels = _bits(name), shape[-1]
    low, step = (parts[part].reshape(-1, 1, channels).astype(np.float32) for part in ("low", "step"))
    count = len(low) * _BLOCK * channels
    single = np.unpackbits(parts[""], count=count * bits).reshape(-1, bits)
    levels = np.packbits(single, axis=1) >> (8 - bits)
    rows = (levels.reshape(-1, _BLOCK, channels) * step + low).reshape(-1, channels)
    return np.asarray(rows[: int(np.prod(shape[:-1]))], np.float32).reshape(shape)


def _parts_int4(name: str, shape: tuple[int, ...]) -> dict[str, tuple[str, int | None]]:
    blocks = -(-math.prod(shape[:-1]) // _BLOCK)
    scales = blocks * shape[-1]
    packed = -(-scales * _BLOCK * _bits(name) // 8)
    return {"": ("|u1", packed), "low": ("<f2", scales), "step": ("<f2", scales)}


def _bits(name: str) -> int:
    return 6 if name == "image_embed" else 4


def _encode_klt(_: str, planes: NDArray[np.int16]) -> Parts:
    return {"": np.frombuffer(pack_planes(planes), np.uint8)}


def _decode_klt(_: str, parts: Parts, shape: tuple[int, ...]) -> NDArray[np.int16]:
    count, rows, columns = shape
    return unpack_planes(parts[""].data, (count, rows, columns))


CODECS = {
    "fp32": _plain("<f4"),
    "fp16": _plain("<f2"),
    "int8": Codec(_encode_int8, _decode_int8, _parts_int8),
    "int4": Codec(_encode_int4, _decode_int4, _parts_int4),
    "klt": Codec(_encode_klt, _decode_klt, lambda _, shape: {"": ("|u1", None)}),
}

CONVERTIBLE = {"fp32": 1, "fp16": 2, "int8": 4, "int4": 8}
"""Codecs of values, each of which can be turned into the others, and how many times as large what they store becomes as
fp32, at most. Whole numbers of klt are no values: the transform is known to the encoder, its inverse to the exported
decoder."""
