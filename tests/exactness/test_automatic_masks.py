"""Everything mode against sam2's own generator."""

import asyncio
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maskwire import AsyncClient, Client, InvalidRequest, OutputMissing
from maskwire_core.models.decoder_bundle import MaskDefaults
from maskwire_decoder.automatic_masks.nms import distinct
from sam2.utils.amg import coco_encode_rle

from testing.reference.predictor import build_demo, everything, over_white
from testing.reference.torchvision_operators import nms
from testing.servers import EXACT, Stack, server

# Low, so that the demonstration model has much to offer.
LOW: Any = {"pred_iou_thresh": 0.05, "stability_score_thresh": 0.3, "stability_score_offset": 0.2}


@pytest.fixture(scope="module")
def exact(valkey: str) -> Iterator[Client]:
    with (
        server("maskwire_encoder", valkey, *EXACT) as encoder,
        server("maskwire_decoder", valkey) as decoder,
        Client(encoder, decoder) as client,
    ):
        yield client


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
def test_the_masks_are_those_of_the_reference_generator(exact: Client, photo: Path, arguments: dict[str, Any]) -> None:
    """The same masks in the same order; a pixel may differ whose logit is next to nothing."""
    expected = everything(build_demo(), over_white(photo), **LOW, **arguments)
    found = exact.everything(photo, **LOW, **arguments)
    assert len(found) == len(expected) >= 5
    for mask, reference in zip(found, expected, strict=True):
        ours = mask.annotation()
        assert np.count_nonzero(ours["segmentation"] != reference["segmentation"]) <= 3
        assert abs(ours["area"] - reference["area"]) <= 3
        np.testing.assert_allclose(ours["bbox"], reference["bbox"], atol=1)
        assert ours["predicted_iou"] == pytest.approx(reference["predicted_iou"], abs=1e-5)
        assert ours["stability_score"] == pytest.approx(reference["stability_score"], abs=1e-3)
        assert (ours["point_coords"], ours["crop_box"]) == (reference["point_coords"], reference["crop_box"])


def test_output_modes_are_those_of_the_reference_generator(exact: Client, photo: Path) -> None:
    arguments: Any = {"points_per_side": 2, **LOW}
    found = exact.everything(photo, **arguments)
    expected = everything(build_demo(), over_white(photo), output_mode="uncompressed_rle", **arguments)
    for mask, reference in zip(found, expected, strict=True):
        assert mask.annotation("uncompressed_rle")["segmentation"] == reference["segmentation"]
        assert mask.annotation("coco_rle")["segmentation"] == coco_encode_rle(reference["segmentation"])
    with pytest.raises(InvalidRequest, match="binary_mask"):
        found[0].annotation("png")  # type: ignore[arg-type]


def test_masks_come_as_they_are_found(stack: Stack, photo: Path) -> None:
    with stack.client() as client:
        updates = list(client.generate_masks(photo, points_per_side=12, points_per_batch=6, **LOW))
    assert [update.done for update in updates] == list(range(6, 145, 6))
    first = next(update for update in updates if update.new)
    assert first.done <= first.total / 10
    assert [update.is_last for update in updates] == [False] * 23 + [True]
    sent = [mask for update in updates for mask in update.new]
    assert len(set(map(id, sent))) == len(sent)
    # What counts in the end was sent, and a batch at a time; what was replaced meanwhile is gone.
    assert set(map(id, updates[-1].masks)) <= set(map(id, sent))
    assert len(sent) > len(updates[-1].masks)


def test_the_batch_size_changes_nothing(stack: Stack, photo: Path) -> None:
    with stack.client() as client:
        one, other = (client.everything(photo, points_per_side=6, points_per_batch=size, **LOW) for size in (5, 64))
    assert [mask.rle for mask in one] == [mask.rle for mask in other]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_leaving_off_ends_the_work(stack: Stack, photo: Path) -> None:
    (pid,) = (pid for name, pid in stack.pids.items() if name.startswith("decoder"))

    def used_s(seconds: float) -> float:
        before = cpu_s(pid)
        time.sleep(seconds)
        return cpu_s(pid) - before

    with stack.client() as client:
        updates = client.generate_masks(photo, points_per_side=32, points_per_batch=16)
        assert next(updates).done == 16
        assert used_s(0.5) > 0.1
        updates.close()  # type: ignore[attr-defined]
        time.sleep(0.5)  # the click that runs
        assert used_s(1) < 0.1

    async def cancelled() -> None:
        async with AsyncClient(stack.encoder, stack.decoder) as other:
            task = asyncio.create_task(other.everything(photo, points_per_side=32))
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())
    time.sleep(0.5)
    assert used_s(1) < 0.1


