"""Logits and masks resized as torch does it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire.bilinear import enlarge, resize_antialiased

# With one column torch repeats the first row; its strides look like those of channels that come last.
sizes = st.tuples(st.integers(1, 300), st.integers(2, 300))
shapes = st.tuples(sizes, sizes)


@pytest.mark.parametrize(
    ("rows", "columns", "width", "height"), [(256, 256, 1801, 1203), (128, 128, 90, 3000), (7, 5, 3, 2)]
)
def test_enlarging_is_torchs_bit_by_bit(rows: int, columns: int, width: int, height: int) -> None:
    samples = np.random.default_rng(rows).normal(0, 20, (rows, columns)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(samples)[None, None], (height, width), mode="bilinear", align_corners=False
    )
    np.testing.assert_array_equal(enlarge(samples, width, height), expected[0, 0].numpy())


@settings(deadline=None)
@given(shapes, st.integers(0, 1 << 32), st.booleans())
def test_antialiased_resizing_is_torchs_bit_by_bit(
    shape: tuple[tuple[int, int], tuple[int, int]], seed: int, binary: bool
) -> None:
    (rows, columns), (height, width) = shape
    random = np.random.default_rng(seed)
    samples = (random.random((rows, columns)) > 0.5) if binary else random.normal(0, 20, (rows, columns))
    samples = samples.astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(samples)[None, None], (height, width), mode="bilinear", align_corners=False, antialias=True
    )
    np.testing.assert_array_equal(resize_antialiased(samples, width, height), expected[0, 0].numpy())
