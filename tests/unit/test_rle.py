"""COCO's run lengths, as clients read them in answers and servers in requests."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire.rle import are_of_size, bounding_box, pixels, run_lengths
from pycocotools import mask as coco

from testing.coco_runs import wrapping


@given(st.integers(0, 2**32), st.integers(1, 70), st.integers(1, 70), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_masks_are_read_as_pycocotools_reads_them(seed: int, height: int, width: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    runs: Any = coco.encode(np.asfortranarray(mask, np.uint8))
    counts = runs["counts"].decode()
    read = pixels(counts, height, width)
    assert read is not None
    np.testing.assert_array_equal(read, mask)
    assert are_of_size(counts, height, width)
    assert not are_of_size(counts, height, width + 1)
    assert pixels(counts, height + 1, width) is None


@pytest.mark.parametrize("counts", ["o", "0o", "~", "\0", "é", "@", "0000000000o", "ooooooo0"])
def test_a_text_that_is_no_run_lengths_is_none(counts: str) -> None:
    assert run_lengths(counts) is None
    assert pixels(counts, 1, 1) is None
    assert bounding_box(counts, 1) is None
    assert not are_of_size(counts, 1, 1)


def test_lengths_whose_sum_exceeds_64_bits_are_refused() -> None:
    """Their sum, modulo 2 ** 64, is the size of a small mask, and numpy would write beyond its end."""
    counts = wrapping(1000 * 1000)
    assert len(counts) < 1 << 20  # as many as a request may have
    assert pixels(counts, 1000, 1000) is None
