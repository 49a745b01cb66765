"""Run-length encoding of Label Studio's brush masks.

The format is that of thi.ng's rle-pack: a bit stream, most significant bit first, of the number of values (32 bits),
the bits per value less one (5), four sizes of lengths in bits less one (4 each), and the runs. A run is a bit (1: one
value repeated, 0: single values), the index of its size (2 bits), its length less one, and the value or values. Label
Studio encodes the flat RGBA pixels of a picture in this way, and takes the alpha channel as the mask. Since the four
channels are equal here, the runs are those of the mask's pixels, four times as long.
"""

import numpy as np
from numpy.typing import NDArray

_VALUE_BITS = 8
_LENGTH_BITS = np.array([3, 4, 8, 16])
_CHANNELS = 4


def encode(mask: NDArray[np.bool_]) -> list[int]:
    """Encodes a mask, with 255 in all channels inside and 0 outside.

    Args:
        mask: HxW.

    Returns:
        The bytes that Label Studio stores as "rle".
    """
    values = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1]) if values.size else np.zeros(0, int)
    lengths = np.diff(np.append(starts, values.size)) * _CHANNELS
    longest = 1 << int(_LENGTH_BITS[-1])
    pieces = -(-lengths // longest)
    inside = np.repeat(values[starts], pieces)
    # All pieces of a run are as long as a piece can be, but the last.
    counts = np.full(len(inside), longest)
    counts[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * longest

    sizes = np.searchsorted(1 << _LENGTH_BITS, counts)
    length_bits = _LENGTH_BITS[sizes]
    widths = 3 + length_bits + _VALUE_BITS
    runs = ((4 | sizes) << length_bits | (counts - 1)) << _VALUE_BITS | np.where(inside, 255, 0)
    header = [(_CHANNELS * values.size, 32), (_VALUE_BITS - 1, 5), *((int(bits) - 1, 4) for bits in _LENGTH_BITS)]
    words = np.concatenate([[word for word, _ in header], runs]).astype(np.uint64)
    widths = np.concatenate([[width for _, width in header], widths])
    return [int(byte) for byte in np.packbits(_bits(words, widths))]


def _bits(words: NDArray[np.uint64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Concatenates the low `widths` bits of each word, most significant first; returns one bit per element."""
    widest = int(widths.max())
    places = np.arange(widest - 1, -1, -1)
    table = (words[:, None] >> places.astype(np.uint64)) & np.uint64(1)
    bits: NDArray[np.uint8] = table[places[None, :] < widths[:, None]].astype(np.uint8)
    return bits
