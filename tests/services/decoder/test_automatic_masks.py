"""Automatic masks: as they are found, left off, counted, and explained."""

import asyncio
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maskwire import AsyncClient, InvalidRequest, OutputMissing

from testing.servers import Stack

LOW: Any = {"pred_iou_thresh": 0.05, "stability_score_thresh": 0.3, "stability_score_offset": 0.2}


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
    pid = stack.pids["decoder"]

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
        for clicks, arguments in (
            (36 * 3, {"points_per_side": 6}),
            (16 * 5, {"points_per_side": 4, "crop_n_layers": 1, "multimask_output": False}),
            (16 * 5 * 3, {"points_per_side": 4, "crop_n_layers": 1}),
        ):
            *_, last = client.generate_masks(photo, **arguments)
            assert sum(last.removed.values()) + len(last.masks) == clicks
            assert last.removed["low_predicted_iou"] > 0
            assert last.removed["low_stability"] > 0
        assert last.removed["at_crop_edge"] > 0
