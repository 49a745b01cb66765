"""Surfaces that move over a made picture are found by their features, at every size and behind others."""

from collections.abc import Callable

import numpy as np
import pytest
from maskwire_tracker.alignment import Motion, align, motion_of, moved
from maskwire_tracker.surface import PARTS, View, features_of, find_again, follow, parts_of
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SIDE, CHANNELS = 16, 64
FINEST = 4 * SIDE
BLOCK = (0.2, 0.5, 0.25, 0.6)  # of the surface, when it is prompted: left, right, top, bottom


def texture(seed: int) -> Callable[[Floats, Floats, int], Floats]:
    """Features that change smoothly from place to place."""
    random = np.random.default_rng(seed)
    waves = random.normal(0, 14, (2, CHANNELS))
    phases = random.uniform(0, 7, CHANNELS)
    return lambda x, y, count: np.sin(x[..., None] * waves[0] + y[..., None] * waves[1] + phases)[..., :count].astype(
        np.float32
    )


SURFACE, BEHIND, BEFORE = texture(1), texture(2), texture(3)


def inside(x: Floats, y: Floats) -> NDArray[np.bool_]:
    left, right, top, bottom = BLOCK
    return (x > left) & (x < right) & (y > top) & (y < bottom)


def seen(cells: int, motion: Motion, curtain: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Features of a level, and where the surface is seen: not left of a curtain that is drawn so far."""
    count = cells * SIDE
    y, x = np.mgrid[0.5:count, 0.5:count] / count
    places = np.linalg.inv(motion) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    across, down = (each.reshape(x.shape) for each in places[:2])
    width = {1: CHANNELS, 2: CHANNELS // 4, 4: CHANNELS // 8}[cells]
    there = inside(across, down)
    pixels = np.where(there[..., None], SURFACE(across, down, width), BEHIND(x, y, width))
    hidden = x < curtain
    return np.where(hidden[..., None], BEFORE(x, y, width), pixels), there & ~hidden


def tokens(level: Floats, cells: int) -> Floats:
    """Cells of a level by token, those of the coarse step before the fine ones, as encoders store them."""
    split = level.reshape(SIDE, *[2] * (cells // 2), SIDE, *[2] * (cells // 2), -1)
    order = {1: (0, 1, 2), 2: (0, 2, 1, 3, 4), 4: (0, 3, 1, 4, 2, 5, 6)}[cells]
    return np.ascontiguousarray(split.transpose(order).reshape(SIDE * SIDE, cells * cells, -1))


def view(motion: Motion, curtain: float = 0.0) -> View:
    names = {"image_embed": 1, "high_res_1": 2, "high_res_0": 4}
    stored = {name: tokens(seen(cells, motion, curtain)[0], cells) for name, cells in names.items()}
    rows = features_of(stored)
    return View(np.concatenate([rows, parts_of(seen(4, motion, curtain)[1])], axis=1), CHANNELS)


def about(degrees: float, scale: float, x: float, y: float) -> Motion:
    """Turns and scales the surface around its centre, and shifts it."""
    centre = complex((BLOCK[0] + BLOCK[1]) / 2, (BLOCK[2] + BLOCK[3]) / 2)
    factor = scale * complex(np.exp(1j * np.radians(degrees)))
    return motion_of(factor, centre * (1 - factor) + complex(x, y))


STILL = about(0, 1, 0, 0)


def overlap(found: Floats, motion: Motion, curtain: float = 0.0) -> float:
    truth = seen(4, motion, curtain)[1]
    return np.count_nonzero((found > 0.5) & truth) / np.count_nonzero((found > 0.5) | truth)


def test_a_view_gives_back_what_it_was_made_of() -> None:
    made = view(STILL)
    assert made.rows.shape == (SIDE * SIDE, 4 * CHANNELS + PARTS)
    assert (made.mask > 0.5).tolist() == seen(4, STILL, 0)[1].tolist()
    for cells in (2, 4):
        level = seen(cells, STILL, 0)[0]
        level = level - level.mean((0, 1))
        expected = level / np.linalg.norm(level, axis=2, keepdims=True)
        np.testing.assert_allclose(made.level(cells), expected, atol=1e-5)


@pytest.mark.parametrize(("degrees", "scale", "x", "y"), [(0, 1, 0.02, -0.015), (6, 1, 0, 0), (-4, 1.06, 0.01, 0.02)])
def test_a_motion_is_found_to_half_a_cell(degrees: float, scale: float, x: float, y: float) -> None:
    motion, before = about(degrees, scale, x, y), view(STILL)
    found = align(before.level(4), view(motion).level(4), before.mask > 0.5, np.eye(3))
    corners = np.array([[BLOCK[0], BLOCK[1]], [BLOCK[2], BLOCK[3]], [1, 1]])
    assert np.abs((found - motion) @ corners)[:2].max() < 0.5 / FINEST


def test_a_surface_is_followed_while_it_turns_grows_and_passes_behind_another() -> None:
    prompted, last, motion = view(STILL), None, np.eye(3)
    for step in range(1, 16):
        at, curtain = about(3 * step, 1 + 0.01 * step, 0.015 * step, 0.005 * step), 0.02 * step
        now = view(at, curtain)
        found = follow(now, prompted, last, motion)
        assert found is not None
        motion, last = found[0], now
        assert overlap(found[1], at, curtain) > 0.85
    assert overlap(moved(prompted.mask, motion), at) > 0.9  # behind the other, too


def test_a_surface_that_is_hidden_is_not_found_and_then_found_again() -> None:
    prompted, motion = view(STILL), about(0, 1, 0.3, 0.1)
    assert follow(view(motion, curtain=1), prompted, None, np.eye(3)) is None
    near = moved(prompted.mask, about(0, 1, 0.28, 0.11))
    found = find_again(view(motion), prompted, near)
    assert found is not None
    assert overlap(found[1], motion) > 0.9
    assert find_again(view(motion, curtain=1), prompted, near) is None


def test_an_object_that_was_prompted_with_an_empty_mask_is_nowhere() -> None:
    prompted, frame = view(about(0, 1, 5, 5)), view(STILL)
    assert not prompted.mask.any()
    assert follow(frame, prompted, None, STILL) is None
    assert follow(frame, prompted, frame, STILL) is None
    assert align(prompted.level(4), frame.level(4), prompted.mask > 0, STILL) is STILL
