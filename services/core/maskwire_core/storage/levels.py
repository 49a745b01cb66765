"""Lossless coding of integer planes: what the codec "klt" stores. docs/reference/embeddings.md specifies the bytes.

The values of a plane are predicted from their neighbours where that pays. The differences, folded to whole numbers from
0 on, take 0, 2, 4, 8 or 16 bits each, as the largest of their plane needs, and the planes of a tensor are deflated
together. Browsers inflate without a library: DecompressionStream("deflate-raw").
"""

import zlib
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.int16]
"""Planes x rows x columns."""

LEFT, ABOVE = 1, 2
"""Bits of a predictor: differences along rows, and along columns."""
_PREDICTORS = (0, LEFT, ABOVE, LEFT | ABOVE)

_BITS = (0, 2, 4, 8, 16)
"""By a plane's form: bits of each of its values; 0 if all are 0."""
_FORM_BITS = 4  # of a plane's first byte; the predictor is above them


def pack_planes(planes: Planes) -> bytes:
    """Packs planes.

    Args:
        planes: int16, planes x rows x columns.

    Raises:
        ValueError: They are of another type or have other axes.
    """
    if planes.dtype != np.int16 or planes.ndim != 3:
        raise ValueError(f"planes are {planes.dtype} with {planes.ndim} axes instead of int16 with 3")
    heads, bodies = bytearray(), []
    candidates = [(kind, _fold(_differences(planes, kind))) for kind in _PREDICTORS]
    for index, plane in enumerate(planes):
        if not plane.any():
            heads.append(0)
            continue
        predictor, folded = min(((kind, each[index]) for kind, each in candidates), key=lambda each: _bits(each[1]))
        form = int(np.searchsorted([1 << bits for bits in _BITS], int(folded.max()), side="right"))
        heads.append(form | predictor << _FORM_BITS)
        bodies.append(_to_bytes(folded.reshape(-1), _BITS[form]))
    # Nothing but prefix codes: looking for repetitions takes longer and gives 8 % more.
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS, strategy=zlib.Z_HUFFMAN_ONLY)
    return deflate.compress(bytes(heads) + b"".join(bodies)) + deflate.flush()


def unpack_planes(packed: bytes | memoryview, shape: tuple[int, int, int]) -> Planes:
    """The inverse of `pack_planes`. Takes memory in proportion to `shape`, whatever is packed.

    Args:
        packed: What `pack_planes` returned; it is not trusted.
        shape: Planes, rows, columns.

    Raises:
        ValueError: The bytes are damaged or not planes of this shape.
    """
    count, rows, columns = shape
    values = rows * columns
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        raw = inflate.decompress(packed, count * (1 + 2 * values) + 1)
    except zlib.error as error:
        raise ValueError(f"planes cannot be inflated: {error}") from error
    if not inflate.eof or inflate.unused_data:
        raise ValueError("the deflated planes of an embedding do not end where they should")
    content = np.frombuffer(raw, np.uint8)
    heads = content[:count]
    forms, predictors = heads & (1 << _FORM_BITS) - 1, heads >> _FORM_BITS
    if len(heads) != count or (forms >= len(_BITS)).any() or (predictors > LEFT | ABOVE).any():
        raise ValueError("a plane of an embedding has an unknown form")
    lengths = np.array([-(-values * bits // 8) for bits in _BITS])[forms]
    ends = count + np.cumsum(lengths)
    if ends[-1] != len(content):
        raise ValueError(f"planes of an embedding have {len(content)} bytes instead of {ends[-1]}")
    planes = np.zeros((count, values), np.int16)
    # Neighbours mostly have the same form, and are read together.
    for run in np.split(np.arange(count), np.flatnonzero(np.diff(forms)) + 1):
        first, last, bits = run[0], run[-1], _BITS[forms[run[0]]]
        if bits:
            body = content[ends[first] - lengths[first] : ends[last]].reshape(len(run), -1)
            planes[first : last + 1] = _from_bytes(body, bits)[:, :values]
    planes = planes.reshape(shape)
    for bit, axis in ((LEFT, 2), (ABOVE, 1)):
        predicted = np.flatnonzero(predictors & bit)
        if len(predicted):
            planes[predicted] = planes[predicted].cumsum(axis, dtype=np.int16)
    return planes


def _differences(planes: Planes, predictor: int) -> Planes:
    """Differences of values to their neighbours, modulo 2^16."""
    if predictor & LEFT:
        planes = np.diff(planes, axis=2, prepend=np.int16(0))
    if predictor & ABOVE:
        planes = np.diff(planes, axis=1, prepend=np.int16(0))
    return planes


def _fold(values: NDArray[np.int16]) -> NDArray[np.uint16]:
    """0, -1, 1, -2, ... to 0, 1, 2, 3, ..."""
    return ((values << 1) ^ (values >> 15)).view(np.uint16)


def _unfold(values: NDArray[np.uint16]) -> NDArray[np.int16]:
    return ((values >> 1) ^ -(values & 1)).view(np.int16)


def _bits(folded: NDArray[np.uint16]) -> float:
    """The entropy of values, in bits: about what deflating leaves of them."""
    counts = np.bincount(folded.reshape(-1))
    counts = counts[counts > 0]
    return float(folded.size * np.log2(folded.size) - (counts * np.log2(counts)).sum())


def _to_bytes(folded: NDArray[np.uint16], bits: int) -> bytes:
    """Packs values of so many bits, the first into the lowest bits of a byte; 16 bits are little-endian."""
    if bits >= 8:
        return folded.astype(f"<u{bits // 8}").tobytes()
    of_byte = np.pad(folded, (0, -len(folded) % (8 // bits))).reshape(-1, 8 // bits)
    packed: NDArray[np.uint8] = (of_byte << np.arange(0, 8, bits)).sum(1).astype(np.uint8)
    return packed.tobytes()


def _from_bytes(body: NDArray[np.uint8], bits: int) -> NDArray[np.int16]:
    """Values of planes of one form (planes x bytes): planes x values, with what fills the last byte."""
    if bits == 16:
        return _unfold(body.reshape(-1).view("<u2").astype(np.uint16)).reshape(len(body), -1)
    return _table(bits).take(body).view(np.int16)


@cache
def _table(bits: int) -> NDArray[Any]:
    """What each byte stands for: int16 values, which are one item of 16, 32 or 64 bits together, so that numpy copies
    them at once."""
    values = np.arange(256)[:, None] >> np.arange(0, 8, bits) & (1 << bits) - 1
    return _unfold(values.astype(np.uint16)).view(f"u{16 // bits}").reshape(256)
