"""Undoes TIFF's predictors (TIFF 6.0, section 14; Adobe Photoshop TIFF Technical Note 3)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwire.pictures.errors import unreadable

_NONE, _HORIZONTAL, _FLOATING_POINT = 1, 2, 3


def undo_predictor(
    rows: NDArray[np.uint8], dtype: np.dtype[Any], big_endian: bool, predictor: int, step: int, block: int
) -> NDArray[Any]:
    """Turns decompressed bytes into samples.

    Args:
        rows: HxB, the decompressed bytes of each row.
        dtype: Type of a sample.
        big_endian: Whether samples are stored with the most significant byte first.
        predictor: Value of the TIFF tag Predictor.
        step: Distance, in samples, between the same channel of neighbouring pixels.
        block: Number of samples after which prediction starts again.

    Returns:
        HxN samples in native byte order.

    Raises:
        PictureError: The predictor is unknown, or does not apply to this type.
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
        # Each block of a row stores the differences of all samples' highest bytes, then of the next bytes, and so on.
        size = dtype.itemsize
        differences = rows.reshape(rows.shape[0], -1, block * size // step, step)
        summed = np.cumsum(differences, axis=2, dtype=np.uint8).reshape(rows.shape[0], -1, size, block)
        ordered = np.ascontiguousarray(summed.swapaxes(2, 3)).view(dtype.newbyteorder(">"))
        return ordered.astype(dtype).reshape(rows.shape[0], -1)
    raise unreadable(f"the TIFF file has predictor {predictor}, which is not supported; save it without one")
