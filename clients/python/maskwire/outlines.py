"""Traces masks along the edges of their pixels, and makes polygons that cover exactly the mask.

Pixel (x, y) covers x to x + 1 and y to y + 1, which is the convention of COCO's polygons and pycocotools.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_Points = list[tuple[int, int]]


@dataclass
class _Ring:
    points: _Points
    is_hole: bool
    bridges: dict[int, list[tuple[int, _Points]]] = field(default_factory=dict)
    """For each edge, by index, its bridges to holes: y at which the bridge begins, and the points of the hole."""

    def joined(self) -> _Points:
        """Returns the points of the ring, with those of the holes that are bridged to it."""
        points: _Points = []
        for index, (x, y) in enumerate(self.points):
            points.append((x, y))
            end = self.points[(index + 1) % len(self.points)][1]
            for at, hole in sorted(self.bridges.get(index, []), reverse=end < y):
                points += [(x, at), *hole, hole[0], (x, at)]
        return points


def exact_polygons(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Makes polygons whose union is the mask: one for each 4-connected component, with horizontal cuts to its holes.

    Args:
        mask: HxW.

    Returns:
        The vertices of each polygon, Nx2 x, y of corners of pixels, with N at least 4.
    """
    rings = _rings(mask)
    edges: dict[
        int, list[tuple[int, int, _Ring, int]]
    ] = {}  # vertical edges by x: from y, to y, ring, index of the edge
    for ring in rings:
        for index, (x, y) in enumerate(ring.points):
            next_x, next_y = ring.points[(index + 1) % len(ring.points)]
            if x == next_x:
                edges.setdefault(x, []).append((min(y, next_y), max(y, next_y), ring, index))
    # A hole is joined to the ring on its left. Holes are taken from right to left, so that those joined to it are done.
    for hole in sorted((ring for ring in rings if ring.is_hole), key=lambda ring: min(ring.points), reverse=True):
        start = hole.points.index(min(hole.points))
        x, y = hole.points[start]
        points = hole.joined()
        begin = points.index((x, y))
        outside = np.flatnonzero(~mask[y, :x])
        left = int(outside[-1]) + 1 if len(outside) else 0
        for low, high, ring, index in edges[left]:
            if low <= y < high:
                ring.bridges.setdefault(index, []).append((y, points[begin:] + points[:begin]))
    return [np.array(_without_repeats(ring.joined()), np.float64) for ring in rings if not ring.is_hole]


def edge_rings(mask: NDArray[np.bool_]) -> list[tuple[NDArray[np.int32], bool]]:
    """Traces the outlines of 4-connected components and of their holes along the edges of pixels.

    Args:
        mask: HxW.

    Returns:
        The corners of each outline, Nx2 x, y, and whether it is that of a hole.
    """
    return [(np.array(ring.points, np.int32), ring.is_hole) for ring in _rings(mask)]


def pixel_contours(mask: NDArray[np.bool_]) -> list[tuple[NDArray[np.int32], bool]]:
    """Traces the outlines of 4-connected components and of their holes through the centres of the mask's border pixels,
    as OpenCV's contours run: filled with their own pixels, the outer ones give the mask without its holes.

    Args:
        mask: HxW.

    Returns:
        The vertices of each contour, Nx2 x, y of pixels, and whether it is that of a hole.
    """
    contours = []
    for corners, is_hole in edge_rings(mask):
        after = np.sign(np.roll(corners, -1, 0) - corners)
        normal = np.stack([-after[:, 1], after[:, 0]], 1)  # of the edge behind each corner, into the mask
        inside = corners + (normal + np.roll(normal, 1, 0) - 1) // 2
        differs = (inside != np.roll(inside, 1, 0)).any(1)
        contours.append((inside[differs] if differs.any() else inside[:1], is_hole))
    return contours


def _without_repeats(points: _Points) -> _Points:
    return [point for point, before in zip(points, points[-1:] + points[:-1], strict=True) if point != before]


def _rings(mask: NDArray[np.bool_]) -> list[_Ring]:
    """Traces the closed outlines of 4-connected components and of their holes; only corners are returned."""
    padded = np.pad(mask, 1)
    top_left, top_right, low_left, low_right = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    count = top_left.astype(np.int8) + top_right + low_left + low_right
    falling = (count == 2) & (top_left == low_right)  # two diagonal pixels touch here, so two rings meet
    corner = (count == 1) | (count == 3) | falling
    ys, xs = np.nonzero(corner)
    twice = falling[ys, xs]
    if not len(ys):
        return []
    # Such a corner is a vertex twice. The left one's vertical edge goes up if the top left pixel is inside, else down.
    left_goes_up = top_left[ys, xs]
    xs, ys = np.concatenate([xs, xs[twice]]), np.concatenate([ys, ys[twice]])
    across = np.concatenate([np.zeros(len(twice), int), np.ones(int(twice.sum()), int)])  # left, then right
    up = np.concatenate([np.where(left_goes_up, 0, 1), np.where(left_goes_up[twice], 1, 0)])
    beside, above = _partners(np.lexsort((across, xs, ys))), _partners(np.lexsort((up, ys, xs)))
    rings = []
    seen = np.zeros(len(xs), bool)
    for first in np.lexsort((across, xs, ys)).tolist():
        if seen[first]:
            continue
        points: _Points = []
        at = first
        while True:
            points.append((int(xs[at]), int(ys[at])))
            seen[at] = True
            at = beside[at]
            points.append((int(xs[at]), int(ys[at])))
            seen[at] = True
            at = above[at]
            if at == first:
                break
        x, y = points[0]  # the leftmost of the topmost points, so that the pixel to its lower right is within the ring
        is_hole = not padded[y + 1, x + 1]
        rings.append(_Ring(points[::-1] if is_hole else points, is_hole))  # holes have the opposite orientation
    return rings


def _partners(order: NDArray[np.intp]) -> list[int]:
    """Returns the other end of the edge of each point; in the given order, each two points are the ends of an edge."""
    partners = np.empty(len(order), int)
    partners[order[::2]], partners[order[1::2]] = order[1::2], order[::2]
    return [int(each) for each in partners]
