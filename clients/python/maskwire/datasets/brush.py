"""Decodes the run lengths of Label Studio's brush masks; the adapters encode them (maskwire_adapters/brush.py)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_CHANNELS = 4


def decode(rle: Sequence[int], width: int, height: int) -> NDArray[np.bool_]:
    """Decodes a mask: a bit stream of RGBA pixels in rle-pack's form, whose alpha channel is the mask.

    Args:
        rle: The bytes that Label Studio stores as "rle".
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Returns:
        HxW.

    Raises:
        ValueError: The bytes end early, or are of another size.
    """
    bits = np.unpackbits(np.array(rle, np.uint8)).astype(np.uint8)
    text = bits.tobytes().translate(bytes.maketrans(b"\x00\x01", b"01")).decode()
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        if place > len(text):
            raise ValueError("the brush's rle ends early")
        return int(text[place - count : place], 2)

    total, value_bits = read(32), read(5) + 1
    if total != width * height * _CHANNELS:
        raise ValueError(f"the brush's rle has {total} values instead of {width}x{height}x{_CHANNELS}")
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    counts: list[int] = []
    done = 0
    while done < total:
        is_run = read(1)
        count = read(sizes[read(2)]) + 1
        done += count
        values += [read(value_bits) for _ in range(1 if is_run else count)]
        counts += [count] if is_run else [1] * count
    pixels = np.repeat(np.array(values) > 0, counts)
    if len(pixels) != total:
        raise ValueError(f"the brush's rle has {len(pixels)} values instead of {total}")
    return pixels.reshape(height, width, _CHANNELS)[..., _CHANNELS - 1].copy()
