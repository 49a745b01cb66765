"""Where the surface of an object, as it was prompted, is on a frame: what `hand_over` knows of a place on it.

What is kept of a frame has a row for each token: its features of the image embedding, those of the two finer levels,
and what share of each sixteenth of it is the object's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from maskwire_tracker.alignment import Motion, align, likeness, motion_of, moved
from maskwire_tracker.remembered import Floats

PARTS = 16
"""Shares in a row: of the 4x4 parts of a token."""

MAJORITY = np.float32(0.5)
"""Share of a cell above which it is the object's."""

_SIDES = (2, 4)  # of the finer levels, in cells along a side of a token
_FITS = 0.5  # least mean likeness with which the prompted frame corrects the place that the frame before gave
_CORRECTION = 0.01  # largest such correction, as a share of the frame's side
_FOUND_AGAIN = 0.05  # likewise, where only votes say where the object is
_SEEN = 0.3  # least likeness of a place that is seen, and not behind something
_SEEN_SHARE = 0.15  # of a surface that must be seen
_TRUSTED = 0.45  # mean likeness of what is seen below which the surface was not found
_AROUND = (3, 7)  # cells over which likeness is averaged, on each level
_FEWEST = 12  # cells that are compared, if there are as many


def features_of(tensors: Mapping[str, NDArray[Any]]) -> Floats:
    """Returns the features of a frame, (N, 4C): of each level less their mean, and of length 1 in each cell.

    Args:
        tensors: Its stored embedding: image_embed (N, C), high_res_1 (N, 4, C/4), high_res_0 (N, 16, C/8).
    """
    levels = []
    for name in ("image_embed", "high_res_1", "high_res_0"):
        level = tensors[name].astype(np.float32)
        level = level.reshape(len(level), -1, level.shape[-1])
        if name != "image_embed":
            level -= level.mean((0, 1))
        level /= np.maximum(np.linalg.norm(level, axis=2, keepdims=True), np.float32(1e-6))
        levels.append(level.reshape(len(level), -1))
    return np.concatenate(levels, axis=1)


@dataclass(frozen=True)
class View:
    """What is known of a frame and of an object on it.

    Attributes:
        rows: See above, (N, 4C + 16); (N, 4C) where the object is not known yet.
        channels: C.
    """

    rows: Floats
    channels: int

    @property
    def tokens(self) -> Floats:
        """Features of the image embedding, (N, C)."""
        return self.rows[:, : self.channels]

    @property
    def shares(self) -> Floats:
        """Share of each token that is the object's, (N,)."""
        return np.asarray(self.rows[:, -PARTS:].mean(axis=1), np.float32)

    @property
    def mask(self) -> Floats:
        """The object's share of each cell of the finest level, (S, S)."""
        side = self.side
        parts = self.rows[:, -PARTS:].reshape(side, side, 4, 4)
        return np.ascontiguousarray(parts.transpose(0, 2, 1, 3).reshape(4 * side, 4 * side))

    @property
    def side(self) -> int:
        """Tokens along a side of the frame."""
        return math.isqrt(len(self.rows))

    def level(self, cells: int) -> Floats:
        """Returns features with 2 or 4 cells along a side of a token, (S, S, C')."""
        side, begin = self.side, self.channels * (1 if cells == 2 else 2)
        width = self.channels // (4 if cells == 2 else 8)
        found = self.rows[:, begin : begin + cells * cells * width]
        # Cells of a token are in the order of stacked 2x2 convolutions: those of the coarse step before the fine ones.
        steps = cells // 2
        split = found.reshape(side, side, *[2] * (2 * steps), width)
        order = (0, *range(2, 2 + 2 * steps, 2), 1, *range(3, 3 + 2 * steps, 2), 2 + 2 * steps)
        return np.ascontiguousarray(split.transpose(order).reshape(cells * side, cells * side, width))


def parts_of(mask: NDArray[np.bool_]) -> Floats:
    """Returns the parts of tokens that a low-resolution mask (S, S) covers, (N, 16); the inverse of `View.mask`."""
    side = len(mask) // 4
    parts = mask.reshape(side, 4, side, 4).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(parts.reshape(side * side, PARTS), np.float32)


