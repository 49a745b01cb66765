"""Automatic masks without a model: grids, duplicates, and what the summary says."""

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire.v1 import decoder_pb2 as pb
from maskwire_core.config import DecoderSettings
from maskwire_core.errors import InvalidArgument
from maskwire_core.models.decoder_bundle import MaskDefaults
from maskwire_decoder.automatic_masks import nms
from maskwire_decoder.automatic_masks.limits import GenerationLimits
from maskwire_decoder.automatic_masks.params import Part, count_points, parse_parts, parse_thresholds
from maskwire_decoder.automatic_masks.summary import Removed, Tally

LIMITS = GenerationLimits(crops=3, points=2400, batch=100, masks=1000, nbytes=1 << 20)


def plain_nms(boxes: Any, scores: Any, threshold: float) -> list[int]:
    """The definition: by falling score, a box stays if it overlaps no box that stays by more than the threshold."""
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda index: (-scores[index], index)):
        for other in kept:
            a, b = boxes[index].astype(float), boxes[other].astype(float)
            sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
            inner = np.prod(sides.clip(min=0))
            union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inner
            if union and float(np.float32(inner) / np.float32(union)) > threshold:  # fp32, as in torchvision
                break
        else:
            kept.append(index)
    return kept


@given(st.integers(0, 2**32), st.integers(0, 60), st.sampled_from([0.3, 0.5, 0.7]))
@settings(max_examples=60, deadline=None)
def test_duplicates_are_dropped_as_defined(seed: int, count: int, threshold: float) -> None:
    random = np.random.default_rng(seed)
    corners = random.integers(0, 40, (count, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)  # some without an area
    scores = random.integers(0, 5, count).astype(np.float32)  # some equal
    assert nms.distinct(boxes, scores, threshold).tolist() == plain_nms(boxes, scores, threshold)


def test_boxes_near_an_edge_that_is_the_crops_alone() -> None:
    def near(box: Any, crop: Any) -> bool:
        return nms.near_crop_edge(np.array(box, np.float32), np.array(crop, np.float32), 400, 300)

    right_half = (200, 0, 400, 300)
    assert near((219, 50, 300, 200), right_half)
    assert not near((221, 50, 300, 200), right_half)
    assert not near((300, 1, 399, 299), right_half)  # the image's own edges
    assert not near((1, 1, 399, 299), (0, 0, 400, 300))


def test_a_grid_has_its_clicks_in_the_middle_of_equal_cells() -> None:
    (part,) = parse_parts(pb.GenerateMasksRequest(grid=pb.PointGrid(points_per_side=2)))
    assert part.grid.tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    (part,) = parse_parts(pb.GenerateMasksRequest())
    assert part.grid.shape == (1024, 2)
    own = pb.GenerateMasksRequest(grid=pb.PointGrid(points=[0, 1, 0.5, 0.5]))
    assert parse_parts(own)[0].grid.tolist() == [[0, 1], [0.5, 0.5]]


def checked(request: pb.GenerateMasksRequest) -> list[Part]:
    count_points(request, LIMITS)
    return parse_parts(request)


@pytest.mark.parametrize(
    ("grid", "field"),
    [
        ({"points_per_side": 513}, "crops[0].grid.points_per_side"),
        ({"points": [0, 0], "points_per_side": 2}, "crops[0].grid"),
        ({"points": [0, 0, 1]}, "crops[0].grid.points"),
        ({"points": [0, 1.01]}, "crops[0].grid.points"),
        ({"points": [0, float("nan")]}, "crops[0].grid.points"),
    ],
)
def test_a_wrong_grid_is_named(grid: dict[str, Any], field: str) -> None:
    request = pb.GenerateMasksRequest(crops=[pb.ImageCrop(grid=pb.PointGrid(**grid))])
    with pytest.raises(InvalidArgument) as caught:
        checked(request)
    assert (caught.value.reason, caught.value.field) == ("BAD_GRID", field)


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"crops": 4 * [pb.ImageCrop()]}, "TOO_MANY_CROPS", "crops"),
        ({"crops": 2 * [pb.ImageCrop()]}, "TOO_MANY_POINTS", "crops"),
        ({"grid": pb.PointGrid(points_per_side=50)}, "TOO_MANY_POINTS", "grid"),
        ({"grid": pb.PointGrid(points=5000 * [0.5])}, "TOO_MANY_POINTS", "grid"),
        ({"points_per_batch": 101}, "BAD_BATCH", "points_per_batch"),
    ],
)
def test_what_a_call_may_ask_for_is_limited(fields: dict[str, Any], reason: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        count_points(pb.GenerateMasksRequest(**fields), LIMITS)
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_a_small_request_for_many_crops_is_refused_before_any_grid_is_made() -> None:
    request = pb.GenerateMasksRequest(crops=300 * [pb.ImageCrop(grid=pb.PointGrid(points_per_side=512))])
    assert request.ByteSize() < 3000
    tracemalloc.start()
    try:
        for limits in (LIMITS, GenerationLimits.of(DecoderSettings()), replace(LIMITS, crops=1000)):
            with pytest.raises(InvalidArgument):
                count_points(request, limits)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # each grid has 4 MiB
    finally:
        tracemalloc.stop()


def test_many_clicks_are_not_answered_one_by_one() -> None:
    dense, limits = pb.PointGrid(points_per_side=512), GenerationLimits.of(DecoderSettings())
    assert count_points(pb.GenerateMasksRequest(grid=dense), limits) == 512**2
    with pytest.raises(InvalidArgument, match="at least 64") as caught:
        count_points(pb.GenerateMasksRequest(grid=dense, points_per_batch=63), limits)
    assert (caught.value.reason, caught.value.field) == ("BAD_BATCH", "points_per_batch")


def test_parameters_are_the_models_unless_given() -> None:
    defaults = MaskDefaults()
    thresholds = parse_thresholds(pb.GenerateMasksRequest(pred_iou_thresh=0), defaults)
    assert thresholds == replace(defaults, pred_iou_thresh=0)
    for name in ("pred_iou_thresh", "box_nms_thresh", "mask_threshold"):
        with pytest.raises(InvalidArgument) as caught:
            parse_thresholds(pb.GenerateMasksRequest(**{name: float("nan")}), defaults)  # type: ignore[arg-type]
        assert (caught.value.reason, caught.value.field) == ("NOT_FINITE", name)


def test_the_summary_counts_each_mask_once_and_says_what_would_keep_more() -> None:
    thresholds = MaskDefaults(pred_iou_thresh=0.8, stability_score_thresh=0.9)
    tally = Tally()
    tally.add(3, [Removed("low_predicted_iou", 0.5), Removed("low_stability", 0.85)])
    tally.add(3, [Removed("low_predicted_iou", 0.7), Removed("at_crop_edge")])
    summary = tally.summary(thresholds, clicks=2, kept=1)
    counts = (summary.low_predicted_iou, summary.low_stability, summary.at_crop_edge, summary.duplicates, summary.kept)
    assert counts == (2, 1, 1, 1, 1)
    assert sum(counts) == summary.candidates == 6
    assert "2 clicks gave 6 masks, of which 1 stay" in summary.explanation
    assert "pred_iou_thresh to 0.68" in summary.explanation  # nine tenths of the way from 0.5 to 0.7
    assert "stability_score_thresh to 0.85" in summary.explanation
    nothing = Tally().summary(thresholds, clicks=1, kept=0)
    assert nothing.explanation.endswith("To find more, click more densely (points_per_side).")
