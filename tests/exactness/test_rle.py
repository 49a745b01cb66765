"""Run lengths straight from logits against torch's upsampling and pycocotools, bit by bit."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from maskwire_core.masks.rle import rle
from numpy.typing import NDArray
from pycocotools import mask as coco


def expected(logits: NDArray[np.float32], width: int, height: int) -> bytes:
    full = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None, None], (height, width), mode="bilinear", align_corners=False
    )[0, 0]
    return bytes(coco.encode(np.asfortranarray((full > 0).numpy().view(np.uint8)))["counts"])


def logits_of(kind: str, seed: int, side: int) -> NDArray[np.float32]:
    """Logits of different roughness. Small whole numbers meet the threshold exactly, on samples and between them."""
    random = np.random.default_rng(seed)
    if kind == "noise":
        return random.standard_normal((side, side)).astype(np.float32)
    if kind == "whole":
        return random.integers(-2, 3, (side, side)).astype(np.float32)
    if kind == "tiny":  # but not so that libraries of other tests, which flush what is denormal to zero, matter
        return (random.standard_normal((side, side)) * 10.0 ** random.integers(-29, -24)).astype(np.float32)
    if kind == "half":
        return random.standard_normal((side, side)).astype(np.float16).astype(np.float32)
    coarse = random.standard_normal((random.integers(2, 20),) * 2).astype(np.float32) + random.choice([-3, 0, 0, 3])
    return np.asarray(cv2.resize(coarse * 8, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


KINDS = st.sampled_from(["smooth", "noise", "whole", "half", "tiny"])
SIZES = st.floats(0, 11, allow_subnormal=False).map(lambda exponent: round(2**exponent))


@given(KINDS, st.integers(0, 2**32), st.sampled_from([1, 2, 32, 128, 256]), SIZES, SIZES)
@example("whole", 0, 128, 45, 45)
@example("whole", 1, 256, 64, 64)
@example("noise", 2, 256, 127, 1)
@example("whole", 3, 256, 65, 64)
@settings(max_examples=150, deadline=None)
def test_run_lengths_are_those_of_the_upsampled_mask(kind: str, seed: int, side: int, width: int, height: int) -> None:
    logits = logits_of(kind, seed, side)
    got = rle(logits, width, height)
    assert got["size"] == [height, width]
    assert got["counts"] == expected(logits, width, height)


@pytest.mark.parametrize(
    ("kind", "width", "height"),
    [
        ("smooth", 4000, 3000),
        ("whole", 1800, 1200),
        ("smooth", 12_000, 8333),
        ("smooth", 1, 70_000),
        ("noise", 60_000, 3),
    ],
)
def test_large_and_long_masks(kind: str, width: int, height: int) -> None:
    """Up to 100 megapixels."""
    logits = logits_of(kind, 5, 256)
    assert rle(logits, width, height)["counts"] == expected(logits, width, height)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1e-30, 1.0])
def test_empty_and_full_masks(value: float) -> None:
    logits = np.full((256, 256), value, np.float32)
    assert rle(logits, 300, 200)["counts"] == expected(logits, 300, 200)
