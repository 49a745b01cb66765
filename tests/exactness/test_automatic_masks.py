"""Automatic masks against sam2's own generator."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maskwire import Client, InvalidRequest
from maskwire_core.models.decoder_bundle import MaskDefaults
from maskwire_decoder.automatic_masks.nms import distinct
from sam2.utils.amg import coco_encode_rle, rle_to_mask

from testing.reference.predictor import build_demo, everything, over_white
from testing.reference.torchvision_operators import nms
from testing.servers import Stack

# Low, so that the demonstration model has much to offer.
LOW: Any = {"pred_iou_thresh": 0.05, "stability_score_thresh": 0.3, "stability_score_offset": 0.2}


@pytest.fixture
def client(exact: Stack) -> Iterator[Client]:
    with Client(exact.encoder, exact.decoder) as opened:
        yield opened


@pytest.mark.parametrize(
    "arguments",
    [
        {"points_per_side": 5, "points_per_batch": 10},
        {"points_per_side": 4, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2, "crop_nms_thresh": 0.5},
        {"points_per_side": 2, "use_m2m": True},
        {"points_per_side": 4, "multimask_output": False, "box_nms_thresh": 0.5, "mask_threshold": -0.3},
        {"points_per_side": None, "point_grids": [np.random.default_rng(3).uniform(0, 1, (10, 2))]},
    ],
    ids=["grid", "crops", "m2m", "single", "points"],
)
def test_the_masks_are_those_of_the_reference_generator(client: Client, photo: Path, arguments: dict[str, Any]) -> None:
    """The same masks in the same order; a pixel may differ whose logit is next to nothing."""
    expected = everything(build_demo(), over_white(photo), **LOW, **arguments)
    found = client.everything(photo, **LOW, **arguments)
    assert len(found) == len(expected) >= 5
    for mask, reference in zip(found, expected, strict=True):
        ours = mask.annotation()
        assert np.count_nonzero(ours["segmentation"] != reference["segmentation"]) <= 3
        assert abs(ours["area"] - reference["area"]) <= 3
        np.testing.assert_allclose(ours["bbox"], reference["bbox"], atol=1)
        assert ours["predicted_iou"] == pytest.approx(reference["predicted_iou"], abs=1e-5)
        assert ours["stability_score"] == pytest.approx(reference["stability_score"], abs=1e-3)
        assert (ours["point_coords"], ours["crop_box"]) == (reference["point_coords"], reference["crop_box"])


def test_output_modes_are_those_of_the_reference_generator(client: Client, photo: Path) -> None:
    arguments: Any = {"points_per_side": 2, **LOW}
    found = client.everything(photo, **arguments)
    expected = everything(build_demo(), over_white(photo), output_mode="uncompressed_rle", **arguments)
    for mask, reference in zip(found, expected, strict=True):
        uncompressed = mask.annotation("uncompressed_rle")["segmentation"]
        differ = rle_to_mask(uncompressed) != rle_to_mask(reference["segmentation"])
        assert np.count_nonzero(differ) <= 10  # whose logits are 0 but for rounding
        assert mask.annotation("coco_rle")["segmentation"] == coco_encode_rle(uncompressed)
    with pytest.raises(InvalidRequest, match="binary_mask"):
        found[0].annotation("png")  # type: ignore[arg-type]


def test_boxes_are_suppressed_as_torchvision_does() -> None:
    random = np.random.default_rng(7)
    for _ in range(50):
        corners = random.integers(0, 30, (60, 4))
        boxes = np.concatenate(
            [np.minimum(corners[:, :2], corners[:, 2:]), corners.max(1, keepdims=True).repeat(2, 1)], 1
        )
        boxes = boxes.astype(np.float32)
        scores = random.integers(0, 9, 60).astype(np.float32)  # with ties
        threshold = float(random.uniform(0, 1))
        expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
        np.testing.assert_array_equal(distinct(boxes, scores, threshold), expected.numpy())


def test_thresholds_left_unsaid_are_the_models(client: Client, photo: Path) -> None:
    """The demo model's scores are low: by sam2's thresholds nothing stays, which its own know."""
    unsaid = client.everything(photo, points_per_side=8)
    said = client.everything(photo, points_per_side=8, pred_iou_thresh=0.35, stability_score_thresh=0.4)
    assert [mask.rle for mask in unsaid] == [mask.rle for mask in said]
    assert len(unsaid) >= 3
    assert MaskDefaults() == MaskDefaults(0.8, 0.95, 1.0, 0.7, 0.7)  # sam2's, for its own checkpoints
