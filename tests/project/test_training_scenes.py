"""What is done to photographs that are few, and what a box says about the pixels beside it."""

import numpy as np
import pytest
import torch

from training.demo import evaluate
from training.demo.batches import Batches
from training.demo.curriculum import Stage
from training.demo.order import unorder
from training.demo.pack import Pack
from training.demo.prompts import Prompts
from training.demo.scenes import recolour, turn

STAGE = Stage("photographs", 224, 2, 8, updates=0, rate=0.0, easy=0.0, real=1.0, corrections=0.0)


@pytest.mark.parametrize("degrees", [-20, 8, 25])
def test_masks_turn_with_their_picture(degrees: float) -> None:
    mask = np.zeros((120, 120), bool)
    mask[30:70, 20:90] = True
    image = np.where(mask[..., None], np.float32(250), np.float32(10)) * np.ones(3, np.float32)
    turned, (part,) = turn(image, [mask], degrees)
    bright = turned[..., 0] > 130
    assert np.count_nonzero(bright ^ part) < 0.01 * np.count_nonzero(mask)
    assert np.count_nonzero(mask & ~part) > 0.03 * np.count_nonzero(mask)
    assert abs(np.count_nonzero(part) / np.count_nonzero(mask) - 1) < 0.02


def test_other_colours_keep_edges_and_range() -> None:
    random = np.random.default_rng(5)
    image = random.uniform(-10, 265, (40, 50, 3)).astype(np.float32)  # brightness may be out of range before
    others = [recolour(image, random) for _ in range(5)]
    for other in others:
        assert other.shape == image.shape
        assert other.dtype == np.float32
        assert 0 <= other.min() < other.max() <= 255.5
    assert np.abs(others[0] - others[1]).mean() > 5
    plain = np.full((8, 8, 3), 90, np.float32)
    assert np.ptp(recolour(plain, random)) < 1  # what is grey stays grey, and even


def test_no_pixel_of_an_object_is_beside_its_box() -> None:
    batches = Batches(Pack.load(evaluate.SAMPLE, held_out=True), STAGE, seed=1)
    boxed = 0
    for number in range(4):
        torch.manual_seed(number)
        batch = batches[number]
        prompts = Prompts(batch, STAGE.size)
        beside = prompts.beside_box()
        assert not beside[~prompts.boxed].any()
        assert not (beside * (batch.targets > 0.5))[prompts.boxed].sum() > 0.01 * batch.targets[prompts.boxed].sum()
        side = STAGE.size // 4
        for row, (x0, y0, x1, y1) in zip(
            unorder(beside[..., None], side, side, 8)[prompts.boxed, ..., 0],
            prompts.points[prompts.boxed, :2].flatten(1).tolist(),
            strict=True,
        ):
            inside = row[int(y0 // 4) : int(y1 // 4) + 1, int(x0 // 4) : int(x1 // 4) + 1]
            assert not inside.any()
            far = (x1 - x0) * 1.3 + 8 < STAGE.size and (y1 - y0) * 1.3 + 8 < STAGE.size
            assert row.any() or not far
            boxed += 1
    assert boxed > 10