def follow(view: View, prompted: View, last: View | None, motion: Motion) -> tuple[Motion, Floats] | None:
    """Finds an object's surface on a frame.

    Args:
        view: The frame.
        prompted: The frame on which the object was prompted.
        last: The frame before, on which it was found; None if that is the prompted one.
        motion: Where it was on the frame before.

    Returns:
        Its motion from the prompted frame, and what is seen of it (S, S), 0 to 1; None if it was not found.
    """
    seen = whole = prompted.mask
    if last is not None:
        seen = _seen(prompted, last, motion)
    before, enough = last or prompted, _is_enough(seen, whole)
    found = motion
    if enough:
        place, step = moved(seen, motion), np.eye(3)
        for cells in _SIDES:
            step = align(before.level(cells), view.level(cells), _inside(place, cells), step)
        found = step @ motion
    found = _corrected(view, prompted, found, seen if enough else whole, _CORRECTION)
    return _trusted(view, prompted, found)


def find_again(view: View, prompted: View, place: Floats) -> tuple[Motion, Floats] | None:
    """Finds an object's surface where votes say that the object is: see `follow`.

    Args:
        view: The frame.
        prompted: The frame on which the object was prompted.
        place: Likelihood of it, (S, S).
    """
    motion = motion_of(1, _centre(place > MAJORITY) - _centre(prompted.mask > MAJORITY))
    return _trusted(view, prompted, _corrected(view, prompted, motion, prompted.mask, _FOUND_AGAIN))


def _corrected(view: View, prompted: View, motion: Motion, surface: Floats, most: float) -> Motion:
    """Returns the motion by what was prompted, so that errors do not add up; unless that is too far away."""
    finest = _SIDES[-1]
    inside = _inside(surface, finest)
    template, frame = prompted.level(finest), view.level(finest)
    better = align(template, frame, inside, motion)
    alike = likeness(template, frame, inside, better)[inside]
    centre = _centre(prompted.mask > MAJORITY)
    way = (better - motion) @ np.array([centre.real, centre.imag, 1])
    fits = alike.size > 0 and alike.clip(0).mean() > _FITS
    return better if fits and np.abs(way[:2]).max() < most else motion


def _trusted(view: View, prompted: View, motion: Motion) -> tuple[Motion, Floats] | None:
    seen = _seen(prompted, view, motion)
    there = seen > MAJORITY
    if not _is_enough(seen, prompted.mask):
        return None
    finest = _SIDES[-1]
    alike = likeness(prompted.level(finest), view.level(finest), there, motion)[there]
    return (motion, moved(seen, motion)) if alike.clip(0).mean() >= _TRUSTED else None


def _seen(prompted: View, view: View, motion: Motion) -> Floats:
    """Returns the prompted mask (S, S) without what something else is before on another frame. What is before may be as
    smooth as the surface on one level, and is not on both."""
    whole = prompted.mask
    levels = []
    for cells, around in zip(_SIDES, _AROUND, strict=True):
        inside = _inside(whole, cells)
        alike = likeness(prompted.level(cells), view.level(cells), inside, motion)
        weight = cv2.blur(inside.astype(np.float32), (around, around))
        smooth = cv2.blur(alike, (around, around)) / np.maximum(weight, np.float32(0.05))
        levels.append(cv2.resize(smooth, whole.shape, interpolation=cv2.INTER_LINEAR))
    return np.asarray(np.where(np.mean(levels, axis=0) > _SEEN, whole, 0), np.float32)


def _is_enough(seen: Floats, whole: Floats) -> bool:
    count = np.count_nonzero(seen > MAJORITY)
    return bool(count > _SEEN_SHARE * np.count_nonzero(whole > MAJORITY))


def _inside(mask: Floats, cells: int) -> NDArray[np.bool_]:
    """Returns the cells of a level that a mask covers, or touches where it covers hardly any."""
    side = len(mask) * cells // _SIDES[-1]
    covered = np.asarray(cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA))
    levels = (covered > least for least in (0.6, 0.3, 0.1))
    return next((level for level in levels if np.count_nonzero(level) >= _FEWEST), covered > 0)


def _centre(mask: NDArray[np.bool_]) -> complex:
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return 0.5 + 0.5j
    return complex((columns.mean() + 0.5) / mask.shape[1], (rows.mean() + 0.5) / mask.shape[0])
