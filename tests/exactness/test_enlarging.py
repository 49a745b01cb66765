"""Logits enlarged to the size of an image as torch does it."""

import numpy as np
import pytest
import torch
from maskwire.bilinear import enlarge


@pytest.mark.parametrize(
    ("rows", "columns", "width", "height"), [(256, 256, 1801, 1203), (128, 128, 90, 3000), (7, 5, 3, 2)]
)
def test_enlarging_is_torchs_bit_by_bit(rows: int, columns: int, width: int, height: int) -> None:
    samples = np.random.default_rng(rows).normal(0, 20, (rows, columns)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(samples)[None, None], (height, width), mode="bilinear", align_corners=False
    )
    np.testing.assert_array_equal(enlarge(samples, width, height), expected[0, 0].numpy())
