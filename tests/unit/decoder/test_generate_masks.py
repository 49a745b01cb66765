"""GenerateMasks with a model that can be checked by hand."""

import asyncio
from typing import Any

import numpy as np
import pytest
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core import call_context
from maskwire_core.errors import InvalidArgument, ResourceExhausted
from maskwire_core.masks.rle import rle
from maskwire_core.storage.store import Store
from maskwire_core.tenancy.tenant import EVERYBODY
from numpy.typing import NDArray
from pycocotools import mask as coco

from testing.plain_decoder import HEIGHT, INPUT_SIZE, IOU, MASK_SIZE, WIDTH, PlainDecoder, logits_of, put_image

LOOSE: dict[str, Any] = {"pred_iou_thresh": 0.85, "stability_score_thresh": 0.3, "box_nms_thresh": 0.5}


def generate(decoder: PlainDecoder, **fields: Any) -> list[pb.GenerateMasksResponse]:
    async def call() -> list[pb.GenerateMasksResponse]:
        call_context.begin("").caller = EVERYBODY
        return [each async for each in decoder.generate(pb.GenerateMasksRequest(image_id="cup", **fields))]

    return asyncio.run(call())


def kept(responses: list[pb.GenerateMasksResponse]) -> list[pb.GeneratedMask]:
    """The masks that stay, in the order of the last response; what changed on the way must lead there."""
    masks: dict[int, pb.GeneratedMask] = {}
    counting: set[int] = set()
    for response in responses:
        masks |= {mask.number: mask for mask in response.found}
        counting -= set(response.dropped)
        counting |= set(response.revived) | {mask.number for mask in response.found}
    assert responses[-1].is_last
    assert counting == set(responses[-1].kept)
    return [masks[number] for number in responses[-1].kept]


def expected(image: NDArray[np.float32], side: int) -> list[tuple[str, float]]:
    """Counts and scores of the masks that stay, by the definition, one after another."""
    found = []
    line = (np.arange(side) + 0.5) / side
    for y in line:
        for x in line:
            for number in (1, 2, 3):
                logits = logits_of(image, np.array([[x, y]], np.float32) * INPUT_SIZE, np.ones(1, np.int64), number)
                areas = [float(coco.area(rle(logits - np.float32(by), WIDTH, HEIGHT))) for by in (1, -1)]
                if IOU[number] > 0.85 and areas[1] and areas[0] / areas[1] >= 0.3:
                    runs = rle(logits, WIDTH, HEIGHT)
                    left, top, width, height = coco.toBbox(runs)
                    box = np.array([left, top, left + width - 1, top + height - 1])
                    found.append((runs["counts"].decode(), float(IOU[number]), box))
    stay: list[Any] = []
    for each in sorted(found, key=lambda each: -each[1]):  # stable: of equal scores, the first
        overlaps = []
        for other in stay:
            sides = (np.minimum(each[2][2:], other[2][2:]) - np.maximum(each[2][:2], other[2][:2])).clip(min=0)
            inner = sides.prod()
            overlaps.append(inner / ((each[2][2:] - each[2][:2]).prod() + (other[2][2:] - other[2][:2]).prod() - inner))
        if all(overlap <= 0.5 for overlap in overlaps):
            stay.append(each)
    return [(counts, score) for counts, score, _ in stay]


