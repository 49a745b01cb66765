"""Pixels to a model's input against sam2's SAM2Transforms."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire_encoder.image_input.preprocessing import LARGE_PIXELS, as_stored, prepare, preprocess, resize_frame
from numpy.typing import NDArray
from PIL import Image
from sam2.utils.misc import load_video_frames

from testing.reference.predictor import SAM2Transforms

LEVEL = 1 / 255 / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
"""One of 255 levels, as large as normalisation makes it."""


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_preprocessing_equals_sam2(width: int, height: int, seed: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    expected = SAM2Transforms(resolution=512, mask_threshold=0.0)(rgb)
    torch.testing.assert_close(prepare(rgb, 512), expected, atol=1e-5, rtol=0)


def photograph(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """Structure at several scales and noise."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for scale in (3, 40, 500):
        small = random.integers(0, 256, (height // scale + 2, width // scale + 2, 3), np.uint8)
        total += np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return (total / 3).astype(np.uint8)


def lines(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """Lines one pixel wide, black on white: what rounding between two passes is worst for."""
    random = np.random.default_rng(seed)
    columns, rows = random.integers(0, 2, width), random.integers(0, 2, height)
    return np.repeat((rows[:, None] ^ columns)[..., None] * 255, 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("make", [photograph, lines])
@pytest.mark.parametrize(("width", "height", "size"), [(2400, 1700, 1024), (4000, 3000, 1024), (900, 6100, 512)])
def test_large_images_are_within_one_level_of_sam2(make: object, width: int, height: int, size: int) -> None:
    assert callable(make)
    rgb = make(width, height, width)
    assert width * height > LARGE_PIXELS
    error = (prepare(rgb, size) - SAM2Transforms(resolution=size, mask_threshold=0.0)(rgb)).abs() / LEVEL
    print(f"{make.__name__} {width}x{height}: {error.mean():.3f} levels on average, {error.max():.3f} at most")
    assert error.max() <= 1
    assert error.mean() <= 0.3


@pytest.mark.parametrize("shape", [(60, 40), (2300, 1800), (1, 50), (50, 1)])
def test_turned_views_are_prepared_like_copies(shape: tuple[int, int]) -> None:
    """Every orientation that EXIF knows."""
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    rounding = LEVEL if shape[0] * shape[1] > LARGE_PIXELS else 1e-5  # its passes round in the order of memory
    for turned in (pixels, pixels.transpose(1, 0, 2)):
        for view in (turned, turned[::-1], turned[:, ::-1], turned[::-1, ::-1]):
            stored, turn = as_stored(view)
            assert stored.strides[0] > 0
            assert stored.strides[1] > 0
            assert np.shares_memory(stored, pixels)
            planes = torch.from_numpy(stored).permute(2, 0, 1)
            np.testing.assert_array_equal(turn(planes).permute(1, 2, 0).numpy(), view)
            copied = preprocess(torch.from_numpy(view.copy())[None], 512)[0]
            assert bool(((prepare(view, 512) - copied).abs() <= rounding).all())


def test_preprocessing_a_batch_is_preprocessing_each() -> None:
    batch = torch.randint(0, 256, (4, 130, 210, 3), dtype=torch.uint8)
    together = preprocess(batch, 512)
    for pixels, prepared in zip(batch, together, strict=True):
        torch.testing.assert_close(preprocess(pixels[None], 512)[0], prepared, atol=1e-6, rtol=0)


def test_frames_equal_sam2s(tmp_path: Path) -> None:
    """Bit by bit, of frames that are smaller, larger and as large as the model's input."""
    for number, (width, height) in enumerate([(300, 200), (1900, 1100), (512, 512)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        Image.fromarray(photograph(width, height, number)).save(folder / "0.jpg")
        expected, _, _ = load_video_frames(str(folder), 512, True, compute_device=torch.device("cpu"))
        with Image.open(folder / "0.jpg") as opened:
            rgb = np.asarray(opened.convert("RGB"))
        for turned in (rgb, np.flip(np.flip(rgb, 1).copy(), 1)):  # however it lies in memory
            torch.testing.assert_close(prepare(resize_frame(turned, 512), 512), expected[0], atol=0, rtol=0)
