"""Label Studio's run lengths."""

import numpy as np
import pytest
from maskwire_adapters import brush

from testing.adapters import unpacked


@pytest.mark.parametrize("seed", range(8))
def test_brush_run_lengths_come_back(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 300, 2)
    scale = int(random.integers(1, 60))
    coarse = random.random((height // scale + 1, width // scale + 1)) < random.uniform(0, 1)
    mask = np.kron(coarse, np.ones((scale, scale), bool))[:height, :width]
    rle = brush.encode(mask)
    assert np.array_equal(
        unpacked(rle).reshape(height, width, 4), np.repeat(mask[..., None] * np.uint8(255), 4, axis=2)
    )


def test_long_runs_are_told_in_pieces() -> None:
    for size in (1 << 14, (1 << 14) + 1, 3 << 14):  # four channels: one piece, and more
        assert np.array_equal(unpacked(brush.encode(np.ones((1, size), bool))), np.full(4 * size, 255))