@pytest.fixture
def steep(store: Store) -> NDArray[np.float32]:
    values = np.random.default_rng(8).normal(-1.5, 0.4, (MASK_SIZE, MASK_SIZE)).astype(np.float32)
    put_image(store, "cup", values, WIDTH, HEIGHT)
    return values


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_the_masks_that_stay_are_those_of_the_definition(
    decoder: PlainDecoder, steep: NDArray[np.float32], batch: int
) -> None:
    responses = generate(decoder, grid=pb.PointGrid(points_per_side=5), points_per_batch=batch, **LOOSE)
    masks = kept(responses)
    assert [(mask.rle.counts, pytest.approx(mask.predicted_iou)) for mask in masks] == expected(steep, 5)
    assert 3 < len(masks) < 40
    assert [response.points_done for response in responses] == [
        min(25, batch * n) for n in range(1, -(-25 // batch) + 1)
    ]
    for mask in masks:
        runs = {"size": list(mask.rle.size), "counts": mask.rle.counts.encode()}
        left, top, width, height = coco.toBbox(runs)
        assert mask.area_px == coco.area(runs)
        box = mask.box
        assert (box.x_min_px, box.y_min_px) == (left, top)
        assert (box.x_max_px, box.y_max_px) == (left + width - 1, top + height - 1)
    summary = responses[-1].summary
    assert summary.kept == len(masks)
    assert summary.candidates == 75


@pytest.mark.usefixtures("steep")
def test_masks_of_a_mask_feed_each_mask_back(decoder: PlainDecoder) -> None:
    before = decoder.segmenter.scheduler.tally.done
    responses = generate(decoder, grid=pb.PointGrid(points=[0.5, 0.5]), use_m2m=True, **LOOSE)
    assert decoder.segmenter.scheduler.tally.done - before == 2  # the click, and the comparison of its masks
    assert {round(mask.predicted_iou, 2) for mask in kept(responses)} <= {round(float(IOU[0]), 2)}


def test_a_crop_is_an_image_of_its_own_and_its_masks_lie_in_the_whole_one(
    decoder: PlainDecoder, store: Store, steep: NDArray[np.float32]
) -> None:
    put_image(store, "part", steep, 60, 40)
    box = types_pb2.Box(x_min_px=30, y_min_px=20, x_max_px=90, y_max_px=60)
    crop = pb.ImageCrop(image_id="part", box=box, grid=pb.PointGrid(points=[0.5, 0.5]))
    responses = generate(decoder, grid=pb.PointGrid(points=[0.1, 0.1]), crops=[crop], **LOOSE)
    for mask in kept(responses):
        assert list(mask.rle.size) == [HEIGHT, WIDTH]
        if mask.crop_box == box:
            area = coco.decode({"size": [HEIGHT, WIDTH], "counts": mask.rle.counts.encode()})
            assert area[:20].sum() == area[60:].sum() == area[:, :30].sum() == area[:, 90:].sum() == 0
    wrong = pb.ImageCrop(image_id="part", box=types_pb2.Box(x_max_px=61, y_max_px=40))
    with pytest.raises(InvalidArgument) as caught:
        generate(decoder, crops=[wrong], grid=pb.PointGrid(points=[0.1, 0.1]))
    assert (caught.value.reason, caught.value.field) == ("BAD_CROP", "crops[0].box")


@pytest.mark.usefixtures("steep")
def test_who_leaves_ends_the_work(decoder: PlainDecoder) -> None:
    async def call() -> int:
        call_context.begin("").caller = EVERYBODY
        answers = decoder.generate(
            pb.GenerateMasksRequest(image_id="cup", grid=pb.PointGrid(points_per_side=40), points_per_batch=4)
        )
        await anext(answers)
        await answers.aclose()  # type: ignore[attr-defined]
        return decoder.segmenter.scheduler.tally.done

    assert asyncio.run(call()) <= 8


@pytest.mark.usefixtures("steep")
@pytest.mark.parametrize("limit", [{"max_generated_masks": 5}, {"generated_mask_bytes": 4000}])
def test_what_a_call_may_find_is_limited(store: Store, limit: dict[str, int]) -> None:
    with pytest.raises(ResourceExhausted, match="Raise pred_iou_thresh") as caught:
        generate(PlainDecoder(store, **limit), grid=pb.PointGrid(points_per_side=5), **LOOSE)
    assert (caught.value.reason, caught.value.field) == ("TOO_MANY_MASKS", "pred_iou_thresh")


@pytest.mark.usefixtures("steep")
def test_calls_share_memory_and_give_it_back(store: Store) -> None:
    decoder = PlainDecoder(store, generated_mask_bytes=1 << 20)
    budget = decoder.segmenter.generated
    generate(decoder, grid=pb.PointGrid(points_per_side=5), **LOOSE)
    assert budget.held == 0
    with budget.account("another") as other:
        other.take(budget.total // 4)
        with budget.account("default") as own:
            own.take(budget.total // 4)
            with pytest.raises(ResourceExhausted) as caught:
                generate(decoder, grid=pb.PointGrid(points_per_side=25), pred_iou_thresh=0, stability_score_thresh=0)
    assert caught.value.reason in ("TOO_MUCH_IN_PROGRESS", "TOO_MANY_MASKS")
    assert budget.held == 0
