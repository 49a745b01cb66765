"""TIFF's predictors: what compresses better is undone to samples."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwire.pictures.errors import unreadable

_NONE, _HORIZONTAL, _FLOATING_POINT = 1, 2, 3


def undo(
    rows: NDArray[np.uint8], dtype: np.dtype[Any], big_endian: bool, predictor: int, step: int, block: int
) -> NDArray[Any]:
    """Samples of decompressed bytes.

    Args:
        rows: HxB: the bytes of each row.
        dtype: Of a sample.
        big_endian: Order of the bytes of a sample.
        predictor: A value of TIFF's tag.
        step: Samples from a sample to the one of the same kind in the next pixel.
        block: Samples after which prediction begins anew.

    Returns:
        HxN, in this machine's byte order.

    Raises:
        PictureError: The predictor is not known, or is none for such samples.
    """
    stored = dtype.newbyteorder(">" if big_endian else "<")
    if predictor == _NONE:
        return rows.view(stored).astype(dtype, copy=False)
    shape = (rows.shape[0], -1, block // step, step)
    if predictor == _HORIZONTAL:
        unsigned = np.dtype(f"u{dtype.itemsize}")
        differences = rows.view(unsigned.newbyteorder(stored.byteorder)).astype(unsigned).reshape(shape)
        summed: NDArray[Any] = np.cumsum(differences, axis=2, dtype=unsigned)
        return summed.reshape(rows.shape[0], -1).view(dtype)
    if predictor == _FLOATING_POINT and dtype.kind == "f":
        # Each block of a row has the highest bytes of all its samples first, then the next, and their differences.
        size = dtype.itemsize
        differences = rows.reshape(rows.shape[0], -1, block * size // step, step)
        summed = np.cumsum(differences, axis=2, dtype=np.uint8).reshape(rows.shape[0], -1, size, block)
        ordered = np.ascontiguousarray(summed.swapaxes(2, 3)).view(dtype.newbyteorder(">"))
        return ordered.astype(dtype).reshape(rows.shape[0], -1)
    raise unreadable(f"the TIFF file has predictor {predictor}, which is not read; save it without one")