def test_wrong_parameters_are_named(stack: Stack, photo: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"points_per_side": 513}, "grid.points_per_side"),
        ({"points_per_side": None, "point_grids": [np.array([[0.5, 1.5]])]}, "grid.points"),
        ({"box_nms_thresh": float("nan")}, "box_nms_thresh"),
        ({"mask_threshold": float("inf")}, "mask_threshold"),
        ({"points_per_side": 0}, ""),
        ({"point_grids": [np.array([[0.5, 0.5]])], "crop_n_layers": 1}, ""),
        ({"pred_iou_thresh": "high"}, ""),
    ]
    with stack.client() as client:
        for arguments, field in cases:
            with pytest.raises(InvalidRequest) as caught:
                client.everything(photo, **arguments)
            assert caught.value.field == field
        client.embed(photo, image_id="by name")
    with stack.client() as other, pytest.raises(OutputMissing, match="crops need the picture"):
        other.everything("by name", crop_n_layers=1)


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


def test_thresholds_left_unsaid_are_the_models(exact: Client, photo: Path) -> None:
    """The demo model's scores are low: by sam2's thresholds nothing stays, which its own know."""
    unsaid = exact.everything(photo, points_per_side=8)
    said = exact.everything(photo, points_per_side=8, pred_iou_thresh=0.35, stability_score_thresh=0.4)
    assert [mask.rle for mask in unsaid] == [mask.rle for mask in said]
    assert len(unsaid) >= 5
    assert MaskDefaults() == MaskDefaults(0.8, 0.95, 1.0, 0.7, 0.7)  # sam2's, for its own checkpoints


def test_an_empty_result_explains_itself(stack: Stack, photo: Path) -> None:
    strict: Any = {"points_per_side": 6, "pred_iou_thresh": 0.8, "stability_score_thresh": 0.95}
    with stack.client() as client:
        *others, last = client.generate_masks(photo, points_per_batch=10, **strict)
        assert {update.explanation for update in others} == {""}
        assert last.masks == []
        assert last.removed == {"low_predicted_iou": 108, "low_stability": 0, "at_crop_edge": 0, "duplicates": 0}
        found = re.fullmatch(
            r"36 clicks gave 108 masks, of which 0 stay: 108 had a predicted IoU not above 0\.8 \(pred_iou_thresh; "
            r"highest (0\.\d\d)\)\. To keep more, lower pred_iou_thresh to (0\.\d+), or click more densely "
            r"\(points_per_side\)\.",
            last.explanation,
        )
        assert found is not None, last.explanation
        assert 0 < float(found[2]) < float(found[1]) < 0.8
        with pytest.warns(UserWarning, match="lower pred_iou_thresh to"):
            assert client.everything(photo, **strict) == []
        # What is suggested keeps more.
        *_, last = client.generate_masks(photo, points_per_side=6, pred_iou_thresh=float(found[2]))
        assert last.removed["low_predicted_iou"] < 108


def test_every_mask_is_counted(stack: Stack, photo: Path) -> None:
    with stack.client() as client:
        for arguments in (
            {"points_per_side": 6},
            {"points_per_side": 4, "crop_n_layers": 1, "multimask_output": False},
        ):
            *_, last = client.generate_masks(photo, **arguments)
            clicks = 36 * 3 if "crop_n_layers" not in arguments else 16 * 5
            assert sum(last.removed.values()) + len(last.masks) == clicks
            assert last.removed["low_predicted_iou"] > 0
            assert last.removed["low_stability"] > 0
        assert last.removed["at_crop_edge"] > 0
