"""Follows a surface from one frame to another by its features.

This is Lucas and Kanade's alignment in its inverse compositional form (Baker and Matthews, "Lucas-Kanade 20 Years On: A
Unifying Framework", 2004) of feature maps in place of brightness, for motions that shift, turn and scale, with weights
that leave out what does not fit, as where something else is before the surface.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from maskwire_tracker.remembered import Floats

Motion = NDArray[np.float64]
"""3x3: where a place (x, y, 1) of one frame is on another; 0 and 1 are the sides of either."""

_STEPS = 12
_SMALLEST_STEP = 1e-4
_FIT = 0.25  # squared difference of two features of length 1 that halves a place's weight
_MOST_PLACES = 2000  # of a surface that are compared
_DAMPING = 1e-4
_SMALLEST_GROWTH = 0.5  # in one step


def motion_of(turned_and_scaled: complex, shift: complex) -> Motion:
    """Returns the motion that multiplies places, as complex numbers, and shifts them."""
    a, b = turned_and_scaled.real, turned_and_scaled.imag
    return np.array([[a, -b, shift.real], [b, a, shift.imag], [0, 0, 1]])


def moved(mask: Floats, motion: Motion) -> Floats:
    """Returns where a mask (S, S) is after a motion."""
    side = len(mask)
    to_pixels = np.array([[side, 0, -0.5], [0, side, -0.5], [0, 0, 1.0]])
    matrix = (to_pixels @ motion @ np.linalg.inv(to_pixels))[:2]
    return np.asarray(cv2.warpAffine(mask, matrix, (side, side), flags=cv2.INTER_LINEAR), np.float32)


def align(template: Floats, frame: Floats, inside: NDArray[np.bool_], motion: Motion) -> Motion:
    """Returns the motion by which a surface of one frame is found on another.

    Args:
        template: Features of the frame on which the surface is known, (S, S, C), of length 1.
        frame: Those of the frame on which it is looked for.
        inside: Where it is on the first, (S, S).
        motion: Where to begin; it must be right to about two cells. Returned as it is where there is no surface.
    """
    side = len(template)
    rows, columns = np.nonzero(inside)
    if len(rows) < 2:
        return motion
    every = -(-len(rows) // _MOST_PLACES)
    rows, columns = rows[::every], columns[::every]
    known = template[rows, columns]
    x, y = (columns + 0.5) / side, (rows + 0.5) / side
    centre = complex(x.mean(), y.mean())
    across, down = x - centre.real, y - centre.imag
    extent = max(across.std(), down.std(), 1 / side)
    across, down = across / extent, down / extent
    slopes = [np.gradient(template, axis=axis)[rows, columns] * side for axis in (1, 0)]
    # How features change with a shift right and down, with growing, and with turning.
    changes = [
        slopes[0],
        slopes[1],
        slopes[0] * across[:, None] + slopes[1] * down[:, None],
        slopes[1] * across[:, None] - slopes[0] * down[:, None],
    ]
    jacobian = np.stack(changes, axis=2)
    for _ in range(_STEPS):
        places = motion @ np.stack([x, y, np.ones_like(x)])
        difference = _at(frame, places) - known
        weights = 1 / (1 + (difference**2).sum(axis=1) / _FIT)
        weights *= ((places[:2] >= 0) & (places[:2] <= 1)).all(axis=0)
        weighted = jacobian * weights[:, None, None]
        curvature = np.tensordot(weighted, jacobian, axes=((0, 1), (0, 1))).astype(np.float64)
        slope = np.tensordot(weighted, difference, axes=((0, 1), (0, 1))).astype(np.float64)
        damping = _DAMPING * max(np.trace(curvature), 1e-9)
        step = np.linalg.solve(curvature + damping * np.eye(4), slope)
        factor = 1 + complex(step[2], step[3]) / extent
        if not _SMALLEST_GROWTH < abs(factor) < 1 / _SMALLEST_GROWTH:
            break  # there is nothing to go by
        shift = complex(step[0], step[1]) + centre * (1 - factor)
        motion = motion @ np.linalg.inv(motion_of(factor, shift))
        if np.abs(step).max() < _SMALLEST_STEP:
            break
    return motion


def likeness(template: Floats, frame: Floats, inside: NDArray[np.bool_], motion: Motion) -> Floats:
    """Returns the cosine similarity of a surface's places (S, S) with where a motion puts them; 0 outside."""
    rows, columns = np.nonzero(inside)
    side = len(template)
    found = np.zeros((side, side), np.float32)
    places = motion @ np.stack([(columns + 0.5) / side, (rows + 0.5) / side, np.ones(len(rows))])
    found[rows, columns] = (_at(frame, places) * template[rows, columns]).sum(axis=1)
    return found


def _at(frame: Floats, places: NDArray[np.float64]) -> Floats:
    """Returns the features at places (3, P), between cells by linear interpolation: (P, C)."""
    side = len(frame)
    x, y = (np.clip(each * side - 0.5, 0, side - 1.001) for each in places[:2])
    column, row = x.astype(np.int64), y.astype(np.int64)
    right, below = ((each - each.astype(np.int64)).astype(np.float32)[:, None] for each in (x, y))
    above = frame[row, column] * (1 - right) + frame[row, column + 1] * right
    under = frame[row + 1, column] * (1 - right) + frame[row + 1, column + 1] * right
    found: Floats = above * (1 - below) + under * below
    return found
