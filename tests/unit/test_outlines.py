"""Polygons of masks."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire import InvalidRequest
from maskwire.exports import area, simplified, with_area
from maskwire.outlines import exact_polygons
from numpy.typing import NDArray
from pycocotools import mask as coco


def some_mask(seed: int) -> NDArray[np.bool_]:
    """Noise, blobs, holes, crosses, by turns; also a single pixel, and nothing."""
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.integers(1, 40, 2))
    noise = random.random((height, width))
    mask = np.zeros((height, width), bool)
    match seed % 5:
        case 0:
            return noise < random.random()
        case 1:
            return np.asarray(cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 2) > 0.5)
        case 2:
            return noise > 0.1
        case 3:
            mask[random.integers(height)] = mask[:, random.integers(width)] = True
        case _:
            mask[random.integers(height), random.integers(width)] = random.random() < 0.9
    return mask


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_coco_polygons_are_exactly_the_mask(seed: int) -> None:
    mask = some_mask(seed)
    polygons = exact_polygons(mask)
    assert all(len(polygon) >= 4 and area(polygon) > 0 for polygon in polygons)
    assert sum(area(polygon) for polygon in polygons) == mask.sum()
    rles = coco.frPyObjects([each.ravel().tolist() for each in polygons], *mask.shape) if polygons else []
    again = coco.decode(coco.merge(rles)).astype(bool) if polygons else np.zeros_like(mask)
    np.testing.assert_array_equal(again, mask)


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_polygons_have_three_corners_and_an_area(seed: int) -> None:
    mask = some_mask(seed)
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.uint8)
    for contour in contours:
        for ring in with_area(contour.reshape(-1, 2).astype(np.int32)):
            assert len(ring) >= 3
            assert area(ring) > 0
            assert ring.dtype == np.int32
            cv2.fillPoly(filled, [ring], 1)
    assert not (mask & ~filled[:-1, :-1].astype(bool)).any()


@given(st.integers(0, 2**32), st.floats(0.1, 30), st.integers(3, 300))
@settings(max_examples=60, deadline=None)
def test_simplified_polygons_stay_near(seed: int, tolerance: float, corners: int) -> None:
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, corners))
    radii = random.uniform(20, 100, corners)
    polygon = np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1).round().astype(np.int32) + 128
    fewer = simplified(polygon, tolerance)
    assert {tuple(corner) for corner in fewer} <= {tuple(corner) for corner in polygon}
    closed = np.concatenate([fewer, fewer[:1]]).astype(float)
    for corner in polygon:
        start, along = closed[:-1], np.diff(closed, axis=0)
        length = np.maximum((along**2).sum(1), 1e-12)
        share = (((corner - start) * along).sum(1) / length).clip(0, 1)
        assert np.linalg.norm(start + share[:, None] * along - corner, axis=1).min() <= tolerance + 1e-9
    np.testing.assert_array_equal(simplified(polygon, 0), polygon)
    with pytest.raises(InvalidRequest):
        simplified(polygon, -1)
